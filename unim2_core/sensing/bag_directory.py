"""From a path to open storage files: what kind of bag it is, and what else it is."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
import zstandard
from rosbags.rosbag2 import ReaderError

from unim2_core.errors import BagError
from unim2_core.sensing import bag_mcap, bag_ros1
from unim2_core.sensing.bag_mcap import McapFile
from unim2_core.sensing.bag_ros1 import Ros1File
from unim2_core.sensing.bag_sqlite import DamagedSqliteFile, SqliteFile
from unim2_core.sensing.bag_storage import ZSTD_MAGIC, BagFile, BagMessage, Channel

METADATA = "metadata.yaml"
SQLITE_MAGIC = b"SQLite format 3\0"
KINDS = "a rosbag2 directory, an .mcap or .db3 file of one, or a ROS 1 .bag"


@dataclass
class OpenBag:
    """The files of one bag.

    Attributes:
        files: storage files, open.
        channels: what they hold together.
        lost: what cannot be read at all, each with its reason.
        notes: what is odd, though nothing is lost.
    """

    files: list[BagFile] = field(default_factory=list)
    channels: list[Channel] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, file: BagFile) -> None:
        """Add an open file."""
        self.files.append(file)
        self.channels.extend(file.channels)

    def close(self) -> None:
        """Close all files."""
        for file in self.files:
            file.close()


def open_bag(path: Path) -> OpenBag:
    """Open a bag, whatever it is.

    Raises:
        BagError: there is no bag at ``path``, or nothing of it can be read.
    """
    bag = OpenBag()
    try:
        if path.is_dir():
            _open_directory(path, bag)
        else:
            bag.add(_open_file(path))
    except BaseException:
        bag.close()
        raise
    return bag


def _open_directory(path: Path, bag: OpenBag) -> None:
    metadata = _metadata(path, bag.notes)
    stored = _stored_files(path, metadata)
    if not stored:
        raise BagError(
            f"{path} is not a bag",
            expected=f"a directory with {METADATA} and the .mcap or .db3 files that it names",
            found=", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing",
            remedy="name the directory that 'ros2 bag record' made, or a single bag file",
        )
    if all(".bag" in file.suffixes for file in stored):
        bag.notes.clear()  # the parts of a ROS 1 recording never have metadata
    times = _listed_times(metadata)
    # Only the metadata know what is in a compressed file before it is unpacked.
    packed = _compressed(metadata) and all(file.name in times for file in stored)
    bag.channels.extend(_listed_channels(metadata) if packed else ())
    for file in stored:
        try:
            if packed and file.exists():
                bag.files.append(ZstdFile(file, times[file.name]))
            else:
                bag.add(_open_file(file))
        except BagError as error:
            if len(stored) == 1:
                raise
            bag.lost.append(f"{file.name} cannot be read: {error.found}")


def _open_file(path: Path) -> BagFile:
    try:
        with path.open("rb") as file:
            head = file.read(16)
        if head.startswith(bag_mcap.MAGIC):
            return McapFile(path)
        if head.startswith(bag_ros1.MAGIC):
            return Ros1File(path)
        if head.startswith(SQLITE_MAGIC):
            return _open_sqlite(path)
        if head.startswith(ZSTD_MAGIC):
            return ZstdFile(path)
    except OSError as error:
        raise BagError(
            f"cannot open the bag {path}",
            expected=KINDS,
            found=error.strerror or str(error),
            remedy="check the path and the permissions",
        ) from error
    raise BagError(
        f"{path} is not a bag",
        expected=KINDS,
        found=f"a file that starts with {head!r}" if head else "an empty file (0 bytes)",
        remedy="check that the recording or the copy was completed",
    )


def _open_sqlite(path: Path) -> BagFile:
    try:
        return SqliteFile(path)
    except ReaderError:
        return DamagedSqliteFile(path)


class ZstdFile:
    """A storage file compressed as a whole, unpacked to a temporary file while it is read.

    See ``BagFile`` for the attributes.

    Args:
        path: the file, ``*.zstd``.
        times: log times of its first and last message, nanoseconds, where the metadata of its bag
            tell them; else it is unpacked once to find out.
    """

    def __init__(self, path: Path, times: tuple[int, int] | None = None) -> None:
        self._path = path
        self.damage: str | None = None
        self.notes: Sequence[str] = ()
        self.channels: Sequence[Channel] = ()
        if times is None:
            with self._unpacked() as file:
                self.channels = file.channels
                times = file.start_ns, file.end_ns
        self.start_ns, self.end_ns = times

    def messages(
        self, topics: Collection[str] | None, start_ns: int | None
    ) -> Iterator[BagMessage]:
        """Readable messages in the order of their log time."""
        if start_ns is not None and start_ns > self.end_ns:
            return
        try:
            with self._unpacked() as file:
                yield from file.messages(topics, start_ns)
        except BagError as error:
            self.damage = f"{self._path.name} cannot be read: {error.found}"

    def close(self) -> None:
        """Nothing is held open between two readings."""

    @contextmanager
    def _unpacked(self) -> Iterator[BagFile]:
        with tempfile.TemporaryDirectory(prefix="unim2-bag-") as folder:
            plain = Path(folder) / self._path.stem
            try:
                with self._path.open("rb") as packed, plain.open("wb") as unpacked:
                    zstandard.ZstdDecompressor().copy_stream(packed, unpacked)
            except zstandard.ZstdError:
                # What was unpacked before the damage is a truncated bag, and is read as one.
                pass
            except OSError as error:
                raise BagError(
                    f"cannot unpack {self._path}",
                    expected=f"room for it in {tempfile.gettempdir()}",
                    found=error.strerror or str(error),
                    remedy="point TMPDIR to a larger disk",
                ) from error
            file = _open_file(plain)
            try:
                yield file
            finally:
                self.damage, self.notes = file.damage, file.notes
                file.close()


def _metadata(path: Path, notes: list[str]) -> dict[str, Any]:
    """Content of the metadata; empty, with a note, where there is none to rely on."""
    try:
        content = yaml.safe_load((path / METADATA).read_text(encoding="utf-8"))
        metadata = content["rosbag2_bagfile_information"]
        # All are needed below, so let a wrong shape show here.
        files = _stored_files(path, metadata)
        _listed_channels(metadata)
        _listed_times(metadata)
    except FileNotFoundError:
        reason = "is missing: the recording was not closed"
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = f"cannot be read ({error})"
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"does not describe a bag ({type(error).__name__}: {error})"
    else:
        if any(file.exists() for file in files):
            return dict(metadata)
        reason = "names no file that is there"
    notes.append(
        f"{path.name}/{METADATA} {reason}; the files were read without it. "
        f"'ros2 bag reindex {path.name}' writes a new one"
    )
    return {}


def _stored_files(path: Path, metadata: dict[str, Any]) -> list[Path]:
    """Files of a bag in the order of recording."""
    if metadata:
        # Old recorders wrote paths relative to where they were started.
        return [path / PurePosixPath(name).name for name in metadata["relative_file_paths"]]
    found = [
        entry
        for entry in path.iterdir()
        if entry.is_file() and re.search(r"\.(mcap|db3|bag)(\.zstd|\.active)?$", entry.name)
    ]
    # bag_2 comes before bag_10.
    return sorted(found, key=lambda entry: [int(n) for n in re.findall(r"\d+", entry.name)])


def _compressed(metadata: dict[str, Any]) -> bool:
    return str(metadata.get("compression_mode", "")).lower() == "file"


def _listed_channels(metadata: dict[str, Any]) -> list[Channel]:
    return [
        Channel(
            topic=str(entry["topic_metadata"]["name"]),
            type=str(entry["topic_metadata"]["type"]),
            encoding=str(entry["topic_metadata"]["serialization_format"]),
            count=int(entry["message_count"]),
        )
        for entry in metadata["topics_with_message_count"]
    ]


def _listed_times(metadata: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """File name -> log times of its first and last message, nanoseconds."""
    times = {}
    for entry in metadata.get("files") or []:
        start_ns = int(entry["starting_time"]["nanoseconds_since_epoch"])
        end_ns = start_ns + int(entry["duration"]["nanoseconds"])
        times[PurePosixPath(entry["path"]).name] = start_ns, end_ns
    return times
