"""Sensors whose image comes in several topics: the parts of one exposure, by their stamps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

PENDING = 8
"""Exposures that wait for parts at most; topics of one camera are hardly ever further apart."""
JUMP_NS = 500_000_000
"""A stamp this much older than the newest is a clock that went back."""


@dataclass
class _Group(Generic[T]):
    stamp_ns: int
    parts: dict[str, T] = field(default_factory=dict)


class StampGrouper(Generic[T]):
    """Puts the parts of one exposure together.

    A group is complete when every part is there that is not optional; optional parts belong to it
    if they came before. A part that never comes leaves its group to be counted once newer groups
    push it out.

    Args:
        parts: names of all parts.
        optional: those that a group can do without.
        tolerance_s: largest difference of stamps within a group.
    """

    def __init__(
        self, parts: Sequence[str], optional: Collection[str] = (), tolerance_s: float = 0.001
    ) -> None:
        self._needed = frozenset(parts) - frozenset(optional)
        self._parts = frozenset(parts)
        self._tolerance_ns = round(tolerance_s * 1e9)
        self._groups: list[_Group[T]] = []
        self._newest_ns = 0
        self._counters: Counter[str] = Counter()

    @property
    def counters(self) -> Mapping[str, int]:
        """Parts that never reached a complete group, ``part reason`` -> count."""
        return self._counters

    def add(self, part: str, stamp_ns: int, payload: T) -> list[tuple[int, dict[str, T]]]:
        """Take in one part.

        Args:
            part: one of the names.
            stamp_ns: of its header, nanoseconds.
            payload: handed on untouched.

        Returns:
            Stamp and parts of the group that is now complete; empty where there is none.

        Raises:
            KeyError: the part is none of those given at the start.
        """
        if part not in self._parts:
            raise KeyError(f"expected one of {sorted(self._parts)}, found {part!r}")
        if self._newest_ns - stamp_ns > JUMP_NS:
            self.reset("clock went back")
        self._newest_ns = max(self._newest_ns, stamp_ns)
        group = self._find(stamp_ns)
        if part in group.parts:
            self._counters[f"{part} duplicate"] += 1
            return []
        group.parts[part] = payload
        if not self._needed <= set(group.parts):
            return []
        self._groups.remove(group)
        return [(group.stamp_ns, group.parts)]

    def reset(self, reason: str = "reset") -> None:
        """Forget all parts that wait, and count them."""
        for group in self._groups:
            self._drop(group, reason)
        self._groups.clear()
        self._newest_ns = 0

    def _find(self, stamp_ns: int) -> _Group[T]:
        for group in self._groups:
            if abs(group.stamp_ns - stamp_ns) <= self._tolerance_ns:
                return group
        if len(self._groups) == PENDING:
            self._drop(self._groups.pop(0), "incomplete")
        self._groups.append(_Group(stamp_ns))
        return self._groups[-1]

    def _drop(self, group: _Group[T], reason: str) -> None:
        self._counters.update(f"{part} {reason}" for part in group.parts)
