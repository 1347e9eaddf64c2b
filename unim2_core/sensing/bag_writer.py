"""Writing of bags: rosbag2 in mcap, whole under its final name or not there at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rosbags.interfaces import MessageDefinitionFormat
from rosbags.rosbag2 import StoragePlugin, Writer, WriterError
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode

from unim2_core.errors import BagError
from unim2_core.sensing.bag_storage import LATCHED, BagMessage, Channel
from unim2_core.sensing.bag_types import standard_types, typestore_for

VERSION = 8
"""Of the metadata: the newest that Humble reads; from 9 on QoS is a list, where it wants text."""
UNKNOWN_DIGEST = "RIHS01_" + "0" * 64
IDL_HEAD = "=" * 80 + "\nIDL: "


def partial_bag(path: Path) -> Path:
    """Where an interrupted ``BagWriter`` of ``path`` left what it had written: a bag directory."""
    return path.with_name(path.name + ".partial") / path.name.removesuffix(".mcap")


class BagWriter:
    """Writes a bag beside its place and moves it there when all went well.

    Use as a context manager. After an exception, ctrl-C included, nothing has the final name;
    ``partial_bag`` is left, whole, unless the disk was full. After a kill it ends with its last
    whole chunk.

    Args:
        path: ``*.mcap`` for a single file, anything else for a rosbag2 directory.
        compression: of chunks in the file.
        latched: topics whose last message late subscribers get (transient local).

    Raises:
        BagError: ``path`` exists, or cannot be written to.
    """

    def __init__(
        self,
        path: Path,
        *,
        compression: Literal["none", "zstd"] = "zstd",
        latched: Collection[str] = ("/tf_static",),
    ) -> None:
        if path.exists():
            raise BagError(
                f"{path} exists already",
                expected="a name that is not taken",
                found="a directory" if path.is_dir() else "a file",
                remedy="remove it or choose another name",
            )
        self._path = path
        self._latched = latched
        self._partial = partial_bag(path)
        self._connections: dict[tuple[str, str], Any] = {}
        self._disk_failed = False
        self._do(self._remove_partial)
        self._writer = Writer(self._partial, version=VERSION, storage_plugin=StoragePlugin.MCAP)
        if compression == "zstd":
            self._writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
        self._do(self._writer.open)

    def __enter__(self) -> BagWriter:
        """Nothing more to do: the bag is open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the bag and give it its name, or leave it where it is.

        Raises:
            BagError: the end of the bag could not be written.
        """
        try:
            if error is None:
                self._do(self._finish)
            elif not self._disk_failed:
                # What is in memory still is worth keeping: a run may be resumed from it.
                with contextlib.suppress(Exception):
                    self._writer.close()
        finally:
            # Does nothing after a clean end.
            self._writer.__exit__(BaseException, None, None)
            if self._disk_failed:
                self._remove_partial()

    def write(self, topic: str, message: Any, log_ns: int) -> None:
        """Write a message of a standard type.

        Args:
            topic: where it is to be published.
            message: from ``bag_messages``, or decoded from a bag.
            log_ns: when it was recorded, nanoseconds.

        Raises:
            BagError: the disk is full or fails.
        """
        msgtype = message.__msgtype__
        raw = standard_types().serialize_cdr(message, msgtype)
        channel = Channel(topic, msgtype, qos=(LATCHED,) if topic in self._latched else ())
        self.write_raw(BagMessage(topic, msgtype, log_ns, raw, channel))

    def write_raw(self, message: BagMessage) -> None:
        """Copy a message with its type's definition and QoS, without decoding it.

        Raises:
            BagError: the disk is full or fails.
        """
        connection = self._connections.get((message.topic, message.type))
        if connection is None:
            channel = message.channel or Channel(message.topic, message.type)
            connection = self._connect(channel)
            self._connections[message.topic, message.type] = connection
        self._do(lambda: self._writer.write(connection, message.log_ns, message.raw))

    def _connect(self, channel: Channel) -> Any:
        definition, digest = channel.definition.data, channel.digest
        try:
            store = typestore_for(channel.type, channel.definition)
            digest = digest or store.hash_rihs01(channel.type)
            definition = definition or store.generate_msgdef(channel.type, ros_version=2)[0]
        except (BagError, KeyError):
            # Its messages are copied all the same; whoever defines the type can read them.
            digest = digest or UNKNOWN_DIGEST
        idl = channel.definition.format == MessageDefinitionFormat.IDL
        if idl and not definition.startswith(IDL_HEAD):
            definition = f"{IDL_HEAD}{channel.type}\n{definition}"
        return self._writer.add_connection(
            channel.topic,
            channel.type,
            msgdef=definition,
            rihs01=digest,
            serialization_format=channel.encoding,
            offered_qos_profiles=channel.qos,
        )

    def _finish(self) -> None:
        self._writer.close()
        written = self._partial / f"{self._partial.name}.mcap"
        for file in (written, self._partial / "metadata.yaml"):
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
        os.rename(written if self._path.suffix == ".mcap" else self._partial, self._path)
        self._remove_partial()

    def _remove_partial(self) -> None:
        if self._partial.parent.exists():
            shutil.rmtree(self._partial.parent)

    def _do(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (OSError, WriterError) as error:
            self._disk_failed = True
            raise BagError(
                f"cannot write the bag {self._path}",
                expected="a folder that can be written to, with room on its disk",
                found=getattr(error, "strerror", None) or str(error),
                remedy="free some space or choose another place with --out",
            ) from error
