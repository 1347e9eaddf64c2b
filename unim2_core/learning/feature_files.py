"""Frozen features on disk: a file of records, and a journal that says which of them are whole.

``features.bin`` holds one record for each picture: its tokens, presence and labels. It has its
full size from the start. ``rows.jsonl`` has a line for each record that is complete, with a
checksum, written after the record; and one at the end, when there is nothing more to come. So
whatever moment a writer dies at, what it had finished is known and kept.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.labels import Classes
from unim2_core.errors import DataError, Unim2Error
from unim2_core.files import write_atomically
from unim2_core.learning.features import FeatureStore

FORMAT_VERSION = 1
"""To be raised when records or the journal change."""
RECORDS = "features.bin"
JOURNAL = "rows.jsonl"

Records = NDArray[np.void]

_ALIGNMENT = 64  # bytes: arrays start on a cache line
_END = "pictures"


@dataclass(frozen=True)
class RecordLayout:
    """What a record holds.

    Attributes:
        modalities: their names; the first is the reference.
        grid: rows and columns of the token grid.
        dim: width D of a token.
        label_size: height and width of the labels; None where there are none.
    """

    modalities: tuple[str, ...]
    grid: tuple[int, int]
    dim: int
    label_size: tuple[int, int] | None = None

    @cached_property
    def record(self) -> np.dtype[np.void]:
        """``tokens/NAME``, ``presence/NAME`` of each modality, and ``labels``."""
        fields: dict[str, np.dtype[Any]] = {}
        for name in self.modalities:
            fields[f"tokens/{name}"] = np.dtype(("<f2", (*self.grid, self.dim)))
            fields[f"presence/{name}"] = np.dtype((np.bool_, self.grid))
        if self.label_size:
            fields["labels"] = np.dtype((np.uint8, self.label_size))
        sizes = [-(-kind.itemsize // _ALIGNMENT) * _ALIGNMENT for kind in fields.values()]
        offsets = np.cumsum([0, *sizes]).tolist()
        return np.dtype(
            {
                "names": list(fields),
                "formats": list(fields.values()),
                "offsets": offsets[:-1],
                "itemsize": offsets[-1],
            }
        )


@dataclass(frozen=True)
class Row:
    """What is known of a picture besides its record; see ``Picture``."""

    name: str
    source: int
    sequence: int
    stamp_ns: int

    def checksum(self, record: memoryview) -> int:
        """Of the record and of this."""
        return zlib.crc32(json.dumps(asdict(self)).encode(), zlib.crc32(record))


@dataclass
class Journal:
    """Which records are complete.

    Attributes:
        rows: number of the record -> what is known of it, and the checksum.
        pictures: how many there are; None as long as more may come.
    """

    rows: dict[int, tuple[Row, int]] = field(default_factory=dict)
    pictures: int | None = None

    @property
    def complete(self) -> bool:
        """Whether every picture has its record."""
        return self.pictures is not None and self.rows.keys() == set(range(self.pictures))

    @classmethod
    def read(cls, path: Path) -> Journal:
        """Read it; nothing where there is no file."""
        return cls.parse(path.read_bytes() if path.is_file() else b"")

    @classmethod
    def parse(cls, content: bytes) -> Journal:
        """Read its content; lines that make no sense are of records to be computed again."""
        journal = cls()
        for line in content.splitlines():
            try:
                entry = json.loads(line)
                if _END in entry:
                    journal.pictures = int(entry[_END])
                    continue
                number, checksum = int(entry.pop("number")), int(entry.pop("checksum"))
                if number >= 0:
                    journal.rows[number] = Row(**entry), checksum
            except (ValueError, TypeError, KeyError, AttributeError):
                continue
        return journal

    def lines(self) -> bytes:
        """The file's content, without the end."""
        return b"".join(_line(number, *entry) for number, entry in sorted(self.rows.items()))


def _line(number: int, row: Row, checksum: int) -> bytes:
    return _json_line({"number": number, "checksum": checksum, **asdict(row)})


def _json_line(entry: Mapping[str, Any]) -> bytes:
    return json.dumps(entry).encode() + b"\n"


def cannot_store(
    cache: Path, size: int, error: OSError | Unim2Error, what: str = "the features"
) -> DataError:
    """The error for what cannot be written into a cache.

    Args:
        cache: the folder of all stores.
        size: bytes that are needed.
        error: why.
        what: cannot be written, for the message.
    """
    place = next(folder for folder in (cache, *cache.parents) if folder.is_dir())
    reason = error.found if isinstance(error, Unim2Error) else error.strerror or str(error)
    return DataError(
        f"{what} cannot be stored in {cache}",
        expected=f"room for {size / 1e9:.3f} GB in a folder that can be written to",
        found=f"{reason}; {shutil.disk_usage(place).free / 1e9:.3f} GB are free",
        remedy="free some space, or choose another place with --cache DIR",
    )


class FeatureFiles:
    """The files of one store.

    Args:
        folder: where they are, or will be.
        layout: of the records.
    """

    def __init__(self, folder: Path, layout: RecordLayout) -> None:
        self.folder, self.layout = folder, layout
        self.records, self.journal = folder / RECORDS, folder / JOURNAL

    def read_journal(self) -> Journal:
        """What is there; nothing if nothing is."""
        return Journal.read(self.journal)

    def has_room_for(self, pictures: int) -> bool:
        """Whether the file of records is as long as it has to be."""
        size = self.records.stat().st_size if self.records.is_file() else 0
        return size >= pictures * self.layout.record.itemsize

    def corrupt(self, journal: Journal) -> list[int]:
        """Numbers of the records that do not fit their checksums; one pass over the file."""
        if not self.records.is_file():
            return sorted(journal.rows)
        found = []
        size = self.layout.record.itemsize
        block = memoryview(bytearray(size))
        with self.records.open("rb", buffering=0) as file:
            for number, (row, checksum) in sorted(journal.rows.items()):
                file.seek(number * size)
                if file.readinto(block) != size or row.checksum(block) != checksum:
                    found.append(number)
        return found

    def store(self, journal: Journal, classes: Classes | None) -> FeatureStore:
        """Open a complete store, memory-mapped for reading."""
        assert journal.pictures is not None  # it is complete
        rows = [journal.rows[number][0] for number in range(journal.pictures)]
        shape = (journal.pictures,)
        mapped = np.asarray(np.memmap(self.records, self.layout.record, "r", shape=shape))
        return FeatureStore(
            tokens={name: mapped[f"tokens/{name}"] for name in self.layout.modalities},
            presence={name: mapped[f"presence/{name}"] for name in self.layout.modalities},
            sources=np.array([row.source for row in rows], np.int64),
            sequences=np.array([row.sequence for row in rows], np.int64),
            stamps_ns=np.array([row.stamp_ns for row in rows], np.int64),
            labels=mapped["labels"] if self.layout.label_size else None,
            classes=classes,
            names=tuple(row.name for row in rows),
        )


class FeatureWriter:
    """Adds records to a store. For one process at a time; use as a context manager.

    Args:
        files: of the store.
        journal: what is there and stays.
        limit: records that there may be.

    Raises:
        DataError: there is not enough room, or the folder cannot be written to.
    """

    def __init__(self, files: FeatureFiles, journal: Journal, limit: int) -> None:
        self._files = files
        self._size = files.layout.record.itemsize
        self._written = len(journal.rows)
        try:
            files.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(files.journal, journal.lines())
            self._records = self._reserve(limit * self._size)
            self._journal = files.journal.open("ab", buffering=0)
        except (OSError, Unim2Error) as error:
            raise cannot_store(files.folder.parent, limit * self._size, error) from error

    def _reserve(self, size: int) -> IO[bytes]:
        """The file of records, with room for all that is to come.

        Raises:
            OSError: there is none; the file is then what it was before.
        """
        path = self._files.records
        path.touch()
        before = path.stat().st_size
        file = path.open("r+b")
        try:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
        except OSError:
            file.truncate(before)
            file.close()
            if not self._written:
                self._remove()
            raise
        return file

    def _remove(self) -> None:
        """Leave no empty store behind."""
        self._files.records.unlink(missing_ok=True)
        self._files.journal.unlink(missing_ok=True)
        self._files.folder.rmdir()

    def __enter__(self) -> FeatureWriter:
        """Nothing more to do: the files are open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files; where nothing was finished they go."""
        self._records.close()
        self._journal.close()
        if not self._written:
            self._remove()

    def write(self, first: int, records: Records, rows: Sequence[Row]) -> None:
        """Write records that follow each other, then say that they are there.

        Args:
            first: number of the first.
            records: (B,) of the layout.
            rows: what is known of them.

        Raises:
            DataError: the disk is full or fails.
        """
        checksums = [
            row.checksum(records[index : index + 1].view(np.uint8).data)
            for index, row in enumerate(rows)
        ]
        lines = [
            _line(first + index, row, checksum)
            for index, (row, checksum) in enumerate(zip(rows, checksums, strict=True))
        ]
        try:
            self._records.seek(first * self._size)
            self._records.write(records.view(np.uint8).data)
            self._records.flush()
            os.fdatasync(self._records.fileno())
            self._append(b"".join(lines))
        except OSError as error:
            raise cannot_store(self._files.folder.parent, records.nbytes, error) from error
        self._written += len(rows)

    def finish(self, pictures: int) -> None:
        """Say that there are no more.

        Raises:
            DataError: the disk is full or fails.
        """
        try:
            self._records.truncate(pictures * self._size)
            os.fdatasync(self._records.fileno())
            self._append(_json_line({_END: pictures}))
        except OSError as error:
            raise cannot_store(self._files.folder.parent, 0, error) from error

    def _append(self, lines: bytes) -> None:
        written = self._journal.write(lines)
        if written != len(lines):  # the rest is a torn line, which no reader takes for one
            raise OSError("the journal could not be written to its end")
        os.fdatasync(self._journal.fileno())
