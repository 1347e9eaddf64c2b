from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unim2_core.sensing.grouping import JUMP_NS, PENDING, StampGrouper

ANGLES = ("0", "45", "90", "135")
PERIOD_NS = 100_000_000


def test_a_group_is_complete_with_its_last_part() -> None:
    grouper = StampGrouper[str](ANGLES)
    for part in ANGLES[:3]:
        assert grouper.add(part, 5_000, part) == []
    assert grouper.add("135", 5_000, "135") == [(5_000, {part: part for part in ANGLES})]
    assert grouper.counters == {}


def test_stamps_within_the_tolerance_belong_together_and_the_first_counts() -> None:
    grouper = StampGrouper[int](("a", "b"), tolerance_s=0.001)
    assert grouper.add("a", 10_000_000, 1) == []
    assert grouper.add("b", 11_000_001, 2) == []
    assert grouper.add("b", 11_000_000, 3) == [(10_000_000, {"a": 1, "b": 3})]


def test_optional_parts_join_if_they_come_first() -> None:
    grouper = StampGrouper[int](("s0", "dolp", "aolp"), optional={"s0"})
    grouper.add("s0", 0, 1)
    grouper.add("dolp", 0, 2)
    assert grouper.add("aolp", 0, 3) == [(0, {"s0": 1, "dolp": 2, "aolp": 3})]
    grouper.add("dolp", PERIOD_NS, 4)
    assert grouper.add("aolp", PERIOD_NS, 5) == [(PERIOD_NS, {"dolp": 4, "aolp": 5})]


def test_a_part_that_never_comes_is_counted_and_blocks_nothing() -> None:
    grouper = StampGrouper[int](("a", "b"))
    grouper.add("a", 0, 0)
    complete = 0
    for index in range(1, 3 * PENDING):
        grouper.add("a", index * PERIOD_NS, index)
        complete += len(grouper.add("b", index * PERIOD_NS, index))
    assert complete == 3 * PENDING - 1
    for index in range(3 * PENDING, 5 * PENDING):
        grouper.add("a", index * PERIOD_NS, index)
    assert grouper.counters["a incomplete"] == PENDING + 1


def test_a_repeated_part_is_counted() -> None:
    grouper = StampGrouper[int](("a", "b"))
    grouper.add("a", 0, 1)
    grouper.add("a", 0, 2)
    assert grouper.counters == {"a duplicate": 1}
    assert grouper.add("b", 0, 3) == [(0, {"a": 1, "b": 3})]


def test_a_clock_that_goes_back_starts_anew() -> None:
    grouper = StampGrouper[int](("a", "b"))
    grouper.add("a", 10 * JUMP_NS, 1)
    grouper.add("a", 0, 2)
    assert grouper.counters == {"a clock went back": 1}
    assert grouper.add("b", 0, 3) == [(0, {"a": 2, "b": 3})]


def test_an_unknown_part_is_an_error() -> None:
    with pytest.raises(KeyError, match="'c'"):
        StampGrouper[int](("a", "b")).add("c", 0, 1)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from(ANGLES), st.integers(0, 12)), max_size=80))
def test_every_part_is_in_a_group_waits_or_is_counted(events: list[tuple[str, int]]) -> None:
    grouper = StampGrouper[int](ANGLES)
    grouped = 0
    for number, (part, index) in enumerate(events):
        for stamp_ns, group in grouper.add(part, index * PERIOD_NS // 4, number):
            assert set(group) == set(ANGLES)
            assert all(events[at][1] * PERIOD_NS // 4 == stamp_ns for at in group.values())
            grouped += len(group)
    grouper.reset()
    assert grouped + sum(grouper.counters.values()) == len(events)
