"""One test for each rule of the synchronizer; see also _boundary and _runs."""

from __future__ import annotations

import random

import pytest
from stream_events import (
    MS,
    PERIOD,
    SECOND,
    START,
    by_arrival,
    camera,
    frames_of,
    only,
    play,
    synchronizer,
    warmed_up,
)

from unim2_core.sensing.synchronizer import StreamPolicy

# When a partner is final


@pytest.mark.parametrize("after_ms", [0, 5])
def test_a_candidate_at_or_after_the_reference_is_final_at_once(after_ms: int) -> None:
    sync = synchronizer("depth")
    assert sync.add("rgb", START, 1, START) == []
    found = only(sync.add("depth", START + after_ms * MS, 2, START + 8 * MS))
    assert frames_of(found) == {"rgb": 1, "depth": 2}
    assert found.skew_s == {"depth": pytest.approx(after_ms / 1000)}
    assert found.wait_s == pytest.approx(0.008)
    assert found.missing == {}


@pytest.mark.parametrize("before_ms", [1, 16])
def test_a_candidate_less_than_half_a_period_before_is_final_at_once(before_ms: int) -> None:
    sync = warmed_up()
    sync.add("depth", START - before_ms * MS, 7, START)
    found = only(sync.add("rgb", START, 8, START + MS))
    assert frames_of(found) == {"rgb": 8, "depth": 7}
    assert found.skew_s["depth"] == pytest.approx(-before_ms / 1000)
    assert found.wait_s == 0


def test_further_before_the_next_stamp_decides_and_the_nearest_wins() -> None:
    sync = warmed_up()
    sync.add("depth", START - 18 * MS, 1, START)
    assert sync.add("rgb", START, 2, START + MS) == []
    found = only(sync.add("depth", START + 15 * MS, 3, START + 17 * MS))
    assert frames_of(found) == {"rgb": 2, "depth": 3}

    sync = warmed_up()
    sync.add("depth", START - 18 * MS, 1, START)
    assert sync.add("rgb", START, 2, START + MS) == []
    found = only(sync.add("depth", START + 25 * MS, 3, START + 27 * MS))
    assert frames_of(found) == {"rgb": 2, "depth": 1}


def test_the_deadline_decides_where_no_stamp_comes() -> None:
    sync = warmed_up()
    sync.add("depth", START - 18 * MS, 1, START)
    assert sync.add("rgb", START, 2, START) == []
    assert sync.advance(START + 49 * MS) == []
    found = only(sync.advance(START + 50 * MS))
    assert frames_of(found) == {"rgb": 2, "depth": 1}
    assert found.wait_s == pytest.approx(0.05)


def test_before_any_period_is_known_the_next_stamp_decides() -> None:
    sync = synchronizer("depth")
    sync.add("depth", START - 5 * MS, 1, START - 2 * MS)
    assert sync.add("rgb", START, 2, START) == []
    found = only(sync.add("depth", START + 28 * MS, 3, START + 30 * MS))
    assert frames_of(found) == {"rgb": 2, "depth": 1}


def test_a_message_that_came_after_the_deadline_is_late() -> None:
    sync = warmed_up()
    sync.add("rgb", START, 1, START)
    found = only(sync.add("depth", START, 2, START + 51 * MS))
    assert found.missing == {"depth": "late"}
    assert frames_of(
        only(
            sync.add("depth", START + PERIOD, 4, START + 52 * MS)
            or sync.add("rgb", START + PERIOD, 3, START + 53 * MS)
        )
    ) == {"rgb": 3, "depth": 4}
    assert sync.counters["depth/late"] == 1


# Who is whose partner


def test_a_lost_image_is_missing_and_not_replaced_by_its_neighbour() -> None:
    sync = warmed_up()
    assert sync.add("rgb", START, 0, START) == []
    found = only(sync.add("depth", START + PERIOD, 1, START + PERIOD))
    assert found.missing == {"depth": "lost"}
    assert frames_of(only(sync.add("rgb", START + PERIOD, 1, START + PERIOD + MS))) == {
        "rgb": 1,
        "depth": 1,
    }


def test_the_partner_of_a_lost_reference_does_not_serve_the_next() -> None:
    sync = warmed_up()
    sync.add("depth", START, 0, START)
    assert sync.add("rgb", START + PERIOD, 1, START + PERIOD) == []
    found = only(sync.advance(START + PERIOD + 50 * MS))
    assert found.missing == {"depth": "late"}


def test_a_slower_stream_is_never_waited_for_and_serves_until_it_is_too_old() -> None:
    rng = random.Random(1)
    sync = synchronizer(thermal=StreamPolicy(max_age_s=0.08))
    found = play(
        sync,
        by_arrival(
            camera("rgb", range(120), rng),
            camera("thermal", range(40), rng, period_ns=3 * PERIOD, start_ns=START - PERIOD // 2),
        ),
    )
    assert len(found) == 120
    learned = found[30:]
    assert all(it.wait_s == 0 for it in learned)
    # Exposed half a frame before every third image: 17, 50 and 83 ms old, and 80 are allowed.
    assert [it.missing.get("thermal", "") for it in learned[:6]] == ["", "", "too old"] * 2
    assert [frames_of(it).get("thermal") for it in learned[:3]] == [10, 10, None]
    assert all(-0.08 <= it.skew_s.get("thermal", 0) <= 0 for it in learned)


def test_a_faster_stream_gives_its_nearest_and_each_at_most_once() -> None:
    rng = random.Random(2)
    found = play(
        synchronizer("nir"),
        by_arrival(
            camera("rgb", range(60), rng, start_ns=START + 4 * MS),
            camera("nir", range(200), rng, period_ns=SECOND // 100),
        ),
    )
    assert len(found) >= 59
    assert all(abs(it.skew_s["nir"]) <= 0.00501 for it in found)
    assert len({frames_of(it)["nir"] for it in found}) == len(found)


def test_beyond_the_age_nothing_is_taken() -> None:
    sync = warmed_up(depth=StreamPolicy(max_age_s=0.003))
    sync.add("rgb", START, 1, START)
    assert only(sync.add("depth", START + 4 * MS, 2, START + 5 * MS)).missing == {
        "depth": "too old"
    }


def test_offsets_are_added_before_anything_is_compared() -> None:
    sync = synchronizer(rgb=StreamPolicy(offset_s=0.010), depth=StreamPolicy(offset_s=-0.030))
    sync.add("rgb", START, 1, START)
    found = only(sync.add("depth", START + 40 * MS, 2, START + MS))
    assert found.stamp_ns == START + 10 * MS
    assert found.members["depth"].stamp_ns == START + 10 * MS
    assert found.skew_s == {"depth": 0.0}


# Streams that are missing


def test_a_stalled_stream_costs_one_deadline_and_is_down_until_it_speaks() -> None:
    sync = warmed_up()
    waits, reasons = [], []
    for frame in range(6):
        stamp_ns = START + frame * PERIOD
        for found in sync.add("rgb", stamp_ns, frame, stamp_ns):
            waits.append(found.wait_s)
            reasons.append(found.missing["depth"])
    # 0 waits for its deadline, 1 came meanwhile and goes out with it, the others do not wait.
    assert reasons == ["late"] + ["down"] * 5
    assert max(waits) <= 0.067
    assert waits[2:] == [0] * 4
    back_ns = START + 6 * PERIOD
    sync.add("depth", back_ns, 6, back_ns)
    assert frames_of(only(sync.add("rgb", back_ns, 6, back_ns + MS))) == {"rgb": 6, "depth": 6}


def test_a_stream_that_never_spoke_costs_one_deadline() -> None:
    sync = synchronizer("depth")
    assert sync.add("rgb", START, 0, START) == []
    assert only(sync.advance(START + 50 * MS)).missing == {"depth": "never seen"}
    found = only(sync.add("rgb", START + PERIOD * 2, 1, START + 2 * PERIOD))
    assert (found.missing, found.wait_s) == ({"depth": "never seen"}, 0)


def test_without_a_required_stream_the_set_is_dropped_and_counted() -> None:
    sync = synchronizer("nir", depth=StreamPolicy(required=True))
    sync.add("nir", START, 0, START)
    sync.add("rgb", START, 0, START)
    assert sync.advance(START + 50 * MS) == []
    assert sync.flush() == []
    reason = "required depth missing"
    assert sync.counters == {"sets": 0, "resets": 0, f"rgb/{reason}": 1, f"nir/{reason}": 1}


# Stamps that lie


def test_zero_stamps_and_duplicates_are_counted_and_change_nothing() -> None:
    sync = warmed_up()
    for frame in range(20):
        stamp_ns = START + frame * PERIOD
        assert sync.add("depth", 0, -1, stamp_ns) == []
        sync.add("depth", stamp_ns, frame, stamp_ns)
        assert sync.add("depth", stamp_ns, -1, stamp_ns) == []
        found = only(sync.add("rgb", stamp_ns + 10 * MS, frame, stamp_ns + MS))
        assert sync.add("rgb", stamp_ns + 10 * MS, -1, stamp_ns + MS) == []
        assert frames_of(found) == {"rgb": frame, "depth": frame}
        # 10 ms before: final only because the repeated stamp did not make the period zero.
        assert found.wait_s == 0
    assert sync.counters["depth/no stamp"] == 20
    assert sync.counters["depth/duplicate"] == 20
    assert sync.counters["rgb/duplicate"] == 20


def test_out_of_order_within_a_stream_is_sorted_and_no_jump() -> None:
    sync = warmed_up(deadline := 20)
    for frame in (1, 0, 3, 2):
        stamp_ns = START + frame * PERIOD
        sync.add("depth", stamp_ns, frame, START + deadline * MS)
    found = [
        only(sync.add("rgb", START + frame * PERIOD, frame, START + (21 + frame) * MS))
        for frame in range(4)
    ]
    assert [frames_of(it)["depth"] for it in found] == [0, 1, 2, 3]
    assert sync.counters["resets"] == 0


def test_a_reference_behind_one_that_is_decided_is_counted() -> None:
    sync = warmed_up()
    assert sync.add("rgb", START - PERIOD // 2, 0, START) == []
    assert sync.add("rgb", START - 2 * PERIOD + MS, -1, START) == []
    assert sync.counters["rgb/out of order"] == 1


def test_pending_references_leave_in_the_order_of_their_stamps() -> None:
    sync = warmed_up()
    for frame in (1, 0, 2):
        assert sync.add("rgb", START + frame * PERIOD, frame, START) == []
    found = sync.flush()
    assert [frames_of(it)["rgb"] for it in found] == [0, 1, 2]


def test_a_jump_back_with_full_queues_recovers_at_once() -> None:
    sync = warmed_up()
    for frame in range(40):
        sync.add("depth", START + frame * PERIOD, frame, START)
    pending = [sync.add("rgb", START + (50 + at) * PERIOD, 50 + at, START) for at in range(2)]
    assert pending == [[], []]
    back_ns = START - 60 * SECOND
    old = sync.add("rgb", back_ns, 1000, START + MS)
    assert [frames_of(it)["rgb"] for it in old] == [50, 51]
    assert frames_of(only(sync.add("depth", back_ns, 1000, START + 2 * MS))) == {
        "rgb": 1000,
        "depth": 1000,
    }
    assert sync.counters["resets"] == 1
    for frame in range(1, 30):
        stamp_ns = back_ns + frame * PERIOD
        sync.add("depth", stamp_ns, frame, stamp_ns)
        assert only(sync.add("rgb", stamp_ns, frame, stamp_ns)).missing == {}


def test_a_bag_that_loops_is_one_reset_whichever_stream_is_first() -> None:
    sync = warmed_up()
    now_ns = START
    for loop in range(3):
        for frame in range(40):
            now_ns += PERIOD
            stamp_ns = START + frame * PERIOD
            sync.add("depth", stamp_ns, frame, now_ns)
            found = only(sync.add("rgb", stamp_ns, frame, now_ns + MS))
            assert frames_of(found) == {"rgb": frame, "depth": frame}
        assert sync.counters["resets"] == loop


def test_a_single_stamp_far_ahead_decides_nothing_and_is_forgotten() -> None:
    sync = warmed_up()
    assert sync.add("rgb", START, 0, START) == []
    assert sync.add("depth", START + 1000 * SECOND, -1, START + MS) == []
    found = only(sync.add("depth", START, 0, START + 2 * MS))
    assert frames_of(found) == {"rgb": 0, "depth": 0}
    assert sync.counters["depth/clock went back"] == 1
    assert sync.counters["resets"] == 0


def test_a_jump_ahead_of_all_streams_goes_on_at_once() -> None:
    sync = warmed_up()
    for frame in range(5):
        stamp_ns = START + 100 * SECOND + frame * PERIOD
        sync.add("depth", stamp_ns, frame, START + frame * PERIOD)
        found = only(sync.add("rgb", stamp_ns, frame, START + frame * PERIOD + MS))
        assert frames_of(found) == {"rgb": frame, "depth": frame}
    assert sync.counters["resets"] == 0


def test_deadlines_hold_when_the_clock_of_arrivals_is_set_back() -> None:
    sync = warmed_up()
    sync.add("rgb", START, 0, START)
    back_ns = START - 3600 * SECOND
    assert sync.advance(back_ns) == []
    found = only(sync.advance(back_ns + 50 * MS))
    assert found.missing == {"depth": "late"}
