"""The last seconds of what came in and went out, kept in memory, written as a bag on demand."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.serialization import serialize_message

from unim2_core.errors import Unim2Error
from unim2_core.sensing.bag_writer import BagWriter
from unim2_core.sensing.bags import BagMessage

NANOSECONDS = 1_000_000_000
WITH_OUTPUTS = ("segmentation", "confidence")
"""Outputs that are kept too; the others can be made again from these and the input."""
_OVERHEAD = 256
"""Bytes of a message beside its data, roughly."""


class Snapshots:
    """A ring buffer of messages. Any thread may add and save.

    Args:
        node: says what topics are called after remapping.
        length_s: seconds that are kept; 0: nothing is.
        most_bytes: the oldest go where it would be more.
        folder: where bags are written.
    """

    def __init__(self, node: Node, length_s: float, most_bytes: int, folder: Path) -> None:
        self.length_s = length_s
        self._most_bytes = most_bytes
        self._folder = folder
        self._node = node
        self._lock = threading.Lock()
        self._kept: deque[tuple[int, str, Any, int]] = deque()  # time, topic, message, bytes
        self._bytes = 0
        self._names: dict[str, str] = {}

    def add(self, topic: str, message: Any, now_ns: int) -> None:
        """Keep a message.

        Args:
            topic: before remapping.
            message: not to be changed any more.
            now_ns: when it came or went, nanoseconds.
        """
        if not self.length_s:
            return
        size = len(getattr(message, "data", ())) + _OVERHEAD
        with self._lock:
            if self._kept and now_ns < self._kept[-1][0]:  # the clock went back
                self._kept.clear()
                self._bytes = 0
            self._kept.append((now_ns, topic, message, size))
            self._bytes += size
            oldest_ns = now_ns - round(self.length_s * NANOSECONDS)
            while self._kept[0][0] < oldest_ns or self._bytes > self._most_bytes:
                self._bytes -= self._kept.popleft()[3]
                if not self._kept:
                    break

    def add_outputs(self, published: Mapping[str, Any], now_ns: int) -> None:
        """Keep what was published: name -> message."""
        for name in WITH_OUTPUTS:
            if name in published:
                self.add(f"~/{name}", published[name], now_ns)

    def save(self) -> Path:
        """Write what is kept as a bag named by the time; returns its place.

        Raises:
            Unim2Error: nothing is kept, or the bag cannot be written.
        """
        if not self.length_s:
            raise Unim2Error(
                "nothing is kept for snapshots",
                expected="snapshot_s above 0 when the node is configured",
                found="0",
                remedy="set the parameter snapshot_s, seconds, and configure the node again",
            )
        with self._lock:
            kept = list(self._kept)
        if not kept:
            raise Unim2Error(
                "there is nothing to write: no message has come in",
                expected=f"messages in the last {self.length_s:g} s",
                found="none",
                remedy="look at /diagnostics for what is missing",
            )
        now = datetime.now(timezone.utc)
        path = self._folder / f"snapshot_{now:%Y%m%d_%H%M%S}_{now.microsecond // 1000:03d}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unim2Error(
                f"cannot write to {self._folder}",
                expected="a folder that can be written to",
                found=error.strerror or str(error),
                remedy="set the parameter snapshot_dir",
            ) from error
        with BagWriter(path) as writer:
            for stamp_ns, topic, message, _ in kept:
                raw = serialize_message(message)
                writer.write_raw(BagMessage(self._name(topic), _type(message), stamp_ns, raw))
        return path

    def _name(self, topic: str) -> str:
        if topic not in self._names:
            self._names[topic] = self._node.resolve_topic_name(topic)
        return self._names[topic]


def _type(message: Any) -> str:
    kind = type(message)
    return f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"
