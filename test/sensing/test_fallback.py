"""Sets go on around another stream while the reference is silent."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import groupby, pairwise

import pytest
from stream_events import MS, PERIOD, SECOND, START, Event, by_arrival, camera

from unim2_core.sensing.fallback import START_NS, FallbackSynchronizer
from unim2_core.sensing.synchronizer import MatchedSet, StreamPolicy

ORDER = ("rgb", "thermal", "depth")
DEADLINE = 50 * MS
TICK = 5 * MS


def fallback(*order: str, **policies: StreamPolicy) -> FallbackSynchronizer[int]:
    streams = {name: StreamPolicy() for name in ORDER} | policies
    return FallbackSynchronizer(order or ORDER, streams, DEADLINE / SECOND)


def cameras(frames: dict[str, Iterable[int]], **options: float) -> list[Event]:
    draw = random.Random(0)
    return by_arrival(*(camera(name, own, draw, **options) for name, own in frames.items()))


def live(
    sync: FallbackSynchronizer[int], events: Iterable[Event]
) -> list[tuple[int, MatchedSet[int]]]:
    """What comes out and when, with a timer as in a node."""
    found, now_ns = [], START
    for event in events:
        while now_ns + TICK < event.arrival_ns:
            now_ns += TICK
            found += [(now_ns, one) for one in sync.advance(now_ns)]
        now_ns = event.arrival_ns
        new = sync.add(event.stream, event.stamp_ns, event.frame, now_ns)
        found += [(now_ns, one) for one in new]
    return found


def without(dead: Iterable[int], count: int = 120) -> list[int]:
    gone = set(dead)
    return [frame for frame in range(count) if frame not in gone]


def test_output_stops_no_longer_than_the_deadline_and_a_frame() -> None:
    sync = fallback()
    events = cameras({"rgb": without(range(40, 80)), "thermal": range(120), "depth": range(120)})
    found = live(sync, events)
    times = [now_ns for now_ns, _ in found]
    gaps = [later - before for before, later in pairwise(times)]
    assert max(gaps) <= DEADLINE + PERIOD + 3 * TICK  # latencies and the timer
    leading = [one.reference for _, one in found]
    assert leading[0] == leading[-1] == "rgb"
    assert leading.count("thermal") >= 40 - 4
    for _, one in found:
        assert one.stamp_ns == one.members[one.reference].stamp_ns
        if one.reference == "thermal":
            assert one.missing["rgb"] == "down"
            assert set(one.skew_s) <= {"depth"}
    complete = [one for _, one in found if one.reference == "thermal" and "depth" in one.members]
    assert len(complete) >= 35


def test_the_reference_leads_again_with_its_first_message() -> None:
    sync = fallback()
    live(sync, cameras({"rgb": range(30), "thermal": range(60), "depth": range(60)}))
    assert sync.leading == "thermal"
    later = cameras({name: range(60, 64) for name in ORDER})
    found = live(sync, later)
    assert sync.leading == "rgb"
    assert [one.reference for _, one in found if one.reference == "rgb"]
    assert {one.members["rgb"].payload for _, one in found if "rgb" in one.members} >= {60, 61}


def test_the_best_that_speaks_leads() -> None:
    sync = fallback()
    frames = {"rgb": range(20), "thermal": without(range(50, 90)), "depth": range(120)}
    seen = [one.reference for _, one in live(sync, cameras(frames))]
    assert [name for name, _ in groupby(seen)] == ["rgb", "thermal", "depth", "thermal"]


def test_two_that_die_at_once_are_passed_over() -> None:
    sync, draw = fallback(), random.Random(0)
    # Thermal's last image is between that of the reference and the next, which does not come.
    streams = [
        camera("rgb", range(20), draw),
        camera("thermal", range(59), draw, period_ns=PERIOD // 3),
        camera("depth", range(60), draw),
    ]
    found = live(sync, by_arrival(*streams))
    assert [name for name, _ in groupby(one.reference for _, one in found)] == ["rgb", "depth"]
    assert found[-1][1].missing == {"rgb": "down", "thermal": "down"}
    assert sync.counters["thermal/unmatched"] == 59 - 20


def test_a_reference_that_never_spoke_is_done_without_after_a_while() -> None:
    sync = fallback()
    found = live(sync, cameras({"thermal": range(120), "depth": range(120)}))
    assert found[0][0] - START == pytest.approx(START_NS + DEADLINE, abs=2 * PERIOD)
    assert {one.reference for _, one in found} == {"thermal"}
    assert all(one.missing["rgb"] == "never seen" for _, one in found)


@pytest.mark.parametrize("options", [{"loss": 0.05}, {"jitter_ms": 5.0}])
def test_single_lost_images_and_jitter_are_no_silence(options: dict[str, float]) -> None:
    draw = random.Random(1)
    others = [camera(name, range(300), draw, **options) for name in ("thermal", "depth")]
    options.pop("loss", None)
    rgb = camera("rgb", without(range(10, 300, 20), 300), draw, **options)
    found = live(fallback(), by_arrival(rgb, *others))
    assert {one.reference for _, one in found} == {"rgb"}


def test_a_required_stream_is_not_done_without_but_the_reference_is() -> None:
    required = StreamPolicy(required=True)
    frames = {"rgb": range(20), "thermal": range(40), "depth": range(120)}
    for policies, leading in (
        ({"rgb": required}, set(ORDER)),
        ({"thermal": required}, set(ORDER[:2])),
    ):
        found = live(fallback(**policies), cameras(frames))
        assert {one.reference for _, one in found} == leading


@pytest.mark.parametrize("jump_s", [-30, 30])
def test_a_clock_that_jumps_is_no_silence(jump_s: int) -> None:
    sync = fallback()
    live(sync, cameras({name: range(30) for name in ORDER}))
    moved = START + jump_s * SECOND + SECOND
    events = cameras({name: range(30, 60) for name in ORDER}, start_ns=moved)
    seen = [
        one.reference
        for event in events
        for one in sync.add(event.stream, event.stamp_ns, event.frame, event.arrival_ns)
    ]
    assert set(seen) == {"rgb"}


def test_every_message_is_counted_once() -> None:
    sync = fallback()
    frames = {"rgb": without(range(30, 70)), "thermal": without(range(50, 60)), "depth": range(99)}
    events = cameras(frames, jitter_ms=3.0)
    found = live(sync, [*events, Event("rgb", 0, -1, events[-1].arrival_ns + MS)])
    found += [(0, one) for one in sync.flush()]
    used = {
        name: {one.members[name].payload for _, one in found if name in one.members}
        for name in ORDER
    }
    assert sync.counters["sets"] == len(found)
    assert sync.counters["rgb/no stamp"] == 1
    for name in ORDER:
        sent = sum(event.stream == name for event in events) + (name == "rgb")
        dropped = sum(count for key, count in sync.counters.items() if key.startswith(f"{name}/"))
        assert len(used[name]) + dropped == sent, name


def test_a_reset_begins_with_the_reference() -> None:
    sync = fallback()
    live(sync, cameras({"rgb": range(20), "thermal": range(60), "depth": range(60)}))
    sync.reset()
    assert sync.leading == "rgb"
    assert sync.counters["resets"] == 1
    assert sync.counters["sets"] > 50
