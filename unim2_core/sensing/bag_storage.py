"""What all storage formats of bags have in common: channels, messages, damage, order of time."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import zstandard
from rosbags.interfaces import (
    MessageDefinition,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import ReaderError
from rosbags.rosbag2.metadata import parse_qos
from rosbags.serde import SerdeError

from unim2_core.errors import BagError, DecodeError
from unim2_core.sensing.bag_types import NO_DEFINITION, Standing, standing, typestore_for

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
NANOSECONDS = 1_000_000_000
NEVER_NS = 2**63 - 1
"""Later than any message."""
FOREVER = QosTime(9223372036, 854775807)
"""An infinite duration, as rosbag2 writes it."""
LATCHED = Qos(
    history=QosHistory.KEEP_LAST,
    depth=1,
    reliability=QosReliability.RELIABLE,
    durability=QosDurability.TRANSIENT_LOCAL,
    deadline=FOREVER,
    lifespan=FOREVER,
    liveliness=QosLiveliness.AUTOMATIC,
    liveliness_lease_duration=FOREVER,
    avoid_ros_namespace_conventions=False,
)
"""What publishers of ``/tf_static`` and of maps offer: late subscribers get the last message."""


@dataclass(frozen=True)
class Channel:
    """How a bag stores one topic.

    Attributes:
        topic: name of the topic.
        type: name of the ROS 2 type, ``sensor_msgs/msg/Image``.
        definition: text of the type's definition as it is in the bag.
        digest: hash of the type, empty where the bag has none.
        qos: what the recorded publishers offered.
        encoding: ``cdr`` for everything that ROS 2 writes.
        count: number of messages.
    """

    topic: str
    type: str
    definition: MessageDefinition = NO_DEFINITION
    digest: str = ""
    qos: tuple[Qos, ...] = ()
    encoding: str = "cdr"
    count: int = 0

    @property
    def latched(self) -> bool:
        """Whether late subscribers get the last message (transient local)."""
        return any(profile.durability == QosDurability.TRANSIENT_LOCAL for profile in self.qos)

    @property
    def standing(self) -> Standing:
        """Where the type's definition comes from."""
        return standing(self.type, self.definition) if self.encoding == "cdr" else "missing"


@dataclass(frozen=True, eq=False)
class BagMessage:
    """One message as it lies in the bag.

    Attributes:
        topic: where it was published.
        type: name of its ROS 2 type.
        log_ns: when it was recorded, nanoseconds.
        raw: its bytes in CDR; those of ROS 1 are converted.
        channel: how the bag stores the topic; None: a standard type.
    """

    topic: str
    type: str
    log_ns: int
    raw: bytes | memoryview
    channel: Channel | None = None

    def decode(self) -> Any:
        """Deserialise; arrays of numbers are views of ``raw``, nothing is copied.

        Raises:
            BagError: the type is not known, and the bag does not define it.
            DecodeError: the bytes do not fit the type.
        """
        if self.channel is not None and self.channel.encoding != "cdr":
            raise BagError(
                f"messages on {self.topic} cannot be decoded",
                expected="serialised as cdr",
                found=f"serialised as {self.channel.encoding}",
                remedy="leave this topic out",
            )
        definition = NO_DEFINITION if self.channel is None else self.channel.definition
        store = typestore_for(self.type, definition)
        try:
            # A slice of bytes is a copy, one of a view is not.
            return store.deserialize_cdr(memoryview(self.raw), self.type)
        except SerdeError as error:
            raise DecodeError(
                f"a message on {self.topic} cannot be decoded",
                expected=f"{self.type} in CDR",
                found=f"{len(self.raw)} bytes: {error}",
                remedy="the publisher or the recorder wrote it wrongly; leave this topic out",
            ) from error


class BagFile(Protocol):
    """One open storage file.

    Attributes:
        channels: what it holds; only what is readable is counted.
        start_ns: log time of the first message; ``NEVER_NS`` where there is none.
        end_ns: log time of the last message; -1 where there is none.
        damage: where and why reading stops before the end, None while all is well.
        notes: what is odd about the file, though nothing is lost.
    """

    channels: Sequence[Channel]
    start_ns: int
    end_ns: int
    damage: str | None
    notes: Sequence[str]

    def messages(
        self, topics: Collection[str] | None, start_ns: int | None
    ) -> Iterator[BagMessage]:
        """Readable messages in the order of their log time."""

    def close(self) -> None:
        """Let go of the file."""


class Damage(Exception):
    """A part of a file cannot be read; the message says which and why."""


def damage_text(name: str, where: str, reason: object, start_ns: int, last_ns: int | None) -> str:
    """One line on where reading stopped.

    Args:
        name: name of the file.
        where: ``byte 1024 of 4096``.
        reason: what went wrong.
        start_ns: log time of the file's first message.
        last_ns: log time of the last good message, None or -1 where there is none.
    """
    last = (
        "no message before it"
        if last_ns is None or last_ns < 0
        else f"last good message {(last_ns - start_ns) / NANOSECONDS:.3f} s after its start, "
        f"at {last_ns / NANOSECONDS:.3f}"
    )
    return f"{name} is damaged at {where} ({last}): {reason}"


def offered_qos(text: str) -> tuple[Qos, ...]:
    """QoS profiles from the YAML that recorders store; none where it cannot be parsed."""
    try:
        return tuple(parse_qos(text))
    except (ReaderError, KeyError, TypeError):
        # Foreign recorders write what they like here; the messages do not depend on it.
        return ()


def uncompressed(raw: bytes) -> bytes:
    """Undo the compression of single messages.

    It is told by the bytes, as CDR never starts like zstd: a file alone does not say.
    """
    if raw[:4] != ZSTD_MAGIC:
        return raw
    return zstandard.ZstdDecompressor().decompressobj().decompress(raw)


Batch = tuple[int, Callable[[], Iterator[BagMessage]]]
"""Log time of the first message, and a function that opens the batch."""


def merged(batches: Iterable[Batch]) -> Iterator[BagMessage]:
    """Merge batches that are each in order of time, opening each only when it is due.

    So memory holds the batches that overlap at one moment, never all of them.
    """
    waiting = deque(sorted(batches, key=lambda batch: batch[0]))
    heap: list[tuple[int, int, BagMessage, Iterator[BagMessage]]] = []
    opened = 0
    while waiting or heap:
        while waiting and (not heap or waiting[0][0] <= heap[0][0]):
            iterator = waiting.popleft()[1]()
            opened += 1
            first = next(iterator, None)
            if first is not None:
                heapq.heappush(heap, (first.log_ns, opened, first, iterator))
        if not heap:
            continue
        _, order, message, iterator = heap[0]
        yield message
        following = next(iterator, None)
        if following is None:
            heapq.heappop(heap)
        else:
            heapq.heapreplace(heap, (following.log_ns, order, following, iterator))
