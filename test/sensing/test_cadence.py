from __future__ import annotations

import random
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stream_events import MS, PERIOD, START, camera

from unim2_core.sensing.cadence import Cadence
from unim2_core.sensing.matching import REACH_OFF_BEAT, first_match


def listen(stamps: list[int], cadence: Cadence | None = None) -> Cadence:
    cadence = cadence or Cadence()
    for stamp_ns in stamps:
        cadence.observe(stamp_ns)
    return cadence


def stamps_of(frames: range, seed: int = 0, **options: float) -> list[int]:
    rng = random.Random(seed)
    return [event.stamp_ns for event in camera("rgb", frames, rng, **options)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("jitter_ms", "loss", "error"),
    [(0.0, 0.0, 1e-6), (0.0, 0.3, 1e-3), (1.0, 0.05, 0.01), (1.0, 0.3, 0.01), (5.0, 0.05, 0.06)],
)
def test_the_period_is_that_of_the_camera(jitter_ms: float, loss: float, error: float) -> None:
    for seed in range(10):
        cadence = listen(stamps_of(range(60), seed, jitter_ms=jitter_ms, loss=loss))
        assert cadence.known
        assert cadence.period_ns == pytest.approx(PERIOD, rel=error)


def test_two_stamps_give_a_first_period() -> None:
    cadence = listen([START])
    assert (cadence.period_ns, cadence.shortest_ns, cadence.known) == (0.0, 0, False)
    cadence = listen([START + PERIOD], cadence)
    assert (cadence.period_ns, cadence.shortest_ns, cadence.known) == (PERIOD, PERIOD, False)


def test_repeated_and_older_stamps_teach_nothing() -> None:
    cadence = Cadence()
    for stamp_ns in stamps_of(range(40)):
        cadence.observe(stamp_ns)
        cadence.observe(stamp_ns)
        cadence.observe(stamp_ns - PERIOD // 3)
    assert cadence.period_ns == pytest.approx(PERIOD)
    assert cadence.shortest_ns == PERIOD


def test_the_beat_is_nearer_to_the_exposure_than_the_stamp() -> None:
    cadence = Cadence()
    of_stamp, of_beat = [], []
    for frame, stamp_ns in enumerate(stamps_of(range(1000), jitter_ms=3.0)):
        tick = cadence.observe(stamp_ns)
        if frame > 32:
            of_stamp.append((stamp_ns - START - frame * PERIOD) ** 2)
            of_beat.append((tick.due_ns - START - frame * PERIOD) ** 2)
    assert sum(of_beat) < 0.35 * sum(of_stamp)


def test_a_doubtful_stamp_is_settled_by_the_next() -> None:
    warm = stamps_of(range(60), 1, jitter_ms=5.0)
    due_ns = START + 61 * PERIOD
    for following_ns, beats in ((due_ns, 0), (due_ns + PERIOD, 1)):
        cadence = listen(warm)
        tick = cadence.observe(START + 60 * PERIOD + round(0.58 * PERIOD))
        assert not tick.settled
        cadence.observe(following_ns)
        assert tick.settled
        assert round((tick.due_ns - START) / PERIOD) == 60 + beats


def test_a_steady_camera_that_changes_its_phase_is_taken_at_its_word() -> None:
    cadence = listen(stamps_of(range(60)))
    for frame in range(60, 70):
        stamp_ns = START + frame * PERIOD + 12 * MS
        assert cadence.observe(stamp_ns).due_ns == pytest.approx(stamp_ns, abs=MS)


def test_stamps_at_random_have_no_beat() -> None:
    rng = random.Random(3)
    cadence = Cadence()
    stamp_ns = START
    ticks = []
    for _ in range(200):
        stamp_ns += round(rng.expovariate(1 / PERIOD)) + MS
        ticks.append(cadence.observe(stamp_ns))
    assert not cadence.regular
    # Some may look regular by chance; no stamp is moved far.
    assert sum(tick.due_ns != tick.stamp_ns for tick in ticks[100:]) < 20


def test_slower_needs_more_proof_the_closer_the_rates_are() -> None:
    reference = listen(stamps_of(range(60)))
    for ratio, frames in ((3.0, 6), (2.0, 8), (1.5, 10), (1.11, 40)):
        period_ns = round(ratio * PERIOD)
        slower = listen(stamps_of(range(frames), period_ns=period_ns))
        assert slower.slower_than(reference)
        assert not reference.slower_than(slower)
        assert not listen(stamps_of(range(3), period_ns=period_ns)).slower_than(reference)
    assert not listen(stamps_of(range(60), period_ns=round(1.01 * PERIOD))).slower_than(reference)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(-(10**10), 10**18), min_size=1, max_size=80))
def test_any_stamps_leave_it_in_order(steps: list[int]) -> None:
    cadence = Cadence()
    stamp_ns = newest_ns = START
    for step in steps:
        stamp_ns += step
        newest_ns = max(newest_ns, stamp_ns) if cadence.newest_ns else stamp_ns
        tick = cadence.observe(stamp_ns)
        assert tick.stamp_ns == stamp_ns
        assert cadence.newest_ns == newest_ns
        assert cadence.period_ns >= 0
        assert cadence.shortest_ns >= 0


def cheapest(references: list[int], stamps: list[int], period: float) -> float:
    """Least cost over every possible matching, one by one."""
    best = float("inf")
    for partners in product([None, *range(len(stamps))], repeat=len(references)):
        taken = [at for at in partners if at is not None]
        if any(one >= other for one, other in pairwise(taken)):
            continue
        cost = 0.0
        for reference, at in zip(references, partners, strict=True):
            if at is not None:
                cost += abs(stamps[at] - reference)
            elif reference <= stamps[-1] + period / 2:
                cost += REACH_OFF_BEAT * period / 2
        for at, stamp in enumerate(stamps):
            if at not in taken and stamp <= references[-1] + period / 2:
                cost += REACH_OFF_BEAT * period / 2
        best = min(best, cost)
    return best


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.integers(0, 150), min_size=1, max_size=2, unique=True).map(sorted),
    st.lists(st.integers(0, 150), min_size=1, max_size=4, unique=True).map(sorted),
    st.sampled_from([20, 33, 50]),
)
def test_the_first_match_is_part_of_a_cheapest_matching(
    references: list[int], stamps: list[int], period: int
) -> None:
    at = first_match(references, stamps, period)
    rest = references[1:]
    alone = REACH_OFF_BEAT * period / 2
    if at is None:
        cost = alone if references[0] <= stamps[-1] + period / 2 else 0.0
        tail = stamps
    else:
        ahead = [stamp for stamp in stamps[:at] if stamp <= references[-1] + period / 2]
        cost = abs(stamps[at] - references[0]) + alone * len(ahead)
        tail = stamps[at + 1 :]
    if rest and tail:
        best = cheapest(rest, tail, period)
    else:
        best = alone * sum(r <= stamps[-1] + period / 2 for r in rest)
        best += alone * sum(s <= references[-1] + period / 2 for s in tail)
    assert cost + best == pytest.approx(cheapest(references, stamps, period))
