"""Where the shards of a fleet are: a folder, or an address of an object store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.addresses import answered, file_system, is_remote, unreadable
from unim2_core.errors import DataError
from unim2_core.learning.feature_files import JOURNAL, RECORDS, Journal, Records, Row
from unim2_core.learning.shards import Shard, Wanted, damaged, opened
from unim2_core.learning.store_facts import AGAIN, FACTS, StoreFacts

SHARDS = "drives"
"""Folder of a fleet that has them."""


def find_shards(place: str, wanted: Wanted) -> list[Shard]:
    """Open all shards of a fleet. No record is read.

    Args:
        place: ``--out`` or ``--to`` of ``unim2 fleet features``.
        wanted: what they must be like.

    Raises:
        DataError: there are none, or one is incomplete, damaged, or does not fit.
    """
    shards = (_remote if is_remote(place) else _local)(place, wanted)
    if not shards:
        raise DataError(
            f"there are no features in {place}",
            expected=f"the folder of --out, or the address of --to, of unim2 fleet features, with "
            f"stores below {SHARDS}/",
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
        self._mapped = np.asarray(np.memmap(path, facts.layout.record, "r", shape=(len(rows),)))

    def at(self, numbers: NDArray[np.int64]) -> tuple[Records, NDArray[np.int64]]:
        """All, and the numbers themselves."""
        return self._mapped, numbers

    def check(self, numbers: NDArray[np.int64]) -> None:
        """Hold records against their checksums.

        Raises:
            DataError: one is damaged.
        """
        for number in numbers.tolist():
            record = self._mapped[number : number + 1].view(np.uint8).data
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
            parts = self._system.cat_ranges([self._path] * len(starts), starts, ends)
        except Exception as error:
            raise unreadable(self._where, error) from error
        for number, part in zip(numbers.tolist(), parts, strict=True):
            row, known = self._rows[number], self._checksums[number]
            self.bytes_read += len(part)
            found = row.checksum(memoryview(part))
            if len(part) != size or found != known:
                said = f"{len(part)} bytes, {found}"
                raise damaged(self._facts, self._where, row, known, said)
        records = np.frombuffer(b"".join(parts), self._facts.layout.record)
        return records, np.arange(len(records))

    def check(self, numbers: NDArray[np.int64]) -> None:
        """Nothing: they are checked when they are read."""


def _local(place: str, wanted: Wanted) -> list[Shard]:
    base = Path(place).expanduser() / SHARDS
    folders = sorted(path for path in base.iterdir() if path.is_dir()) if base.is_dir() else []
    shards = []
    for folder in folders:
        path = folder / RECORDS
        facts = _facts(_bytes(folder / FACTS), str(folder), wanted)

        def records(
            rows: tuple[Row, ...],
            checksums: tuple[int, ...],
            path: Path = path,
            facts: StoreFacts = facts,
        ) -> LocalRecords:
            return LocalRecords(path, facts, rows, checksums)

        size = path.stat().st_size if path.is_file() else None
        journal = Journal.parse(_bytes(folder / JOURNAL) or b"")
        shards.append(opened(facts, journal, size, str(folder), records))
    return shards


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() else None
    except OSError as error:
        raise DataError(
            f"cannot read {path}",
            expected="a file that may be read",
            found=error.strerror or str(error),
            remedy="check the file system, and who may read it",
        ) from error


def _remote(place: str, wanted: Wanted) -> list[Shard]:
    system, path = file_system(place)
    base = f"{path.rstrip('/')}/{SHARDS}"
    try:
        answered(place, lambda: system.exists(base))
        files = system.find(base, detail=True)
        folders = sorted({name.rpartition("/")[0] for name in files} - {base})
        texts = [f"{folder}/{name}" for folder in folders for name in (FACTS, JOURNAL)]
        found = system.cat([name for name in texts if name in files]) if folders else {}
    except DataError:
        raise
    except Exception as error:
        raise unreadable(place, error) from error
    shards = []
    for folder in folders:
        where = f"{place.rstrip('/')}/{SHARDS}/{folder.rpartition('/')[2]}"
        path = f"{folder}/{RECORDS}"
        facts = _facts(found.get(f"{folder}/{FACTS}"), where, wanted)

        def records(
            rows: tuple[Row, ...],
            checksums: tuple[int, ...],
            path: str = path,
            where: str = where,
            facts: StoreFacts = facts,
        ) -> RemoteRecords:
            return RemoteRecords(system, path, where, facts, rows, checksums)

        size = int(files[path]["size"]) if path in files else None
        journal = Journal.parse(found.get(f"{folder}/{JOURNAL}", b""))
        shards.append(opened(facts, journal, size, where, records))
    return shards


def _facts(content: bytes | None, where: str, wanted: Wanted) -> StoreFacts:
    if content is None:
        raise DataError(
            f"the features in {where} do not say what they are of",
            expected=f"{FACTS} beside {RECORDS}",
            found="none: an older version wrote them, or they are no features",
            remedy=AGAIN,
        )
    facts = StoreFacts.parse(content, where)
    wanted.check(facts, where)
    return facts
