"""From several streams of stamped images to sets that belong together, one for each reference.

There is no clock but the messages': every call says when its message arrived, so a bag and a live
robot give the same sets. How the partner of a reference image is chosen:

- A stream about as fast as the reference, or faster, is matched one to one and in order. Messages
  are compared by when they were due (``cadence``), so that jitter does not make a neighbouring
  frame the nearest, and one that is due too far away belongs to another reference.
- A stream slower than the reference is never waited for; its nearest message serves again until
  it is older than ``max_age_s``.
- A partner is final when no later message can be nearer; else the next stamp of its stream
  decides, or ``deadline_s`` after the reference arrived. A stream that was silent up to the
  deadline is down: it is not waited for until it speaks again.
- A reference whose stamp lies far before the newest means that the clock went back: what is
  pending is decided, what lies in the future is forgotten, and matching goes on with that message.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Generic, Protocol, TypeVar

from unim2_core.sensing.matching import DUPLICATE, JUMP_NS, LATE, Choice, Entry, StreamQueue

T = TypeVar("T")

NO_STAMP = "no stamp"
OUT_OF_ORDER = "out of order"
QUEUE_FULL = "queue full"
WENT_BACK = "clock went back"
RESET = "reset"


@dataclass(frozen=True)
class StreamPolicy:
    """What is asked of one stream.

    Attributes:
        required: drop the whole set where this stream is missing.
        max_age_s: largest distance between its stamp and the reference's.
        offset_s: added to its stamps.
        queue: messages kept at most; for the reference, images that wait at most.
    """

    required: bool = False
    max_age_s: float = 0.1
    offset_s: float = 0.0
    queue: int = 20

    def __post_init__(self) -> None:
        if not (isfinite(self.max_age_s) and self.max_age_s >= 0 and isfinite(self.offset_s)):
            raise ValueError(f"expected finite times and an age of 0 or more, found {self}")
        if self.queue < 2:
            raise ValueError(f"expected a queue of at least 2 messages, found {self.queue}")


@dataclass(frozen=True)
class Member(Generic[T]):
    """One message of a set.

    Attributes:
        stamp_ns: its stamp after the stream's offset.
        payload: what came with it.
    """

    stamp_ns: int
    payload: T


@dataclass(frozen=True)
class MatchedSet(Generic[T]):
    """The messages that belong to one reference image.

    Attributes:
        reference: the stream that it is built around.
        stamp_ns: the reference's stamp after its offset.
        members: stream -> message, the reference included.
        missing: stream -> why it is not here: ``never seen``, ``late`` (not here by the deadline),
            ``down`` (silent since a deadline), ``lost`` (the stream went on, without a message for
            this reference), ``too old`` (the nearest is further than ``max_age_s``).
        skew_s: stream -> its stamp minus the reference's, seconds; not for the reference itself.
        wait_s: how long the reference waited for the others, in arrival time, seconds.
    """

    reference: str
    stamp_ns: int
    members: Mapping[str, Member[T]]
    missing: Mapping[str, str]
    skew_s: Mapping[str, float]
    wait_s: float


class Matcher(Protocol[T]):
    """What matches streams of messages; see ``Synchronizer`` for each of these."""

    @property
    def counters(self) -> Mapping[str, int]: ...  # noqa: D102

    def add(  # noqa: D102
        self, stream: str, stamp_ns: int, payload: T, arrival_ns: int
    ) -> list[MatchedSet[T]]: ...

    def advance(self, arrival_ns: int) -> list[MatchedSet[T]]: ...  # noqa: D102

    def flush(self) -> list[MatchedSet[T]]: ...  # noqa: D102

    def reset(self) -> None: ...  # noqa: D102


class Synchronizer(Generic[T]):
    """Matches streams of messages; not thread-safe, and calls nobody.

    Every message ends in a set, in a queue, or in ``counters``. Memory is bounded by the queues,
    work per message is constant.

    Args:
        reference: the stream that each set is built around.
        streams: stream -> what is asked of it; the reference included.
        deadline_s: longest wait of a reference image for the others, in arrival time.

    Raises:
        ValueError: the reference is not among the streams, or the deadline is not a duration.

    Examples:
        >>> sync = Synchronizer[str]("rgb", {"rgb": StreamPolicy(), "depth": StreamPolicy()})
        >>> sync.add("depth", 1_000_000_000, "d0", arrival_ns=1_002_000_000)
        []
        >>> [found] = sync.add("rgb", 1_000_000_000, "i0", arrival_ns=1_005_000_000)
        >>> {name: member.payload for name, member in found.members.items()}
        {'rgb': 'i0', 'depth': 'd0'}
    """

    def __init__(
        self, reference: str, streams: Mapping[str, StreamPolicy], deadline_s: float = 0.05
    ) -> None:
        if reference not in streams:
            raise ValueError(f"expected the reference {reference!r} among {list(streams)}")
        if not (isfinite(deadline_s) and deadline_s >= 0):
            raise ValueError(f"expected a deadline of 0 s or more, found {deadline_s}")
        self._name = reference
        self._policies = dict(streams)
        self._deadline_ns = round(deadline_s * 1e9)
        self._counters: Counter[str] = Counter(sets=0, resets=0)
        self._now_ns = 0
        self._start()

    def _start(self) -> None:
        self._queues: dict[str, StreamQueue[T]] = {
            name: StreamQueue(round(policy.offset_s * 1e9), round(policy.max_age_s * 1e9))
            for name, policy in self._policies.items()
        }
        self._reference = self._queues[self._name]
        self._others = {name: q for name, q in self._queues.items() if name != self._name}
        self._decided_ns: int | None = None

    @property
    def counters(self) -> Mapping[str, int]:
        """``sets`` emitted, ``resets``, and dropped messages as ``<stream>/<reason>``."""
        return self._counters

    @property
    def pending(self) -> Mapping[str, int]:
        """Messages in each queue; for the reference, those that are not decided yet."""
        return {name: len(queue.entries) for name, queue in self._queues.items()}

    def add(self, stream: str, stamp_ns: int, payload: T, arrival_ns: int) -> list[MatchedSet[T]]:
        """Take in one message.

        Args:
            stream: where it came from.
            stamp_ns: what its header says, nanoseconds, without the offset; zero or less is no
                stamp, and the message is dropped and counted.
            payload: handed on untouched.
            arrival_ns: log time in a bag, or when the node received it, nanoseconds.

        Returns:
            The sets that are complete now, in the order of the reference's stamps.

        Raises:
            KeyError: the stream is none of those given at the start.
            ValueError: a time is not a whole number of nanoseconds.
        """
        queue = self._queues[stream]
        stamp_ns = _nanoseconds(stamp_ns)
        out = self.advance(arrival_ns)
        if stamp_ns <= 0:
            self._counters[f"{stream}/{NO_STAMP}"] += 1
            return out
        stamp_ns += queue.offset_ns
        if queue.jumps_back(stamp_ns):
            out += self._go_back(queue, stamp_ns)
        reason = queue.refuses(stamp_ns)
        decided_ns = self._decided_ns
        if queue is self._reference and decided_ns is not None and stamp_ns <= decided_ns:
            reason = DUPLICATE if stamp_ns == decided_ns else OUT_OF_ORDER
        if reason:
            self._counters[f"{stream}/{reason}"] += 1
            return out
        entry = queue.put(stamp_ns, payload, self._now_ns)
        if queue is not self._reference:
            if decided_ns is not None and stamp_ns <= decided_ns:
                entry.fate = LATE
            if len(queue.entries) > self._policies[stream].queue:
                self._count(stream, [queue.entries.pop(0)], QUEUE_FULL)
        out += self._decide()
        return out

    def advance(self, arrival_ns: int) -> list[MatchedSet[T]]:
        """Let time pass without a message.

        Args:
            arrival_ns: now, on the clock that the arrivals are measured with, nanoseconds.

        Returns:
            The sets whose deadline has passed.

        Raises:
            ValueError: the time is not a whole number of nanoseconds.
        """
        arrival_ns = _nanoseconds(arrival_ns)
        if self._now_ns - arrival_ns > JUMP_NS:
            for queue in self._queues.values():
                queue.arrived_by(arrival_ns)
            self._now_ns = arrival_ns
        self._now_ns = max(self._now_ns, arrival_ns)
        waiting = self._reference.entries
        if waiting and self._now_ns - waiting[0].arrival_ns >= self._deadline_ns:
            return self._decide()
        return []

    def flush(self) -> list[MatchedSet[T]]:
        """Decide every pending reference with what is here, and empty the queues."""
        out = self._decide(force=True)
        for name, queue in self._others.items():
            self._count(name, queue.entries)
            queue.entries.clear()
        return out

    def drain(self) -> tuple[list[MatchedSet[T]], list[tuple[str, int, T, int]]]:
        """As ``flush``, but what came after the last reference and was not used is handed back.

        Returns:
            The sets, and stream, stamp, payload and arrival as ``add`` takes them.
        """
        out = self._decide(force=True)
        since_ns = self._decided_ns or 0
        unused = []
        for name, queue in self._others.items():
            for entry in queue.entries:
                stamp_ns = entry.tick.stamp_ns
                if entry.taken or stamp_ns <= since_ns:
                    self._count(name, [entry])
                else:
                    own_ns = stamp_ns - queue.offset_ns
                    unused.append((name, own_ns, entry.payload, entry.arrival_ns))
            queue.entries.clear()
        return out, sorted(unused, key=operator.itemgetter(3))

    def reset(self) -> None:
        """Forget all messages and all that was learned from them; the counters go on."""
        for name, queue in self._queues.items():
            self._count(name, queue.entries, RESET)
        self._counters["resets"] += 1
        self._start()

    def _go_back(self, queue: StreamQueue[T], stamp_ns: int) -> list[MatchedSet[T]]:
        """Forget the future of a stream whose clock went back; of all, if it is the reference."""
        horizon_ns = stamp_ns + queue.jump_ns
        if queue is not self._reference:
            self._forget({name: q for name, q in self._others.items() if q is queue}, horizon_ns)
            return []
        out = self._decide(force=True)
        self._forget(self._queues, horizon_ns)
        self._decided_ns = None
        self._counters["resets"] += 1
        return out

    def _forget(self, queues: Mapping[str, StreamQueue[T]], horizon_ns: int) -> None:
        for name, queue in queues.items():
            self._count(name, queue.drop_after(horizon_ns), WENT_BACK)

    def _decide(self, force: bool = False) -> list[MatchedSet[T]]:
        """Emit pending references, oldest first, up to the first that has to wait."""
        out: list[MatchedSet[T]] = []
        pending = self._reference.entries
        while pending:
            expired = self._now_ns - pending[0].arrival_ns >= self._deadline_ns
            full = len(pending) > self._policies[self._name].queue
            choices = self._choices(expired, must=expired or full or force)
            if choices is None:
                break
            out += self._emit(pending.pop(0), choices, prune=not force)
        return out

    def _choices(self, expired: bool, must: bool) -> dict[str, Choice[T]] | None:
        """What every stream offers for the oldest reference; None while that is not final."""
        reference, *later = self._reference.entries[:2]
        following = later[0].tick if later else None
        choices = {}
        for name, queue in self._others.items():
            choice = queue.choose(reference.tick, self._reference.cadence, following)
            if not choice.final:
                if not must:
                    return None
                spoken_ns = queue.spoken_ns
                if expired and (spoken_ns is None or spoken_ns < reference.arrival_ns):
                    queue.down = True
            choices[name] = choice
        return choices

    def _emit(
        self, reference: Entry[T], choices: Mapping[str, Choice[T]], prune: bool
    ) -> list[MatchedSet[T]]:
        """Consume the chosen messages; no set comes out where a required stream is missing."""
        tick = reference.tick
        self._decided_ns = tick.stamp_ns
        members = {self._name: Member(tick.stamp_ns, reference.payload)}
        missing: dict[str, str] = {}
        skew_s: dict[str, float] = {}
        fate = ""
        for name, choice in choices.items():
            if choice.entry is None:
                missing[name] = choice.reason
                if self._policies[name].required and not fate:
                    fate = f"required {name} missing"
                continue
            stamp_ns = choice.entry.tick.stamp_ns
            members[name] = Member(stamp_ns, choice.entry.payload)
            skew_s[name] = (stamp_ns - tick.stamp_ns) / 1e9
        for name, choice in choices.items():
            queue = self._others[name]
            if choice.entry is not None:
                self._count(name, queue.take(choice.entry))
                if choice.entry.fate:
                    choice.entry.fate = fate
            if prune:
                self._count(name, queue.drop_before(tick.stamp_ns))
        if fate:
            self._counters[f"{self._name}/{fate}"] += 1
            return []
        self._counters["sets"] += 1
        wait_s = max(0, self._now_ns - reference.arrival_ns) / 1e9
        return [MatchedSet(self._name, tick.stamp_ns, members, missing, skew_s, wait_s)]

    def _count(self, stream: str, gone: Iterable[Entry[T]], reason: str = "") -> None:
        """Count messages that leave a queue without ever having been in a set."""
        for entry in gone:
            if entry.fate:
                self._counters[f"{stream}/{reason or entry.fate}"] += 1


def _nanoseconds(value: int) -> int:
    """A whole number; NumPy's become Python's, which are faster and do not overflow."""
    try:
        return operator.index(value)
    except TypeError:
        raise ValueError(f"expected whole nanoseconds, found {value!r}") from None
