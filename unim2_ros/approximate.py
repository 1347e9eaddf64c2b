"""``sync: approximate``: sets as message_filters makes them, for those who want its semantics.

A set needs an image of every sensor within ``sync_slop_s`` of one another; while one is silent
there is none. The rig's ``deadline_s``, ``required`` and ``max_age_s`` have no part in it.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from builtin_interfaces.msg import Time

from unim2_core.errors import Unim2Error
from unim2_core.sensing.intake import Parts
from unim2_core.sensing.matching import JUMP_NS
from unim2_core.sensing.rig import Rig
from unim2_core.sensing.synchronizer import NO_STAMP, RESET, MatchedSet, Member

NANOSECONDS = 1_000_000_000
LATEST_S = 2**31
NOT_MATCHED = "not matched"
NO_PARTNER = f"{NOT_MATCHED}, none of "


def message_filters() -> Any:
    """The library.

    Raises:
        Unim2Error: it is not installed.
    """
    try:
        return importlib.import_module("message_filters")
    except ImportError as error:
        raise Unim2Error(
            "sync: approximate needs message_filters",
            expected="the ROS package message_filters; it has no wheel on PyPI",
            found=str(error),
            remedy="apt install ros-$ROS_DISTRO-message-filters and source the workspace, "
            "or set sync:=unim2",
        ) from error


class ApproximateSynchronizer:
    """A ``Matcher`` around ``message_filters.ApproximateTimeSynchronizer``. Not thread safe.

    What it cannot do is made up for where that changes no set: when stamps of the reference go
    back it begins anew, and what leaves a queue without a set is counted.

    Args:
        rig: the sensors; each is waited for.
        slop_s: largest distance between two stamps of a set, seconds.
        queue: messages of each sensor that wait, at most.

    Raises:
        Unim2Error: message_filters is not installed.
    """

    def __init__(self, rig: Rig, slop_s: float, queue: int) -> None:
        self._library = message_filters()
        self._reference = rig.reference
        self._names = tuple(rig.sensors)
        self._offsets_ns = {
            name: round(sensor.offset_s * NANOSECONDS) for name, sensor in rig.sensors.items()
        }
        self._slop_s, self._queue = slop_s, queue
        self._counters: Counter[str] = Counter(sets=0, resets=0)
        self._found: list[tuple[Any, ...]] = []
        self._start()

    def _start(self) -> None:
        self._newest_ns = 0
        self._inputs = {name: self._library.SimpleFilter() for name in self._names}
        self._synchronizer = self._library.ApproximateTimeSynchronizer(
            list(self._inputs.values()), self._queue, self._slop_s
        )
        # It calls this under its lock: nothing but the hand-over happens here.
        self._synchronizer.registerCallback(lambda *found: self._found.append(found))

    @property
    def counters(self) -> Mapping[str, int]:
        """``sets`` emitted, ``resets``, and dropped messages as ``<stream>/<reason>``."""
        return self._counters

    def add(
        self, stream: str, stamp_ns: int, payload: Parts, arrival_ns: int
    ) -> list[MatchedSet[Parts]]:
        """Take in one message; times in nanoseconds."""
        stamp_ns += self._offsets_ns[stream]
        if not 0 < stamp_ns < LATEST_S * NANOSECONDS:
            self._counters[f"{stream}/{NO_STAMP}"] += 1
            return []
        if stream == self._reference:
            if self._newest_ns - stamp_ns > JUMP_NS:
                self.reset()
            self._newest_ns = max(self._newest_ns, stamp_ns)
        before = self._waiting()
        stamp = Time(sec=stamp_ns // NANOSECONDS, nanosec=stamp_ns % NANOSECONDS)
        item = SimpleNamespace(
            header=SimpleNamespace(stamp=stamp),
            stamp_ns=stamp_ns,
            payload=payload,
            arrival_ns=arrival_ns,
        )
        self._inputs[stream].signalMessage(item)
        found, self._found = self._found, []
        waiting = self._waiting()
        gone = before[stream] + 1 - waiting[stream] - len(found)
        if gone > 0:
            silent = [name for name in self._names if not waiting[name] and not found]
            reason = f"{NO_PARTNER}{silent[0]}" if silent else NOT_MATCHED
            self._counters[f"{stream}/{reason}"] += gone
        self._counters["sets"] += len(found)
        return [self._matched(items, arrival_ns) for items in found]

    def advance(self, arrival_ns: int) -> list[MatchedSet[Parts]]:
        """Nothing: it knows no deadline."""
        return []

    def flush(self) -> list[MatchedSet[Parts]]:
        """Give up what waits for a partner."""
        self._give_up(NOT_MATCHED)
        return []

    def reset(self) -> None:
        """Forget all messages; the counters go on."""
        self._give_up(RESET)
        self._counters["resets"] += 1

    def _give_up(self, reason: str) -> None:
        for name, count in self._waiting().items():
            if count:
                self._counters[f"{name}/{reason}"] += count
        self._start()

    def _waiting(self) -> dict[str, int]:
        return dict(zip(self._names, map(len, self._synchronizer.queues), strict=True))

    def _matched(self, items: tuple[Any, ...], now_ns: int) -> MatchedSet[Parts]:
        members = dict(zip(self._names, items, strict=True))
        reference = members[self._reference]
        return MatchedSet(
            self._reference,
            reference.stamp_ns,
            {name: Member(item.stamp_ns, item.payload) for name, item in members.items()},
            {},
            {
                name: (item.stamp_ns - reference.stamp_ns) / NANOSECONDS
                for name, item in members.items()
                if name != self._reference
            },
            max(0, now_ns - reference.arrival_ns) / NANOSECONDS,
        )
