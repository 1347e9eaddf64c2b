"""When a camera's images were due: its period, and each stamp's place on the camera's own beat.

A camera exposes on a steady beat; a stamp that the host gave is that beat plus jitter. At 5 ms of
jitter and 30 Hz, one pair of stamps in fifty lies further apart than half a period, so that the
nearest stamp is the neighbouring frame. The beat is known far better than any one stamp.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from math import floor, inf

WINDOW = 32
"""Intervals that are remembered: a second at 30 Hz."""
KNOWN = 6
"""Intervals after which the period is trusted and there can be a beat."""
CHECK = 8
"""Stamps after which the period is put to the test, once there are as many as are remembered."""
COUNTED = 16
"""Stamps on the beat after which it tells the period better than the intervals one by one."""
SKIP_COST = 0.1
"""Cost of a beat without an image, in squared periods: images are late more often than lost."""
PREFERENCE = 0.3
"""How much better, in the same unit, a less likely guess of the period must fit all intervals."""
IN_DOUBT = 0.3
"""Two places on the beat whose costs differ by less are left open until the next stamp."""
GAIN = 0.3
"""Weight of a stamp against the beat. Less would average more jitter away, but an error of the
period adds up: it moves the beat by (1 - GAIN) / GAIN times as much."""
STEADY_GAIN = 0.2
"""The same once the period is counted on the beat."""
JITTER = 5.0
"""Times the mean distance from the beat at which a stamp is no longer jitter (four standard
deviations), but a beat that changed; the stamp itself then says more."""
STEADY = 0.1
"""Distance from the beat, in periods, that is always put down to jitter."""
GAP = 8
"""Periods of silence after which the beat is taken up anew: its phase is no longer known."""
ROUGH = 0.22
"""Mean distance from the beat, in periods, above which there is no beat to speak of. Stamps at
random have 0.25; a normal deviate of 5 ms at 30 Hz has 0.12."""
FORGET = 0.05
"""Weight of a new stamp in that mean."""


@dataclass(slots=True)
class Tick:
    """One stamp and its place on the beat.

    Attributes:
        stamp_ns: what the message says.
        due_ns: when the image was due; the stamp itself while no beat is known.
        settled: False while the next stamp may still move ``due_ns`` by a whole period.
    """

    stamp_ns: int
    due_ns: int
    settled: bool = True


class Cadence:
    """Period and beat of one stream, learned from its stamps.

    Attributes:
        newest_ns: the largest stamp so far.
        period_ns: time from image to image, lost images left out; 0.0 before the second stamp.
        shortest_ns: shortest interval of late, repeated images left out; 0 before that.
    """

    def __init__(self) -> None:
        self.newest_ns: int | None = None
        self.period_ns = 0.0
        self.shortest_ns = 0
        self._intervals: deque[int] = deque()
        self._sorted: list[int] = []
        self._beat: deque[tuple[int, int]] = deque(maxlen=WINDOW)  # (stamp, beats counted)
        self._due_ns = 0
        self._unchecked = 0
        self._open: Tick | None = None
        self._astray = False
        self._roughness = 0.12

    @property
    def known(self) -> bool:
        """Whether enough was seen to trust ``period_ns``."""
        return len(self._sorted) >= KNOWN

    @property
    def regular(self) -> bool:
        """Whether there is a beat, so that ``due_ns`` says more than the stamp."""
        return len(self._beat) > 2 and self._roughness < ROUGH

    def slower_than(self, other: Cadence) -> bool:
        """Whether this stream's period is longer beyond what jitter or few intervals explain."""
        fewest = min(len(self._sorted), len(other._sorted))
        if fewest < 3:
            return False
        margin = 0.05 + 0.4 * (self._roughness + other._roughness) + 24 / fewest**2
        return self.period_ns > other.period_ns * (1 + margin)

    def observe(self, stamp_ns: int) -> Tick:
        """Take in the next stamp and place it on the beat.

        A stamp older than the newest teaches nothing; it is put on the beat that is known.
        """
        tick = Tick(stamp_ns, stamp_ns)
        if self.newest_ns is None:
            self.newest_ns = stamp_ns
        elif stamp_ns > self.newest_ns:
            self._learn(stamp_ns - self.newest_ns)
            self.newest_ns = stamp_ns
            if self._open is not None:
                self._settle(self._open, stamp_ns)
            if self.known:
                self._place(tick)
        elif self.regular:
            beats = round((stamp_ns - self._due_ns) / self.period_ns)
            tick.due_ns = self._due_ns + round(beats * self.period_ns)
        return tick

    def restart(self, newest_ns: int | None = None) -> None:
        """Forget where the beat is, after a jump in time, but not how fast it is."""
        self.newest_ns = newest_ns
        self._beat.clear()
        self._open = None

    def _learn(self, interval_ns: int) -> None:
        """Keep the last intervals, and the period that they fit best."""
        if len(self._intervals) == WINDOW:
            del self._sorted[bisect_left(self._sorted, self._intervals.popleft())]
        self._intervals.append(interval_ns)
        insort(self._sorted, interval_ns)
        count = len(self._sorted)
        self.shortest_ns = self._sorted[bisect_left(self._sorted, self._sorted[count // 2] // 4)]
        if len(self._beat) >= COUNTED:
            (first_ns, first), (last_ns, last) = self._beat[0], self._beat[-1]
            self.period_ns = (last_ns - first_ns) / (last - first)
        self._unchecked += 1
        if count < WINDOW or self._unchecked >= CHECK:
            self._unchecked = 0
            self._check()

    def _check(self) -> None:
        """Let another period take over where the intervals fit that clearly better."""
        counted = len(self._beat) >= COUNTED
        least = self._fit(self.period_ns)[0] if counted else inf
        usual_ns = sum(self._intervals) / len(self._intervals)
        for guess_ns in (usual_ns, self._sorted[len(self._sorted) // 4]):
            if least < PREFERENCE:
                break
            _, period_ns = self._fit(guess_ns)
            misfit, _ = self._fit(period_ns)
            if misfit < least - PREFERENCE:
                self.period_ns, least = period_ns, misfit
                if counted:
                    self._beat.clear()  # it was miscounted
                    self._open = None

    def _fit(self, period_ns: float) -> tuple[float, float]:
        """How badly the intervals are multiples of a period, in squared periods, and a better one.

        That is their sum divided by the sum of their multiples: of all the stamps' jitter, only
        that of the first and the last is left in it.
        """
        misfit = 0.0
        total_ns = total = 0
        for interval_ns in self._sorted:
            count, offset = _nearest_beat(interval_ns / period_ns)
            if count > GAP and total:
                break
            misfit += offset**2 + SKIP_COST * (count - 1)
            total_ns += interval_ns
            total += count
        return misfit, total_ns / total

    def _place(self, tick: Tick) -> None:
        beats = (tick.stamp_ns - self._due_ns) / self.period_ns
        if not self._beat or beats > GAP:
            self._begin(tick)
            return
        count, offset = _nearest_beat(beats)
        astray = abs(offset) > max(STEADY, JITTER * self._roughness)
        if self._roughness >= ROUGH or offset < -0.75 or (astray and self._astray):
            self._roughness += FORGET * (min(abs(offset), 0.5) - self._roughness)
            self._begin(tick)
            return
        self._astray = astray
        lateness = 2 * offset - 1 - SKIP_COST  # cost here minus cost on the next beat
        earliness = -2 * offset - 1 + SKIP_COST if count > 1 else -inf  # the same, last beat
        if not astray and max(lateness, earliness) > -IN_DOUBT:
            tick.due_ns = self._due_ns + round(count * self.period_ns)
            tick.settled = False
            self._open = tick
            return
        if astray:
            self._due_ns += round(count * self.period_ns)
            self._beat.append((self._due_ns, self._beat[-1][1] + count))
        else:
            self._follow(tick, count, offset)

    def _settle(self, tick: Tick, next_ns: int) -> None:
        """Decide between the two beats around an open stamp by where the next stamp fell."""
        self._open = None
        tick.settled = True
        beats = (tick.stamp_ns - self._due_ns) / self.period_ns
        following = (next_ns - self._due_ns) / self.period_ns
        least, chosen = inf, 1
        for count in (max(1, floor(beats)), max(1, floor(beats)) + 1):
            next_count, next_offset = _nearest_beat(following - count)
            skipped = count + next_count - 2
            cost = (beats - count) ** 2 + next_offset**2 + SKIP_COST * skipped
            if cost < least:
                least, chosen = cost, count
        self._follow(tick, chosen, beats - chosen)

    def _begin(self, tick: Tick) -> None:
        self._due_ns = tick.due_ns = tick.stamp_ns
        self._beat.clear()
        self._beat.append((tick.stamp_ns, 0))

    def _follow(self, tick: Tick, count: int, offset: float) -> None:
        gain = GAIN if len(self._beat) < COUNTED else STEADY_GAIN
        gain = max(gain, 1 / (len(self._beat) + 1))
        self._beat.append((tick.stamp_ns, self._beat[-1][1] + count))
        self._roughness += FORGET * (abs(offset) - self._roughness)
        self._due_ns += round((count + gain * offset) * self.period_ns)
        tick.due_ns = self._due_ns


def _nearest_beat(beats: float) -> tuple[int, float]:
    """The likeliest whole number of beats, at least one, and what remains, in periods."""
    count = max(1, floor(beats + 0.5 - SKIP_COST / 2))
    return count, beats - count
