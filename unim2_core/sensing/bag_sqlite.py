"""SQLite storage files, whole or damaged."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from rosbags.interfaces import Connection, MessageDefinition
from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

from unim2_core.errors import BagError
from unim2_core.sensing.bag_storage import (
    NEVER_NS,
    BagMessage,
    Channel,
    damage_text,
    offered_qos,
    uncompressed,
)
from unim2_core.sensing.bag_types import FORMATS, NO_DEFINITION


class SqliteFile:
    """An open ``.db3`` file, read through ``rosbags``; see ``BagFile`` for the attributes."""

    def __init__(self, path: Path) -> None:
        self.damage: str | None = None
        self.notes: Sequence[str] = _write_ahead_log(path)
        self._path = path
        self._reader = Sqlite3Reader(path)
        self._reader.open()
        self._channels = {
            connection.id: _channel(connection) for connection in self._reader.connections
        }
        self.channels: Sequence[Channel] = tuple(self._channels.values())
        self.start_ns = int(self._reader.metadata.start_time)
        self.end_ns = int(self._reader.metadata.end_time) - 1

    def messages(
        self, topics: Collection[str] | None, start_ns: int | None
    ) -> Iterator[BagMessage]:
        """Readable messages in the order of their log time."""
        wanted = [
            connection
            for connection in self._reader.connections
            if topics is None or connection.topic in topics
        ]
        if not wanted:
            return
        rows = self._reader.messages(wanted, start=start_ns)
        last_ns: int | None = None
        count = 0
        while True:
            try:
                row = next(rows, None)
                if row is None:
                    return
                connection, log_ns, data = row
                raw = uncompressed(data)
            # SQLite, zstd and rosbags each have their own way to say that bytes are damaged.
            except Exception as error:
                self.damage = damage_text(
                    self._path.name, _row(self._path, count), error, self.start_ns, last_ns
                )
                return
            last_ns = log_ns
            count += 1
            channel = self._channels[connection.id]
            yield BagMessage(channel.topic, channel.type, log_ns, raw, channel)

    def close(self) -> None:
        """Let go of the file."""
        self._reader.close()


class DamagedSqliteFile:
    """A ``.db3`` file that SQLite calls malformed: its rows in order, up to the first bad one.

    Recorders append, so the order of the rows is that of their log times, but for what several
    threads of a recorder may have swapped. See ``BagFile`` for the attributes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reason: object = "SQLite calls it malformed"
        self.notes: Sequence[str] = _write_ahead_log(path)
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?immutable=1", uri=True)
        try:
            # Without it SQLite refuses a file that is shorter than its header says.
            self._connection.execute("PRAGMA writable_schema=ON")
            self._connection.row_factory = sqlite3.Row
            topics = {row["id"]: row for row in self._connection.execute("SELECT * FROM topics")}
            definitions = self._definitions()
            counts = dict.fromkeys(topics, 0)
            self.start_ns, self.end_ns = NEVER_NS, -1
            for topic, log_ns, _ in self._rows():
                counts[topic] += 1
                self.start_ns = min(self.start_ns, log_ns)
                self.end_ns = max(self.end_ns, log_ns)
        except (sqlite3.Error, KeyError) as error:
            self._connection.close()
            raise BagError(
                f"{path} is a damaged SQLite bag",
                expected="readable tables topics and messages",
                found=str(error),
                remedy="try: sqlite3 BAG.db3 .recover | sqlite3 NEW.db3",
            ) from error
        self._channels = {
            key: Channel(
                row["name"],
                row["type"],
                definitions.get(row["type"], NO_DEFINITION),
                qos=offered_qos(dict(row).get("offered_qos_profiles", "")),
                encoding=row["serialization_format"],
                count=counts[key],
            )
            for key, row in topics.items()
        }
        self.channels: Sequence[Channel] = tuple(self._channels.values())
        self.damage: str | None = damage_text(
            path.name, _row(path, sum(counts.values())), self._reason, self.start_ns, self.end_ns
        )

    def messages(
        self, topics: Collection[str] | None, start_ns: int | None
    ) -> Iterator[BagMessage]:
        """Readable messages in the order of the file."""
        for topic, log_ns, data in self._rows():
            channel = self._channels[topic]
            if (topics is None or channel.topic in topics) and log_ns >= (start_ns or 0):
                yield BagMessage(channel.topic, channel.type, log_ns, data, channel)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _definitions(self) -> dict[str, MessageDefinition]:
        try:
            rows = self._connection.execute(
                "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions"
            )
            return {name: MessageDefinition(FORMATS[style], text) for name, style, text in rows}
        except (sqlite3.Error, KeyError):
            # Recorders before Iron stored none; standard types can do without.
            return {}

    def _rows(self) -> Iterator[tuple[int, int, bytes]]:
        # The index on time is as likely damaged as anything, and not needed in this order.
        query = "SELECT topic_id, timestamp, data FROM messages NOT INDEXED ORDER BY id"
        # As above: SQLite and zstd differ in how they say that bytes are damaged.
        try:
            for topic, log_ns, data in self._connection.execute(query):
                yield topic, int(log_ns), uncompressed(data)
        except Exception as error:
            self._reason = error


def _row(path: Path, good: int) -> str:
    return f"row {good + 1} of a file of {path.stat().st_size} bytes"


def _channel(connection: Connection) -> Channel:
    return Channel(
        topic=connection.topic,
        type=connection.msgtype,
        definition=connection.msgdef,
        digest=connection.digest,
        qos=tuple(connection.ext.offered_qos_profiles),
        encoding=connection.ext.serialization_format,
        count=connection.msgcount,
    )


def _write_ahead_log(path: Path) -> Sequence[str]:
    log = path.with_name(path.name + "-wal")
    if not log.exists() or not log.stat().st_size:
        return ()
    return (
        f"{log.name} holds messages that were not yet moved into {path.name} and are not read; "
        f"move them with: sqlite3 {path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'",
    )
