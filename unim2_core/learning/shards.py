"""Features of a fleet's drives, learnt from where they lie.

Each drive's store is a shard. Those on a disk or a shared file system are memory-mapped, those
behind an address are read record by record; none is copied, and memory holds the pictures that are
asked for, and of each picture one descriptor. Every record is held against its checksum before
anything is learnt from it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import DataError
from unim2_core.learning.feature_files import Journal, Records, Row
from unim2_core.learning.features import Read, check_there, gathered
from unim2_core.learning.joined import Joined
from unim2_core.learning.store_facts import AGAIN, StoreFacts

Warn = Callable[[str], object]


class RecordReader(Protocol):
    """Gives records of a shard.

    Attributes:
        remote: whether they are behind an address.
    """

    remote: bool

    def at(self, numbers: NDArray[np.int64]) -> tuple[Records, NDArray[np.int64]]:
        """An array that has the records, and their places in it."""
        ...

    def check(self, numbers: NDArray[np.int64]) -> None:
        """Hold records against their checksums, where giving them does not.

        Raises:
            DataError: one is damaged.
        """
        ...


@dataclass(frozen=True, eq=False)
class Shard:
    """Features of one drive; ``Features``.

    Attributes:
        facts: what the store says of itself.
        where: folder or address.
        rows: of its pictures.
        checksums: of its records.
        records: reads them.
        modalities: that are looked at.
    """

    facts: StoreFacts
    where: str
    rows: tuple[Row, ...]
    checksums: tuple[int, ...]
    records: RecordReader
    modalities: tuple[str, ...]

    labels = None

    @cached_property
    def identity(self) -> str:
        """Hex digest of all that it holds, wherever it lies."""
        digest = hashlib.sha256(self.facts.dump())
        for row, checksum in zip(self.rows, self.checksums, strict=True):
            digest.update(json.dumps({**asdict(row), "checksum": checksum}).encode())
        return digest.hexdigest()

    @property
    def remote(self) -> bool:
        """Whether it is behind an address."""
        return self.records.remote

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the token grid."""
        return self.facts.layout.grid

    @property
    def dim(self) -> int:
        """Width D of a token."""
        return self.facts.layout.dim

    @property
    def sources(self) -> NDArray[np.int64]:
        """Number of the image that a picture was cut from, (N,)."""
        return np.array([row.source for row in self.rows], np.int64)

    @property
    def sequences(self) -> NDArray[np.int64]:
        """Number of the drive, (N,)."""
        return np.array([row.sequence for row in self.rows], np.int64)

    @property
    def stamps_ns(self) -> NDArray[np.int64]:
        """(N,), -1 where not known."""
        return np.array([row.stamp_ns for row in self.rows], np.int64)

    @property
    def complete(self) -> bool:
        """Whether every modality sees every place of every picture."""
        return all(self.facts.seen[name] == "everywhere" for name in self.modalities)

    @property
    def absent(self) -> tuple[str, ...]:
        """Modalities that are in none of the pictures."""
        return tuple(name for name in self.modalities if self.facts.seen[name] == "nowhere")

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, rows: NDArray[np.int64], cells: NDArray[np.int64] | None = None) -> Read:
        """Read pictures, see ``Features``."""
        records, places = self.records.at(rows)
        return Read(
            {name: gathered(records[f"tokens/{name}"], places, cells) for name in self.modalities},
            {
                name: gathered(records[f"presence/{name}"], places, cells)
                for name in self.modalities
            },
        )

    def check(self, rows: NDArray[np.int64]) -> None:
        """Hold pictures against their checksums, see ``Features``."""
        self.records.check(rows)

    def only(self, modalities: Sequence[str]) -> Shard:
        """The features of some of the modalities, see ``Features``."""
        check_there(modalities, self.facts.layout.modalities)
        return replace(self, modalities=tuple(modalities))


class Fleet(Joined):
    """The shards of a fleet, in an order that does not depend on where or how they were found.

    Args:
        shards: at least one.
    """

    def __init__(self, shards: Sequence[Shard]) -> None:
        self.shards = sorted(shards, key=_order)
        super().__init__(self.shards)

    @property
    def identity(self) -> str:
        """Hex digest of all that they hold."""
        together = "\n".join(shard.identity for shard in self.shards)
        return hashlib.sha256(together.encode()).hexdigest()


@dataclass(frozen=True)
class Wanted:
    """What shards must be like, so that they can be learnt from with what is at hand.

    Attributes:
        backbone: digest of the network.
        backbone_name: for messages.
        encodings: of each modality.
        size: height and width of the images.
        reference: sensor of the rig into whose image the others are registered.
    """

    backbone: str
    backbone_name: str
    encodings: dict[str, dict[str, object]]
    size: tuple[int, int]
    reference: str

    def check(self, facts: StoreFacts, where: str) -> None:
        """Hold a shard against it.

        Raises:
            DataError: it does not fit.
        """
        names = facts.layout.modalities
        pairs = {
            "of another backbone": (
                facts.backbone == self.backbone,
                f"{self.backbone_name}, {self.backbone[:16]}",
                f"{facts.backbone_name}, {facts.backbone[:16]}",
                f"give its backbone with --backbone, or {AGAIN}",
            ),
            "of other modalities": (
                set(self.encodings) <= set(names),
                ", ".join(self.encodings),
                ", ".join(names),
                f"name some of these with --modalities, or {AGAIN}",
            ),
            "registered into another sensor": (
                facts.reference == self.reference,
                f"{self.reference}, the reference of the rig of --bag",
                facts.reference,
                f"give a rig file with that reference, or {AGAIN}",
            ),
            "of images of another size": (
                facts.size == tuple(self.size),
                f"{self.size[0]}x{self.size[1]}, as of --bag",
                f"{facts.size[0]}x{facts.size[1]}",
                f"--size {facts.size[0]}x{facts.size[1]}, or {AGAIN}",
            ),
        }
        for name, how in self.encodings.items():
            found = facts.encodings.get(name)
            pairs[f"of {name} encoded in another way"] = (
                json.loads(json.dumps(how)) == found,
                json.dumps(how),
                json.dumps(found),
                f"the same --preset as in unim2 fleet features, or {AGAIN}",
            )
        for what, (holds, expected, other, remedy) in pairs.items():
            if not holds:
                raise DataError(
                    f"the features of {facts.name} are {what} ({where})",
                    expected=expected,
                    found=other,
                    remedy=remedy,
                )


def _order(shard: Shard) -> tuple[str, str]:
    """By what it is; where it lies plays no part."""
    return shard.facts.name, shard.identity


def chosen_shards(shards: Sequence[Shard], at_hand: Sequence[str], warn: Warn) -> Fleet:
    """The shards to learn from beside drives at hand, each drive once.

    Args:
        shards: all that were found.
        at_hand: digests of the drives whose pictures are there themselves.
        warn: called with what is left out, and with what looks odd.

    Raises:
        DataError: nothing is left.
    """
    known, kept, digests = set(at_hand), list[Shard](), set[str]()
    for shard in sorted(shards, key=_order):
        drives = {digest for _, digest in shard.facts.drives}
        if drives & known:
            warn(f"{shard.facts.name} is given with --bag: its features are taken from there")
        elif drives & digests:
            warn(f"{shard.facts.name} is there twice: {shard.where} is left out")
        else:
            digests |= drives
            kept.append(shard)
    if not kept:
        raise DataError(
            "there is nothing to learn from in --features beside --bag",
            expected="features of other drives",
            found=f"{len(shards)} shards, all of the drives of --bag",
            remedy="leave out --features, or give one of the drives alone with --bag",
        )
    for name, same in groupby(kept, key=lambda shard: shard.facts.name):
        count = len(list(same))
        if count > 1:
            warn(
                f"{count} different drives are called {name}; if it was recorded again, delete "
                "the features of the older recording"
            )
    return Fleet(kept)


def opened(
    facts: StoreFacts,
    journal: Journal,
    size: int | None,
    where: str,
    records: Callable[[tuple[Row, ...], tuple[int, ...]], RecordReader],
) -> Shard:
    """A shard, once it is sure that it is whole.

    Args:
        facts: what it says of itself.
        journal: of it.
        size: bytes of its records' file; None where it is missing.
        where: folder or address.
        records: makes what reads the records.

    Raises:
        DataError: something of it is missing.
    """
    if not facts.drives:
        raise DataError(
            f"the features in {where} are of no drive",
            expected="features that unim2 fleet features wrote",
            found="those of other pictures",
            remedy="give the folder of --out, or the address of --to",
        )
    count = journal.pictures
    needed = (count or 0) * facts.layout.record.itemsize
    if count is None or not journal.complete or size != needed:
        of = "an unknown number" if count is None else str(count)
        held = "no file" if size is None else f"{size} bytes"
        raise DataError(
            f"the features of {facts.name} are incomplete ({where})",
            expected=f"{of} pictures in {needed} bytes",
            found=f"{len(journal.rows)} pictures, {held}",
            remedy=f"delete it to do without this drive, or {AGAIN}",
        )
    entries = [journal.rows[number] for number in range(count)]
    rows, checksums = tuple(row for row, _ in entries), tuple(known for _, known in entries)
    return Shard(facts, where, rows, checksums, records(rows, checksums), facts.layout.modalities)


def damaged(facts: StoreFacts, where: str, row: Row, expected: int, found: str) -> DataError:
    """The error for a record that does not fit its checksum."""
    return DataError(
        f"the features of {facts.name} are damaged ({where})",
        expected=f"a record of the picture {row.name} with the checksum {expected}",
        found=found,
        remedy=f"delete them to do without this drive, or {AGAIN}",
    )
