"""Sets around another stream while the reference is silent.

The reference is silent when its next message is later than ``deadline_s``; one that never spoke,
when ``START_NS`` more have passed. Sets are then built around the first stream of the order that
speaks, and around a better one again with its first message.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Generic, TypeVar

from unim2_core.sensing.matching import DOWN, JUMP_NS, NEVER_SEEN, UNMATCHED
from unim2_core.sensing.synchronizer import NO_STAMP, MatchedSet, StreamPolicy, Synchronizer

T = TypeVar("T")

START_NS = 1_000_000_000
"""What a stream is given beyond the deadline while its period is not known."""
GAPS = 5
"""Intervals whose median is the period: lost messages do not lengthen it."""


class _Heard:
    """When a stream spoke, on the clock of arrivals."""

    def __init__(self) -> None:
        self.last_ns: int | None = None
        self._gaps: deque[int] = deque(maxlen=GAPS)

    def note(self, now_ns: int) -> None:
        if self.last_ns is not None:
            self._gaps.append(now_ns - self.last_ns)
        self.last_ns = now_ns

    @property
    def period_ns(self) -> float:
        return median(self._gaps) if self._gaps else START_NS


class FallbackSynchronizer(Generic[T]):
    """A ``Synchronizer`` whose reference may change; not thread-safe, and calls nobody.

    A required stream other than the reference is never done without: those after it in the order
    have no part.

    Args:
        order: the reference, then the streams that take its place, best first.
        streams: stream -> what is asked of it; those of the order included.
        deadline_s: see ``Synchronizer``; also how late a reference may be before it is silent.

    Attributes:
        leading: the stream that sets are built around now.

    Raises:
        ValueError: see ``Synchronizer``.
    """

    def __init__(
        self, order: Sequence[str], streams: Mapping[str, StreamPolicy], deadline_s: float = 0.05
    ) -> None:
        required = [index for index, name in enumerate(order) if streams[name].required and index]
        self._order = tuple(order[: required[0] + 1] if required else order)
        self._streams, self._deadline_s = dict(streams), deadline_s
        self._counted: Counter[str] = Counter()  # by synchronizers before this one
        self._begin()

    def _begin(self) -> None:
        self._heard = {name: _Heard() for name in self._order}
        self._began_ns: int | None = None
        self._now_ns = 0
        self._lead(self._order[0])

    def _lead(self, name: str) -> None:
        self.leading = name
        self._silent = self._order[: self._order.index(name)]
        heard = {key: one for key, one in self._streams.items() if key not in self._silent}
        self._synchronizer: Synchronizer[T] = Synchronizer(name, heard, self._deadline_s)

    @property
    def counters(self) -> Mapping[str, int]:
        """As those of ``Synchronizer``, whatever the sets were built around."""
        counts = Counter(self._synchronizer.counters)
        counts.update(self._counted)
        return counts

    def add(self, stream: str, stamp_ns: int, payload: T, arrival_ns: int) -> list[MatchedSet[T]]:
        """Take in one message; see ``Synchronizer``."""
        out = self.advance(arrival_ns)
        if stream in self._heard and stamp_ns > 0:
            self._heard[stream].note(arrival_ns)
            if stream in self._silent:
                out += self._change(stream)
        if stream in self._silent:
            self._counted[f"{stream}/{NO_STAMP}"] += 1
            return out
        return out + self._told(self._synchronizer.add(stream, stamp_ns, payload, arrival_ns))

    def advance(self, arrival_ns: int) -> list[MatchedSet[T]]:
        """Let time pass without a message; see ``Synchronizer``."""
        self._pass(arrival_ns)
        out = self._told(self._synchronizer.advance(arrival_ns))
        if self._late(self.leading):
            speaking = [name for name in self._order if not self._late(name)]
            if speaking:
                out += self._change(speaking[0])
        return out

    def flush(self) -> list[MatchedSet[T]]:
        """Decide every pending reference; see ``Synchronizer``."""
        return self._told(self._synchronizer.flush())

    def reset(self) -> None:
        """Forget all messages and all that was learned from them; the counters go on."""
        self._synchronizer.reset()
        self._counted.update(self._synchronizer.counters)
        self._begin()

    def _pass(self, now_ns: int) -> None:
        """Let the clock go on; where it jumped, no stream has been silent for it."""
        jump_ns = now_ns - self._now_ns
        if self._began_ns is None:
            self._began_ns = now_ns
        elif abs(jump_ns) > JUMP_NS:
            self._began_ns += jump_ns
            for heard in self._heard.values():
                if heard.last_ns is not None:
                    heard.last_ns += jump_ns
        self._now_ns = now_ns

    def _late(self, name: str) -> bool:
        heard = self._heard[name]
        since_ns = self._began_ns if heard.last_ns is None else heard.last_ns
        if since_ns is None or (heard.last_ns is None and name != self._order[0]):
            return True
        return self._now_ns - since_ns > heard.period_ns + 1e9 * self._deadline_s

    def _change(self, name: str) -> list[MatchedSet[T]]:
        """Build sets around another stream, from the last set on."""
        found, unused = self._synchronizer.drain()
        out = self._told(found)
        self._counted.update(self._synchronizer.counters)
        self._lead(name)
        for stream, stamp_ns, payload, arrival_ns in unused:
            if stream in self._silent:
                self._counted[f"{stream}/{UNMATCHED}"] += 1
            else:
                added = self._synchronizer.add(stream, stamp_ns, payload, arrival_ns)
                out += self._told(added)
        return out + self._told(self._synchronizer.advance(self._now_ns))

    def _told(self, found: list[MatchedSet[T]]) -> list[MatchedSet[T]]:
        """The sets, with what is silent among their missing streams."""
        if not self._silent:
            return found
        never = {name for name in self._silent if self._heard[name].last_ns is None}
        silent = {name: NEVER_SEEN if name in never else DOWN for name in self._silent}
        return [replace(one, missing={**silent, **one.missing}) for one in found]
