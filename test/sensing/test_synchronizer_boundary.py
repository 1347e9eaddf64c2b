"""What the synchronizer refuses, and how a run ends."""

from __future__ import annotations

import doctest
from itertools import pairwise

import numpy as np
import pytest
from stream_events import MS, PERIOD, START, frames_of, only, synchronizer, warmed_up

from unim2_core.sensing import synchronizer as module
from unim2_core.sensing.synchronizer import StreamPolicy, Synchronizer


def test_unknown_streams_and_times_that_are_no_numbers_are_errors() -> None:
    sync = synchronizer("depth")
    with pytest.raises(KeyError, match="sonar"):
        sync.add("sonar", START, 0, START)
    for bad in (float("nan"), float("inf"), 1.5, None):
        with pytest.raises(ValueError, match="nanoseconds"):
            sync.add("rgb", bad, 0, START)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="nanoseconds"):
            sync.advance(bad)  # type: ignore[arg-type]
    assert sync.counters == {"sets": 0, "resets": 0}
    sync.add("depth", np.int64(START), 1, np.uint64(START))
    assert type(only(sync.add("rgb", START, 0, START)).members["depth"].stamp_ns) is int


@pytest.mark.parametrize(
    "values",
    [{"max_age_s": -0.1}, {"max_age_s": float("nan")}, {"offset_s": float("inf")}, {"queue": 1}],
)
def test_policies_that_make_no_sense_are_errors(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        StreamPolicy(**values)  # type: ignore[arg-type]


def test_a_reference_without_a_stream_or_a_bad_deadline_is_an_error() -> None:
    with pytest.raises(ValueError, match="'rgb'"):
        Synchronizer("rgb", {"depth": StreamPolicy()})
    with pytest.raises(ValueError, match="deadline"):
        Synchronizer("rgb", {"rgb": StreamPolicy()}, deadline_s=float("nan"))


def test_alone_the_reference_never_waits() -> None:
    sync = synchronizer()
    assert only(sync.add("rgb", START, 0, START)).wait_s == 0


def test_flush_decides_all_and_leaves_nothing() -> None:
    sync = warmed_up()
    for frame in range(3):
        sync.add("depth", START + frame * PERIOD, frame, START)
    for frame in (5, 6):
        sync.add("rgb", START + frame * PERIOD, frame, START)
    assert [frames_of(it) for it in sync.flush()] == [{"rgb": 5}, {"rgb": 6}]
    assert sync.pending == {"rgb": 0, "depth": 0}
    assert sync.counters["depth/unmatched"] == 3
    assert sync.flush() == []


def test_reset_forgets_the_messages_and_keeps_the_counters() -> None:
    sync = warmed_up()
    sync.add("rgb", START, 0, START)
    sets = sync.counters["sets"]
    sync.reset()
    assert sync.flush() == []
    assert sync.counters["rgb/reset"] == 1
    assert sync.counters["resets"] == 1
    assert sync.counters["sets"] == sets
    sync.add("depth", MS, 1, START)  # any time is new
    assert frames_of(only(sync.add("rgb", MS, 1, START))) == {"rgb": 1, "depth": 1}


def test_full_queues_push_out_their_oldest() -> None:
    sync = synchronizer(rgb=StreamPolicy(queue=3), depth=StreamPolicy(queue=4))
    for frame in range(10):
        sync.add("depth", START + frame * PERIOD, frame, START)
    assert sync.pending["depth"] == 4
    assert sync.counters["depth/queue full"] == 6
    sync = synchronizer("depth", rgb=StreamPolicy(queue=3))
    found = [sync.add("rgb", START + at * PERIOD, at, START) for at in range(8)]
    assert sync.pending["rgb"] == 3
    stamps = [it.stamp_ns for sets in found for it in sets]
    assert len(stamps) == 5
    assert all(earlier < later for earlier, later in pairwise(stamps))


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(module)
    assert (result.failed, result.attempted > 0) == (0, True)
