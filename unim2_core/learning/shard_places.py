"""Where the shards of a fleet are: a folder, or an address of an object store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.address_lists import LISTS, listed
from unim2_core.data.addresses import answered, file_system, is_remote, protocol_of, unreadable
from unim2_core.errors import DataError
from unim2_core.learning.feature_files import (
    JOURNAL,
    RECORDS,
    Journal,
    RecordLayout,
    Records,
    Row,
)
from unim2_core.learning.joined import READERS
from unim2_core.learning.shards import Shard, Wanted, damaged, opened
from unim2_core.learning.store_facts import AGAIN, FACTS, StoreFacts

SHARDS = "drives"
"""Folder of a fleet that has them."""
OPEN = 256
"""Files that are mapped at once."""


def find_shards(place: str, wanted: Wanted) -> list[Shard]:
    """Open all shards of a fleet. No record is read.

    Args:
        place: ``--out`` or ``--to`` of ``unim2 fleet features``, or a text file, also behind an
            address, with the folder or address of a shard on each line.
        wanted: what they must be like.

    Raises:
        DataError: there are none, or one is incomplete, damaged, or does not fit.
    """
    if place.endswith(LISTS):
        shards = _of_list(place, wanted)
    else:
        shards = (_remote if is_remote(place) else _local)(place, wanted)
    if not shards:
        raise DataError(
            f"there are no features in {place}",
            expected=f"the folder of --out, or the address of --to, of unim2 fleet features, with "
            f"stores below {SHARDS}/, or a text file (.txt) that lists stores",
            found="none",
            remedy="check the place, or run: unim2 fleet features --drives ... --out ...",
        )
    return shards


class LocalRecords:
    """Records of a file, memory-mapped; see ``RecordReader``."""

    remote = False

    def __init__(
        self,
        path: Path,
        facts: StoreFacts,
        rows: Sequence[Row],
        checksums: Sequence[int],
    ) -> None:
        self._path, self._facts = path, facts
        self._rows, self._checksums = rows, checksums

    def at(self, numbers: NDArray[np.int64]) -> tuple[Records, NDArray[np.int64]]:
        """All, and the numbers themselves."""
        return _mapped(self._path, self._facts.layout, len(self._rows)), numbers

    def check(self, numbers: NDArray[np.int64]) -> None:
        """Hold records against their checksums.

        Raises:
            DataError: one is damaged.
        """
        mapped, _ = self.at(numbers)
        for number in numbers.tolist():
            record = mapped[number : number + 1].view(np.uint8).data
            found, row = self._rows[number].checksum(record), self._rows[number]
            if found != self._checksums[number]:
                where = str(self._path.parent)
                raise damaged(self._facts, where, row, self._checksums[number], str(found))


class RemoteRecords:
    """Records behind an address, read and checked each time; see ``RecordReader``."""

    remote = True

    def __init__(
        self,
        system: Any,
        path: str,
        where: str,
        facts: StoreFacts,
        rows: Sequence[Row],
        checksums: Sequence[int],
    ) -> None:
        self._system, self._path, self._where, self._facts = system, path, where, facts
        self._rows, self._checksums = rows, checksums
        self.bytes_read = 0

    def at(self, numbers: NDArray[np.int64]) -> tuple[Records, NDArray[np.int64]]:
        """Read just these, several at once.

        Raises:
            DataError: one cannot be read, or is damaged.
        """
        size = self._facts.layout.record.itemsize
        starts = [number * size for number in numbers.tolist()]
        ends = [start + size for start in starts]
        try:
            parts = self._system.cat_ranges(
                [self._path] * len(starts), starts, ends, on_error="raise"
            )
        except Exception as error:
            raise unreadable(self._where, error) from error
        for number, part in zip(numbers.tolist(), parts, strict=True):
            row, known = self._rows[number], self._checksums[number]
            self.bytes_read += len(part)
            if len(part) > size:
                raise DataError(
                    f"{self._where} does not give parts of a file",
                    expected=f"{size} bytes, by a server that understands ranges",
                    found=f"{len(part)}",
                    remedy="use another server, or copy the features to a disk",
                )
            found = row.checksum(memoryview(part))
            if len(part) != size or found != known:
                said = f"{len(part)} bytes, {found}"
                raise damaged(self._facts, self._where, row, known, said)
        records = np.frombuffer(b"".join(parts), self._facts.layout.record)
        return records, np.arange(len(records))

    def check(self, numbers: NDArray[np.int64]) -> None:
        """Nothing: they are checked when they are read."""


@lru_cache(OPEN)
def _mapped(path: Path, layout: RecordLayout, count: int) -> Records:
    """A file of records; each that is mapped takes one of the files that a process may have."""
    try:
        return np.asarray(np.memmap(path, layout.record, "r", shape=(count,)))
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read {path}",
            expected=f"{count} records, as when the training began",
            found=str(error),
            remedy="give the same command again; a training goes on where it was",
        ) from error


def _of_list(place: str, wanted: Wanted) -> list[Shard]:
    def shard(entry: str) -> Shard:
        if is_remote(entry):
            return _remote_shard(entry, _size(entry), wanted)
        return _local_shard(Path(entry), wanted)

    entries = [entry.rstrip("/") for entry in listed(place, "features")]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(shard, entries))


def _local(place: str, wanted: Wanted) -> list[Shard]:
    below = Path(place).expanduser() / SHARDS
    with _readable(place):
        there = sorted(below.iterdir()) if below.is_dir() else []
        folders = [path for path in there if path.is_dir()]
    return [_local_shard(folder, wanted) for folder in folders]


@contextmanager
def _readable(place: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot read the features in {place}",
            expected="files that may be read",
            found=str(error),
            remedy="check the file system, and who may read it",
        ) from error


def _local_shard(folder: Path, wanted: Wanted) -> Shard:
    path = folder / RECORDS
    with _readable(str(folder)):
        said, rows_said = _bytes(folder / FACTS), _bytes(folder / JOURNAL)
        size = path.stat().st_size if path.is_file() else None
        there = folder.is_dir()
    facts = _facts(said, str(folder), wanted, there=there)

    def records(rows: Sequence[Row], checksums: Sequence[int]) -> LocalRecords:
        return LocalRecords(path, facts, rows, checksums)

    return opened(facts, Journal.parse(rows_said or b""), size, str(folder), records)


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def _remote(place: str, wanted: Wanted) -> list[Shard]:
    try:
        found = _found(place)
    except DataError:
        raise
    except FileNotFoundError:
        return []
    except Exception as error:
        raise unreadable(place, error) from error
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(lambda one: _remote_shard(one[0], one[1], wanted), found))


def _found(place: str) -> list[tuple[str, int | None]]:
    """Address of each shard in a folder, and bytes of its records; None where there are none."""
    if protocol_of(place) in ("http", "https"):
        raise DataError(
            f"the features in {place} cannot be listed",
            expected="a store with folders, such as s3://, or a list: a text file (.txt)",
            found="HTTP, which has no folders to look into",
            remedy=f"write the addresses below {SHARDS}/ into a file, one on each line, give that",
        )
    system, path = file_system(place)
    below = f"{path.rstrip('/')}/{SHARDS}"
    if not answered(place, lambda: system.exists(below)):
        return []
    files = system.find(below, detail=True)
    folders = sorted({name.rpartition("/")[0] for name in files} - {below})
    sizes = [files.get(f"{folder}/{RECORDS}", {}).get("size") for folder in folders]
    addresses = [f"{protocol_of(place)}://{folder}" for folder in folders]
    return list(zip(addresses, sizes, strict=True))


def _size(address: str) -> int | None:
    """Bytes of a shard's records; None where there are none."""
    system, path = file_system(f"{address}/{RECORDS}")
    try:
        found = answered(address, lambda: system.info(path)["size"])
    except FileNotFoundError:
        return None
    if found is None:
        raise DataError(
            f"it is not known how long {address}/{RECORDS} is",
            expected="a server that says so (Content-Length)",
            found="one that does not",
            remedy="use another server, or copy the features to a disk",
        )
    return int(found)


def _remote_shard(address: str, size: int | None, wanted: Wanted) -> Shard:
    system, folder = file_system(address)
    names = [f"{folder}/{name}" for name in (FACTS, JOURNAL)]
    contents: list[bytes | None] = []
    for found in system.cat_ranges(names, None, None, on_error="return"):
        if isinstance(found, Exception) and not isinstance(found, FileNotFoundError):
            raise unreadable(address, found)
        contents.append(None if isinstance(found, Exception) else found)
    facts = _facts(contents[0], address, wanted)

    def records(rows: Sequence[Row], checksums: Sequence[int]) -> RemoteRecords:
        return RemoteRecords(system, f"{folder}/{RECORDS}", address, facts, rows, checksums)

    return opened(facts, Journal.parse(contents[1] or b""), size, address, records)


def _facts(content: bytes | None, where: str, wanted: Wanted, *, there: bool = True) -> StoreFacts:
    if content is None and not there:
        raise DataError(
            f"there are no features in {where}",
            expected="the folder of one drive's features, with " + FACTS,
            found="no such folder",
            remedy="check the list",
        )
    if content is None:
        raise DataError(
            f"the features in {where} do not say what they are of",
            expected=f"{FACTS} beside {RECORDS}",
            found="none: an older version wrote them, or it is the folder that has "
            f"{SHARDS}/, not one drive's features below it",
            remedy=AGAIN,
        )
    facts = StoreFacts.parse(content, where)
    wanted.check(facts, where)
    return facts
