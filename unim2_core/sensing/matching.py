"""One stream's side of the synchronizer: its queue, and what it has to offer for a reference."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Generic, TypeVar

from unim2_core.sensing.cadence import Cadence, Tick

T = TypeVar("T")

REACH = 0.6
"""Periods of the reference within which a message can be its partner, measured on the beat. Half
would do, but a stream that runs half a period out of step would then fall between two references
with every jitter."""
REACH_OFF_BEAT = 0.75
"""The same for bare stamps, which jitter moves."""
CLOSE_NS = 10_000_000
"""Skew that is no other frame's at any usual rate, while no period is known."""
JUMP_NS = 500_000_000
"""A stamp this much older than its stream's newest (or four periods) is a clock that went back."""

NEVER_SEEN = "never seen"
DOWN = "down"
LATE = "late"
LOST = "lost"
TOO_OLD = "too old"
UNMATCHED = "unmatched"
DUPLICATE = "duplicate"


@dataclass(slots=True)
class Entry(Generic[T]):
    """One message in a queue.

    Attributes:
        tick: its stamp after the stream's offset, and when it was due.
        payload: what came with it.
        arrival_ns: when it came.
        taken: whether a reference has chosen it.
        fate: why it counts as lost if it leaves the queue now; empty once a set went out with it.
    """

    tick: Tick
    payload: T
    arrival_ns: int
    taken: bool = False
    fate: str = UNMATCHED


@dataclass(frozen=True, slots=True)
class Choice(Generic[T]):
    """The message that a stream offers for a reference, or why there is none.

    Attributes:
        final: no later message can change this.
        entry: the message.
        reason: why there is none.
    """

    final: bool
    entry: Entry[T] | None = None
    reason: str = ""


class StreamQueue(Generic[T]):
    """The messages of one stream that may still be wanted.

    Attributes:
        offset_ns: added to the stamps of this stream.
        cadence: what is known of the stream's period and beat.
        entries: the messages, sorted by stamp; at most the first of them has been taken.
        spoken_ns: arrival of the last message; None if there was none.
        down: silent since a deadline passed, so not waited for.
    """

    def __init__(self, offset_ns: int, max_age_ns: int) -> None:
        self.offset_ns = offset_ns
        self.cadence = Cadence()
        self.entries: list[Entry[T]] = []
        self.spoken_ns: int | None = None
        self.down = False
        self._max_age_ns = max_age_ns

    @property
    def jump_ns(self) -> int:
        """How far back a stamp must lie to mean that the clock went back."""
        return max(JUMP_NS, round(4 * self.cadence.period_ns))

    def jumps_back(self, stamp_ns: int) -> bool:
        """Whether a message with this stamp means that the stream's clock went back."""
        newest_ns = self.cadence.newest_ns
        return newest_ns is not None and newest_ns - stamp_ns > self.jump_ns

    def refuses(self, stamp_ns: int) -> str:
        """Why a message with this stamp is of no use here; empty where it is."""
        for entry in reversed(self.entries):
            if entry.tick.stamp_ns == stamp_ns:
                return DUPLICATE
            if entry.tick.stamp_ns < stamp_ns:
                return ""
            if entry.taken:
                return LATE
        return ""

    def put(self, stamp_ns: int, payload: T, arrival_ns: int) -> Entry[T]:
        """Insert a message in the order of stamps."""
        at = len(self.entries)
        while at and self.entries[at - 1].tick.stamp_ns > stamp_ns:
            at -= 1
        entry = Entry(self.cadence.observe(stamp_ns), payload, arrival_ns)
        self.entries.insert(at, entry)
        self.spoken_ns = arrival_ns
        self.down = False
        return entry

    def choose(self, reference: Tick, cadence: Cadence, following: Tick | None) -> Choice[T]:
        """The best message for a reference, and whether that is final.

        Args:
            reference: the reference image's tick.
            cadence: the reference stream's cadence.
            following: the next reference, if that is here already.
        """
        if self.cadence.slower_than(cadence):
            return self._nearest(reference)
        if self.cadence.known and cadence.known:
            return self._partner(reference, cadence)
        return self._first_partner(reference, cadence, following)

    def take(self, entry: Entry[T]) -> list[Entry[T]]:
        """Let a reference have a message; returns the earlier ones, which no other can have."""
        entry.taken = True
        return self._drop_first(self.entries.index(entry))

    def drop_before(self, stamp_ns: int) -> list[Entry[T]]:
        """Drop what a newer message, no later than this reference, has made useless."""
        count = 0
        for entry in self.entries[1:]:
            if entry.tick.stamp_ns > stamp_ns:
                break
            count += 1
        return self._drop_first(count)

    def drop_after(self, horizon_ns: int) -> list[Entry[T]]:
        """Forget what lies beyond this time, to which the clock has gone back."""
        keep = sum(entry.tick.stamp_ns <= horizon_ns for entry in self.entries)
        gone = self.entries[keep:]
        del self.entries[keep:]
        self.down = False
        if self.cadence.newest_ns is not None and self.cadence.newest_ns > horizon_ns:
            self.cadence.restart(self.entries[-1].tick.stamp_ns if self.entries else None)
        return gone

    def arrived_by(self, arrival_ns: int) -> None:
        """Make up for a clock of arrivals that was set back, so that no deadline moves away."""
        for entry in self.entries:
            entry.arrival_ns = min(entry.arrival_ns, arrival_ns)
        if self.spoken_ns is not None:
            self.spoken_ns = min(self.spoken_ns, arrival_ns)

    def _drop_first(self, count: int) -> list[Entry[T]]:
        gone = self.entries[:count]
        del self.entries[:count]
        return gone

    def _nearest(self, reference: Tick) -> Choice[T]:
        """The nearest message of a slower stream, whether or not it served before."""
        if not self.entries:
            return Choice(True, reason=self._silence())
        return self._in_age(
            reference,
            min(self.entries, key=lambda entry: abs(entry.tick.stamp_ns - reference.stamp_ns)),
            final=True,
        )

    def _partner(self, reference: Tick, cadence: Cadence) -> Choice[T]:
        """The one message that belongs to a reference, both periods being known."""
        on_beat = self.cadence.regular and cadence.regular
        best, gap_ns, passed = self._candidate(reference, on_beat)
        if best is None:
            return Choice(self.down, reason=self._silence())
        shortest_ns = self.cadence.period_ns if on_beat else self.cadence.shortest_ns
        settled = reference.settled and best.tick.settled
        final = self.down or (settled and (passed or -shortest_ns <= 2 * gap_ns <= 0))
        reach = REACH if on_beat else REACH_OFF_BEAT
        if settled and abs(gap_ns) <= reach * cadence.period_ns:
            return self._in_age(reference, best, final)
        # It belongs to another reference: the next message may still be this one's.
        if passed:
            return Choice(final, reason=LOST)
        return Choice(self.down, reason=self._silence())

    def _candidate(self, reference: Tick, on_beat: bool) -> tuple[Entry[T] | None, float, bool]:
        """The nearest message that is free, its signed distance, and whether the stream is past.

        One message far after the reference does not show that the stream has passed it: a single
        stamp may be wrong. The next then tells.
        """
        origin_ns = reference.due_ns if on_beat else reference.stamp_ns
        credible_ns = max(self._max_age_ns, 3 * self.cadence.period_ns)
        best: Entry[T] | None = None
        best_gap_ns = inf
        for entry in self.entries:
            if entry.taken:
                continue
            tick = entry.tick
            gap_ns = (tick.due_ns if on_beat else tick.stamp_ns) - origin_ns
            if abs(gap_ns) < abs(best_gap_ns):
                best, best_gap_ns = entry, gap_ns
            if gap_ns >= 0:
                credible = gap_ns <= credible_ns or entry is not self.entries[-1]
                return best, best_gap_ns, tick.settled and credible
        return best, best_gap_ns, False

    def _first_partner(
        self, reference: Tick, cadence: Cadence, following: Tick | None
    ) -> Choice[T]:
        """The partner while a period is not known: all that is here, matched at the least skew."""
        free = [entry for entry in self.entries if not entry.taken]
        if not free:
            return Choice(self.down, reason=self._silence())
        stamps = [entry.tick.stamp_ns for entry in free]
        gaps = [stamp_ns - reference.stamp_ns for stamp_ns in stamps]
        nearest = min(range(len(gaps)), key=lambda at: abs(gaps[at]))
        periods = [it.period_ns for it in (cadence, self.cadence) if it.period_ns]
        clear_ns = min(periods) / 4 if periods else 0.0
        if 0 <= gaps[nearest] <= CLOSE_NS or (abs(gaps[nearest]) <= clear_ns and gaps[-1] >= 0):
            return self._in_age(reference, free[nearest], final=True)
        references = [reference.stamp_ns]
        if following is not None:
            references.append(following.stamp_ns)
            periods.append(following.stamp_ns - reference.stamp_ns)
        final = self.down or (following is not None and stamps[-1] >= following.stamp_ns)
        at = first_match(references, stamps, min(periods, default=inf))
        if at is None:
            return Choice(final, reason=LOST if gaps[-1] >= 0 else self._silence())
        return self._in_age(reference, free[at], final)

    def _in_age(self, reference: Tick, entry: Entry[T], final: bool) -> Choice[T]:
        if abs(entry.tick.stamp_ns - reference.stamp_ns) <= self._max_age_ns:
            return Choice(final, entry)
        return Choice(final, reason=TOO_OLD)

    def _silence(self) -> str:
        if self.spoken_ns is None:
            return NEVER_SEEN
        return DOWN if self.down else LATE


def first_match(references: list[int], stamps: list[int], period_ns: float) -> int | None:
    """Index of the first reference's partner when all are matched at the least cost.

    Matching is one to one and in order. A pair costs its skew, two stamps without a partner what
    a pair at ``REACH_OFF_BEAT`` costs; one that lies more than half a period past the other list's
    end costs nothing, since its partner may be yet to come.
    """

    def alone(these: list[int], others: list[int]) -> float:
        end_ns = others[-1] + period_ns / 2
        return sum(REACH_OFF_BEAT / 2 * period_ns for stamp_ns in these if stamp_ns <= end_ns)

    def cost(first: int, start: int) -> tuple[float, int | None]:
        """Least cost of the references from one on and the stamps from one on."""
        if first == len(references):
            return alone(stamps[start:], references), None
        best: tuple[float, int | None] = (
            alone([references[first]], stamps) + cost(first + 1, start)[0],
            None,
        )
        for at in range(start, len(stamps)):
            pair_ns = abs(stamps[at] - references[first])
            total = alone(stamps[start:at], references) + pair_ns + cost(first + 1, at + 1)[0]
            if total < best[0]:
                best = total, at
        return best

    return cost(0, 0)[1]
