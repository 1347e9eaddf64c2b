"""MCAP files, whole or damaged, read chunk by chunk."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import BinaryIO

from mcap import records
from mcap.data_stream import ReadDataStream
from mcap.opcode import Opcode
from mcap.reader import make_reader
from mcap.stream_reader import breakup_chunk
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat

from unim2_core.sensing.bag_storage import (
    NEVER_NS,
    BagMessage,
    Channel,
    Damage,
    damage_text,
    merged,
    offered_qos,
    uncompressed,
)
from unim2_core.sensing.bag_types import FORMATS

MAGIC = b"\x89MCAP0\r\n"
RECORD = struct.Struct("<BQ")
"""Opcode and length, before every record."""
SPAN_BYTES = 1 << 20
"""Messages that lie outside of chunks are read in runs of about this many bytes."""


@dataclass(slots=True)
class _Span:
    """A part of the file that is read at once: a chunk, or a run of bare messages."""

    offset: int
    length: int
    start_ns: int
    end_ns: int
    chunk: bool
    channels: frozenset[int] | None = None


@dataclass
class _Index:
    """What a file holds and where, from its summary or from a scan."""

    schemas: dict[int, records.Schema] = field(default_factory=dict)
    channels: dict[int, records.Channel] = field(default_factory=dict)
    spans: list[_Span] = field(default_factory=list)
    counts: Counter[int] = field(default_factory=Counter)
    start_ns: int = 0
    end_ns: int = 0

    def add(self, span: _Span) -> None:
        """Add a span; bare messages join the run before them."""
        last = self.spans[-1] if self.spans else None
        self.start_ns = span.start_ns if last is None else min(self.start_ns, span.start_ns)
        self.end_ns = max(self.end_ns, span.end_ns)
        if last is None or last.chunk or span.chunk or last.length >= SPAN_BYTES:
            self.spans.append(span)
            return
        last.length = span.offset + span.length - last.offset
        last.start_ns = min(last.start_ns, span.start_ns)
        last.end_ns = max(last.end_ns, span.end_ns)


class McapFile:
    """An open MCAP file.

    A file without a usable summary (the recorder was killed, the copy is incomplete) is scanned
    once, and its index rebuilt up to the damage; after that it reads like any other. See
    ``BagFile`` for the attributes.
    """

    def __init__(self, path: Path) -> None:
        self.damage: str | None = None
        self.notes: Sequence[str] = ()
        self._path = path
        self._file = path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size
        try:
            index = _summary(self._file)
            if index is None:
                index = self._scan()
        except BaseException:
            self._file.close()
            raise
        self._spans = index.spans
        self._channels = {
            key: _channel(channel, index.schemas.get(channel.schema_id), index.counts[key])
            for key, channel in index.channels.items()
        }
        self.channels: Sequence[Channel] = tuple(self._channels.values())
        empty = not sum(index.counts.values())
        self.start_ns = NEVER_NS if empty else index.start_ns
        self.end_ns = -1 if empty else index.end_ns

    def messages(
        self, topics: Collection[str] | None, start_ns: int | None
    ) -> Iterator[BagMessage]:
        """Readable messages in the order of their log time."""
        wanted = {
            key: channel
            for key, channel in self._channels.items()
            if topics is None or channel.topic in topics
        }
        since = start_ns or 0
        last_ns: int | None = None
        try:
            for message in merged(
                (span.start_ns, partial(self._load, span, wanted, since))
                for span in self._spans
                if span.end_ns >= since
                and (span.channels is None or not span.channels.isdisjoint(wanted))
            ):
                last_ns = message.log_ns
                yield message
        except Damage as damage:
            where, reason = damage.args
            self.damage = damage_text(self._path.name, where, reason, self.start_ns, last_ns)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _load(self, span: _Span, wanted: dict[int, Channel], since: int) -> Iterator[BagMessage]:
        try:
            found = [
                record
                for record in self._records(span)
                if isinstance(record, records.Message)
                and record.channel_id in wanted
                and record.log_time >= since
            ]
            found.sort(key=lambda record: record.log_time)
            messages = [self._message(record, wanted[record.channel_id]) for record in found]
        # Damaged bytes surface as anything: zstd, lz4, struct, checksum and unicode errors.
        except Exception as error:
            raise Damage(f"byte {span.offset} of {self._size}", _reason(error)) from error
        return iter(messages)

    def _message(self, record: records.Message, channel: Channel) -> BagMessage:
        raw = uncompressed(record.data)
        return BagMessage(channel.topic, channel.type, record.log_time, raw, channel)

    def _records(self, span: _Span) -> list[records.McapRecord]:
        if span.chunk:
            self._file.seek(span.offset + RECORD.size)
            chunk = records.Chunk.read(ReadDataStream(self._file))
        else:
            # Bare messages are framed as in an uncompressed chunk.
            self._file.seek(span.offset)
            chunk = records.Chunk("", self._file.read(span.length), 0, 0, 0, span.length)
        return list(breakup_chunk(chunk, validate_crc=True))

    def _scan(self) -> _Index:
        """Rebuild the index from the records, as far as they can be read."""
        index = _Index()
        position = len(MAGIC)
        try:
            while True:
                self._file.seek(position)
                head = self._file.read(RECORD.size)
                if not head:
                    raise Damage("the recording was not closed: the file has no index")
                if len(head) < RECORD.size:
                    raise Damage("the file ends inside a record")
                opcode, length = RECORD.unpack(head)
                end = position + RECORD.size + length
                if end > self._size:
                    raise Damage(f"the file ends inside a record of {length} bytes")
                if opcode == Opcode.DATA_END:
                    self.notes = (
                        f"{self._path.name} has no usable index and was scanned; "
                        "'mcap recover' writes a copy with one",
                    )
                    return index
                self._take(index, opcode, position, length)
                position = end
        except Exception as error:
            last_ns = index.end_ns if index.spans else None
            where = f"byte {position} of {self._size}"
            self.damage = damage_text(
                self._path.name, where, _reason(error), index.start_ns, last_ns
            )
        return index

    def _take(self, index: _Index, opcode: int, position: int, length: int) -> None:
        """Take one record of the data section into the index."""
        stream = ReadDataStream(self._file)
        span = _Span(position, RECORD.size + length, 0, 0, chunk=True)
        if opcode == Opcode.CHUNK:
            found = self._records(span)
        elif opcode == Opcode.SCHEMA:
            found = [records.Schema.read(stream)]
        elif opcode == Opcode.CHANNEL:
            found = [records.Channel.read(stream)]
        elif opcode == Opcode.MESSAGE:
            found = [records.Message.read(stream, length=22)]
        else:
            return
        for record in found:
            if isinstance(record, records.Schema):
                index.schemas[record.id] = record
            elif isinstance(record, records.Channel):
                index.channels[record.id] = record
        messages = [record for record in found if isinstance(record, records.Message)]
        unknown = {message.channel_id for message in messages} - index.channels.keys()
        if unknown:
            raise Damage(f"messages of channels {sorted(unknown)}, which were never announced")
        if not messages:
            return
        index.counts.update(message.channel_id for message in messages)
        span.start_ns = min(message.log_time for message in messages)
        span.end_ns = max(message.log_time for message in messages)
        span.chunk = opcode == Opcode.CHUNK
        index.add(span)


def _summary(file: BinaryIO) -> _Index | None:
    """The index at the end of a file; None where there is none that can be relied on."""
    try:
        summary = make_reader(file).get_summary()
    # Whatever is wrong with it, the scan finds out more.
    except Exception:
        return None
    if summary is None or summary.statistics is None:
        return None
    if summary.statistics.message_count and not summary.chunk_indexes:
        return None
    known = summary.schemas.keys() | {0}
    if any(channel.schema_id not in known for channel in summary.channels.values()):
        return None
    spans = [
        _Span(
            chunk.chunk_start_offset,
            chunk.chunk_length,
            chunk.message_start_time,
            chunk.message_end_time,
            chunk=True,
            channels=frozenset(chunk.message_index_offsets) or None,
        )
        for chunk in summary.chunk_indexes
    ]
    statistics = summary.statistics
    return _Index(
        summary.schemas,
        summary.channels,
        spans,
        Counter(statistics.channel_message_counts),
        statistics.message_start_time,
        statistics.message_end_time,
    )


def _channel(channel: records.Channel, schema: records.Schema | None, count: int) -> Channel:
    style = MessageDefinitionFormat.NONE if schema is None else FORMATS.get(schema.encoding)
    text = "" if schema is None else schema.data.decode(errors="replace")
    return Channel(
        topic=channel.topic,
        type="unknown" if schema is None else schema.name,
        definition=MessageDefinition(style or MessageDefinitionFormat.NONE, text),
        digest=channel.metadata.get("topic_type_hash", ""),
        qos=offered_qos(channel.metadata.get("offered_qos_profiles", "")),
        encoding=channel.message_encoding,
        count=count,
    )


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
