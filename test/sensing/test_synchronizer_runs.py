"""Whole runs: against an oracle that knows everything, and arbitrary messages."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_events import (
    MS,
    PERIOD,
    SECOND,
    START,
    Event,
    by_arrival,
    camera,
    frames_of,
    play,
    synchronizer,
)

from unim2_core.sensing.synchronizer import MatchedSet, StreamPolicy, Synchronizer

OTHERS = ("depth", "thermal", "nir", "polarization")


def rig(frames: int, seed: int, *, jitter_ms: float = 0.0, loss: float = 0.0) -> list[Event]:
    """Five cameras at 30 Hz, triggered together."""
    rng = random.Random(seed)
    return by_arrival(
        *(
            camera(stream, range(frames), rng, jitter_ms=jitter_ms, loss=loss)
            for stream in ("rgb", *OTHERS)
        )
    )


def wrong(found: list[MatchedSet[int]]) -> int:
    """Members that show another exposure than the reference of their set."""
    return sum(frame != frames_of(it)["rgb"] for it in found for frame in frames_of(it).values())


def missed(found: list[MatchedSet[int]], events: list[Event]) -> int:
    """Members that are not there although their message came."""
    there = {(event.stream, event.frame) for event in events}
    return sum((name, frames_of(it)["rgb"]) in there for it in found for name in it.missing)


@pytest.mark.parametrize("seed", range(3))
def test_five_milliseconds_of_jitter_pair_no_image_with_a_neighbour(seed: int) -> None:
    events = rig(600, seed, jitter_ms=5.0)
    sync = synchronizer(*OTHERS)
    found = play(sync, events) + sync.flush()
    assert len(found) == 600
    assert wrong(found) == 0
    # One in some thousands is further out than the beat of both cameras can explain.
    assert missed(found, events) <= 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("jitter_ms", [0.0, 2.0])
def test_loss_leaves_one_set_for_every_reference_and_no_wrong_pair(
    seed: int, jitter_ms: float
) -> None:
    events = rig(600, seed, jitter_ms=jitter_ms, loss=0.05)
    sync = synchronizer(*OTHERS)
    found = play(sync, events) + sync.flush()
    references = [event.frame for event in events if event.stream == "rgb"]
    assert [frames_of(it)["rgb"] for it in found] == sorted(references)
    assert wrong(found) == 0
    # After a loss just before it, a message may come to a stream that is down.
    assert missed(found, events) <= 0.002 * len(events)


def test_the_nearest_stamp_alone_would_pair_wrongly() -> None:
    events = rig(600, 0, jitter_ms=5.0)
    stamps = {
        name: [(event.stamp_ns, event.frame) for event in events if event.stream == name]
        for name in ("rgb", *OTHERS)
    }
    nearest = sum(
        min(stamps[name], key=lambda other: abs(other[0] - stamp_ns))[1] != frame
        for stamp_ns, frame in stamps["rgb"]
        for name in OTHERS
    )
    assert nearest > 5


def test_one_silent_stream_costs_one_deadline() -> None:
    events = [event for event in rig(300, 1) if event.stream != "thermal" or event.frame < 100]
    sync = synchronizer(*OTHERS)
    found: list[MatchedSet[int]] = []
    now_ns = START
    for event in events:
        while now_ns < event.arrival_ns:  # the timer of a live node
            found += sync.advance(now_ns)
            now_ns += 5 * MS
        found += sync.add(event.stream, event.stamp_ns, event.frame, event.arrival_ns)
    assert len(found) == 300
    assert wrong(found) == 0
    assert [it.missing for it in found[:100]] == [{}] * 100
    assert {it.missing["thermal"] for it in found[103:]} == {"down"}
    assert sum(it.wait_s > 0.02 for it in found) <= 2
    assert max(it.wait_s for it in found) < 0.056


def test_a_camera_that_changes_its_rate_is_followed() -> None:
    rng = random.Random(5)
    streams = []
    for name in ("rgb", "depth"):
        fast = camera(name, range(150), rng, jitter_ms=1)
        slow = camera(
            name, range(75), rng, jitter_ms=1, period_ns=2 * PERIOD, start_ns=START + 150 * PERIOD
        )
        again = camera(name, range(150), rng, jitter_ms=1, start_ns=START + 300 * PERIOD)
        numbered = [*fast, *slow, *again]
        streams.append(
            [Event(e.stream, e.stamp_ns, at, e.arrival_ns) for at, e in enumerate(numbered)]
        )
    events = by_arrival(*streams)
    found = play(synchronizer("depth"), events)
    assert len(found) == 375
    assert wrong(found) + missed(found, events) <= 2


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    phase_ms=st.integers(-8, 8),
    jitter_ms=st.sampled_from([0.0, 0.5, 1.0]),
    loss=st.sampled_from([0.0, 0.05, 0.2]),
)
def test_equal_rates_give_what_an_oracle_gives_that_knows_everything(
    seed: int, phase_ms: int, jitter_ms: float, loss: float
) -> None:
    rng = random.Random(seed)
    calm = {"rng": rng, "jitter_ms": jitter_ms}
    streams = [
        [
            *camera(name, range(20), start_ns=start_ns, **calm),  # type: ignore[arg-type]
            *camera(name, range(20, 120), start_ns=start_ns, loss=loss, **calm),  # type: ignore[arg-type]
        ]
        for name, start_ns in (("rgb", START), ("depth", START + phase_ms * MS))
    ]
    # A deadline beyond any gap, so that only stamps decide.
    sync = synchronizer("depth", deadline_s=10.0)
    found = play(sync, by_arrival(*streams)) + sync.flush()
    assert len(found) == len(streams[0])
    for reference, it in zip(streams[0], found, strict=True):
        near = min(streams[1], key=lambda event: abs(event.stamp_ns - reference.stamp_ns))
        belongs = abs(near.stamp_ns - reference.stamp_ns) < PERIOD / 2
        assert it.stamp_ns == reference.stamp_ns
        assert frames_of(it).get("depth") == (near.frame if belongs else None)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32), times=st.integers(2, 9), phase=st.floats(0, 1))
def test_slower_streams_give_the_nearest_that_has_arrived(
    seed: int, times: int, phase: float
) -> None:
    rng = random.Random(seed)
    start_ns = START + round(phase * times * PERIOD)
    events = by_arrival(
        camera("rgb", range(30 * times), rng),
        camera("depth", range(30), rng, period_ns=times * PERIOD, start_ns=start_ns),
    )
    sync = synchronizer("depth")
    arrived: list[Event] = []
    learned = START + 10 * times * PERIOD
    for event in events:
        found = sync.add(event.stream, event.stamp_ns, event.frame, event.arrival_ns)
        if event.stream == "depth":
            arrived.append(event)
        elif event.stamp_ns > learned:
            assert len(found) == 1
            near = min(arrived, key=lambda other: abs(other.stamp_ns - event.stamp_ns))
            in_age = abs(near.stamp_ns - event.stamp_ns) <= 100 * MS
            assert frames_of(found[0]).get("depth") == (near.frame if in_age else None)
            assert found[0].wait_s == 0


stamps = st.one_of(
    st.integers(0, 40).map(lambda at: START + at * PERIOD),
    st.integers(-5, 5).map(lambda at: START + at * SECOND),
    st.sampled_from([0, 1, START, 10**19, -5]),
)
messages = st.tuples(
    st.sampled_from(["rgb", "rgb", "depth", "thermal"]), stamps, st.integers(-700, 100)
)


@settings(deadline=None, max_examples=300)
@given(st.lists(messages, max_size=60), st.booleans(), st.floats(0, 0.2))
def test_whatever_comes_is_delivered_pending_or_counted(
    events: list[tuple[str, int, int]], required: bool, deadline_s: float
) -> None:
    sync: Synchronizer[int] = Synchronizer(
        "rgb",
        {
            "rgb": StreamPolicy(queue=4),
            "depth": StreamPolicy(required=required, queue=3, max_age_s=0.05),
            "thermal": StreamPolicy(offset_s=-0.02),
        },
        deadline_s,
    )
    came: Counter[str] = Counter()
    used: set[int] = set()
    now_ns = START
    steps_back = 0
    last_ns = -1
    for number, (stream, stamp_ns, step_ms) in enumerate(events):
        now_ns += step_ms * MS
        came[stream] += 1
        for it in sync.add(stream, stamp_ns, number, now_ns):
            check(it, used, events)
            steps_back += it.stamp_ns <= last_ns
            last_ns = it.stamp_ns
        assert steps_back <= sync.counters["resets"]
        pending = sync.pending
        assert pending["rgb"] <= 4
        assert pending["depth"] <= 3
        balance(sync, came, used, events)
    for it in sync.flush():
        check(it, used, events)
    balance(sync, came, used, events)
    assert set(sync.pending.values()) == {0}


def check(it: MatchedSet[int], used: set[int], events: list[tuple[str, int, int]]) -> None:
    """A set whose members are what came, near enough, the reference for the first time."""
    assert it.members.keys() | it.missing.keys() == {"rgb", "depth", "thermal"}
    assert not it.members.keys() & it.missing.keys()
    assert it.skew_s.keys() == it.members.keys() - {"rgb"}
    assert it.members["rgb"].payload not in used
    assert it.wait_s >= 0
    for name, member in it.members.items():
        stream, stamp_ns, _ = events[member.payload]
        offset_ns = -20 * MS if name == "thermal" else 0
        assert (stream, stamp_ns + offset_ns) == (name, member.stamp_ns)
        limit_s = 0.05 if name == "depth" else 0.1
        assert abs(it.skew_s.get(name, 0.0)) <= limit_s
        used.add(member.payload)


def balance(
    sync: Synchronizer[int], came: Counter[str], used: set[int], events: list[tuple[str, int, int]]
) -> None:
    """What came = what was delivered + what was dropped with a reason + what waits."""
    for stream in ("rgb", "depth", "thermal"):
        delivered = sum(events[number][0] == stream for number in used)
        dropped = sum(
            count for key, count in sync.counters.items() if key.startswith(f"{stream}/")
        )
        # A delivered message may stay in its queue, to serve again.
        waits = came[stream] - delivered - dropped
        assert 0 <= waits <= sync.pending[stream]
    assert sync.counters["sets"] == sum(events[number][0] == "rgb" for number in used)


@pytest.mark.parametrize("silent", ["rgb", "depth"])
def test_memory_does_not_grow_with_the_length_of_a_run(silent: str) -> None:
    sync: Synchronizer[bytes] = Synchronizer(
        "rgb", {name: StreamPolicy() for name in ("rgb", "depth", "nir")}
    )

    def run(frames: range) -> None:
        for frame in frames:
            stamp_ns = START + frame * PERIOD
            for name in {"rgb", "depth", "nir"} - {silent}:
                sync.add(name, stamp_ns, bytes(1000), stamp_ns + MS)

    run(range(500))
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    run(range(500, 10_500))
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # At most the full queues, allocated anew.
    assert after - before < 60_000
    assert max(sync.pending.values()) <= 20


def test_sets_come_in_the_order_of_the_references() -> None:
    found = play(synchronizer(*OTHERS), rig(300, 3, jitter_ms=3.0, loss=0.1))
    assert all(one.stamp_ns < other.stamp_ns for one, other in pairwise(found))
