"""ROS 1 bags, whole or damaged, read chunk by chunk and converted to ROS 2 messages."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.rosbag1 import ReaderError
from rosbags.rosbag1.reader import (
    Header,
    RecordType,
    decompressors,
    normalize,
    read_bytes,
    read_uint32,
)
from rosbags.typesys.msg import normalize_msgtype

from unim2_core.errors import BagError
from unim2_core.sensing.bag_storage import (
    LATCHED,
    NEVER_NS,
    BagMessage,
    Channel,
    Damage,
    damage_text,
    merged,
)
from unim2_core.sensing.bag_types import Ros1Conversion, ros1_conversion

MAGIC = b"#ROSBAG V2.0\n"


@dataclass(frozen=True)
class _Chunk:
    """Where a chunk lies, when its messages were recorded, and on which connections."""

    offset: int
    start_ns: int
    end_ns: int
    connections: frozenset[int]


@dataclass(frozen=True)
class _Connection:
    """A publisher of one topic, as the bag describes it."""

    topic: str
    type: str
    definition: MessageDefinition
    latched: bool


@dataclass(frozen=True)
class _Record:
    """One message, not yet converted."""

    connection: int
    log_ns: int
    data: bytes


class Ros1File:
    """An open ROS 1 bag.

    A bag without an index (the recorder was killed, or the copy is incomplete) is scanned once.
    See ``BagFile`` for the attributes.
    """

    def __init__(self, path: Path) -> None:
        self.damage: str | None = None
        self.notes: Sequence[str] = ()
        self._path = path
        self._file = path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size
        self._connections: dict[int, _Connection] = {}
        self._chunks: list[_Chunk] = []
        self._counts: Counter[int] = Counter()
        try:
            if not self._indexed():
                self._scan()
        except BaseException:
            self._file.close()
            raise
        self.start_ns = min((chunk.start_ns for chunk in self._chunks), default=NEVER_NS)
        self.end_ns = max((chunk.end_ns for chunk in self._chunks), default=-1)
        self._channels: dict[int, tuple[Channel, Ros1Conversion]] = {}
        for key, connection in self._connections.items():
            self._convert(key, connection)
        self.channels: Sequence[Channel] = tuple(channel for channel, _ in self._channels.values())

    def messages(
        self, topics: Collection[str] | None, start_ns: int | None
    ) -> Iterator[BagMessage]:
        """Readable messages in the order of their log time, converted to ROS 2."""
        wanted = {
            key: channel
            for key, channel in self._channels.items()
            if topics is None or channel[0].topic in topics
        }
        since = start_ns or 0
        last_ns: int | None = None
        try:
            for message in merged(
                (chunk.start_ns, partial(self._load, chunk, wanted, since))
                for chunk in self._chunks
                if chunk.end_ns >= since and not chunk.connections.isdisjoint(wanted)
            ):
                last_ns = message.log_ns
                yield message
        except Damage as damage:
            where, reason = damage.args
            self.damage = damage_text(self._path.name, where, reason, self.start_ns, last_ns)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _load(
        self, chunk: _Chunk, wanted: dict[int, tuple[Channel, Ros1Conversion]], since: int
    ) -> Iterator[BagMessage]:
        try:
            found = [
                record
                for record in self._records(chunk.offset)
                if record.connection in wanted and record.log_ns >= since
            ]
            found.sort(key=lambda record: record.log_ns)
            messages = []
            for record in found:
                channel, conversion = wanted[record.connection]
                raw = conversion.convert(record.data)
                messages.append(
                    BagMessage(channel.topic, channel.type, record.log_ns, raw, channel)
                )
        # Damaged bytes surface as anything: bz2, lz4, struct and unicode errors.
        except Exception as error:
            raise Damage(f"byte {chunk.offset} of {self._size}", error) from error
        return iter(messages)

    def _records(self, offset: int) -> list[_Record]:
        """Messages of the chunk at ``offset``; connections that it announces are noted."""
        self._file.seek(offset)
        header = Header.read(self._file, RecordType.CHUNK)
        packed = read_bytes(self._file, read_uint32(self._file))
        data = decompressors[header.get_string("compression")](packed)
        stream = BytesIO(data)
        found = []
        while stream.tell() < len(data):
            header = Header.read(stream)
            body = read_bytes(stream, read_uint32(stream))
            opcode = header.get_uint8("op")
            if opcode == RecordType.CONNECTION:
                self._announce(header, body)
            elif opcode == RecordType.MSGDATA:
                found.append(_Record(header.get_uint32("conn"), header.get_time("time"), body))
        return found

    def _announce(self, header: Header, body: bytes) -> None:
        details = Header.read(BytesIO(len(body).to_bytes(4, "little") + body))
        self._connections[header.get_uint32("conn")] = _Connection(
            topic=normalize(header.get_string("topic")),
            type=normalize_msgtype(details.get_string("type")),
            definition=MessageDefinition(
                MessageDefinitionFormat.MSG, details.get_string("message_definition")
            ),
            latched=details.get("latching") == b"1",
        )

    def _indexed(self) -> bool:
        """Take the index at the end of the bag, if it is sound."""
        try:
            self._file.seek(len(MAGIC))
            header = Header.read(self._file, RecordType.BAGHEADER)
            if header.get("encryptor"):
                raise _encrypted(self._path, header)
            # Each single message is indexed too; the chunks are all that is needed here.
            for _, record, start, length in self._walk(header.get_uint64("index_pos")):
                opcode = record.get_uint8("op")
                self._file.seek(start)
                if opcode == RecordType.CONNECTION:
                    self._announce(record, read_bytes(self._file, length))
                elif opcode == RecordType.CHUNK_INFO:
                    self._indexed_chunk(record, read_bytes(self._file, length))
            return 0 < len(self._chunks) == int(header.get_uint32("chunk_count"))
        except (ReaderError, Damage, struct.error, UnicodeDecodeError):
            return False

    def _indexed_chunk(self, record: Header, body: bytes) -> None:
        counts = Counter(dict(struct.iter_unpack("<II", body)))
        self._counts.update(counts)
        self._chunks.append(
            _Chunk(
                record.get_uint64("chunk_pos"),
                record.get_time("start_time"),
                record.get_time("end_time"),
                frozenset(counts),
            )
        )

    def _scan(self) -> None:
        """Find the chunks of a bag without an index, as far as they can be read."""
        self._chunks.clear()
        self._counts.clear()
        self._connections.clear()
        position = len(MAGIC)
        try:
            for position, record, start, length in self._walk(len(MAGIC)):
                if record.get_uint8("op") == RecordType.CHUNK:
                    self._scanned_chunk(position, self._records(position))
                position = start + length
            raise Damage("the recording was not closed: the bag has no index")
        # As in _load, damaged bytes surface as anything.
        except Exception as error:
            last_ns = max((chunk.end_ns for chunk in self._chunks), default=None)
            start_ns = min((chunk.start_ns for chunk in self._chunks), default=0)
            where = f"byte {position} of {self._size}"
            self.damage = damage_text(self._path.name, where, error, start_ns, last_ns)

    def _scanned_chunk(self, offset: int, found: list[_Record]) -> None:
        times = [record.log_ns for record in found]
        if times:
            counts = Counter(record.connection for record in found)
            self._counts.update(counts)
            self._chunks.append(_Chunk(offset, min(times), max(times), frozenset(counts)))

    def _walk(self, position: int) -> Iterator[tuple[int, Header, int, int]]:
        """Records from ``position`` on: offset, header, offset and length of the body."""
        while position < self._size:
            self._file.seek(position)
            header = Header.read(self._file)
            length = read_uint32(self._file)
            start = self._file.tell()
            if start + length > self._size:
                raise Damage(f"the file ends inside a record of {length} bytes")
            yield position, header, start, length
            position = start + length

    def _convert(self, key: int, connection: _Connection) -> None:
        try:
            conversion = ros1_conversion(connection.type, connection.definition)
        except BagError as error:
            note = f"topic {connection.topic} is left out: {error.what}: {error.found}"
            self.notes = [*self.notes, note]
            return
        channel = Channel(
            topic=connection.topic,
            type=conversion.type,
            definition=conversion.definition,
            qos=(LATCHED,) if connection.latched else (),
            count=self._counts[key],
        )
        self._channels[key] = (channel, conversion)


def _encrypted(path: Path, header: Header) -> BagError:
    return BagError(
        f"{path} is encrypted",
        expected="a ROS 1 bag that is not encrypted",
        found=f"encryptor {header.get_string('encryptor')}",
        remedy="decrypt it with: rosbag decrypt BAG",
    )
