"""What a model remembers of the drives that it learnt from: some places of a few pictures.

An adapted model must stay as good where it came from, long after those drives are deleted. So a
bundle carries frozen features of its own past: pictures to rehearse, and pictures that are never
learnt from again and tell whether something was lost. Few places of each picture are enough, as
the loss looks at that many; so the size is bounded, see ``LARGEST_BYTES``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from unim2_core.errors import ModelError
from unim2_core.learning.features import FeatureStore
from unim2_core.sensing.resampling import Size

REHEARSED, HELD = 48, 16
"""Pictures, at most."""
LARGEST_SIDE, SMALLEST_SIDE = 16, 8
"""Places of a picture: so many times so many."""
LARGEST_BYTES = 32 * 2**20
BLOCK, HELD_BLOCK = 5, 4
"""Pictures of a drive are held out in blocks of so many, every so manieth block: neighbours in
time look alike."""
PARTS = ("rehearsed", "held", "mirrored")


@dataclass(frozen=True, eq=False)
class Memory:
    """Features of the past, at the same places of every picture.

    The stores have the places as a grid of s x s, whose order has no meaning; ``sequences`` are
    numbers of drives, over all adaptations.

    Attributes:
        cells: (s * s,) int64, the places' indices in the grid of tokens, rising.
        grid: rows and columns of that grid.
        rehearsed: to learn from.
        held: never to learn from.
        mirrored: ``held`` as seen in a mirror, place by place; None where it is not known.
        first_drives: how many drives the first training had; they keep half of the room.
    """

    cells: NDArray[np.int64]
    grid: Size
    rehearsed: FeatureStore
    held: FeatureStore
    mirrored: FeatureStore | None
    first_drives: int

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names; the first is the reference."""
        return self.held.modalities

    @property
    def megabytes(self) -> float:
        """Of all features, 1e6 bytes."""
        stores = [self.rehearsed, self.held, *([self.mirrored] if self.mirrored else [])]
        return sum(part.nbytes for store in stores for part in store.tokens.values()) / 1e6

    @property
    def summary(self) -> str:
        """One line for people."""
        drives = len(np.unique(np.concatenate([self.rehearsed.sequences, self.held.sequences])))
        return (
            f"{len(self.rehearsed)} pictures to rehearse and {len(self.held)} held out, of "
            f"{drives} drives, {len(self.cells)} places each: {self.megabytes:.1f} MB"
        )

    @classmethod
    def of(
        cls,
        store: FeatureStore,
        mirrored: FeatureStore | None = None,
        mirrored_rows: NDArray[np.int64] | None = None,
        *,
        seed: int = 0,
    ) -> Memory:
        """Remember a training.

        Args:
            store: features of all of its pictures, whole.
            mirrored: features of some of them, left and right swapped.
            mirrored_rows: which.
            seed: of the places.

        Raises:
            ModelError: there are fewer than two pictures.
        """
        if len(store) < 2:
            raise ModelError(
                "there are too few pictures to remember",
                expected="two or more",
                found=str(len(store)),
                remedy="give more frames",
            )
        cells = draw_cells(store.grid, len(store.modalities), store.dim, seed)
        out = held_out(len(store))
        known = np.arange(len(store)) if mirrored_rows is None else mirrored_rows
        held = spread(np.intersect1d(np.flatnonzero(out), known), HELD)
        if not len(held):
            held = np.flatnonzero(out)[:HELD]
            mirrored = None
        rehearsed = spread(np.flatnonzero(~out), REHEARSED)
        swapped = None
        if mirrored is not None:
            rows = np.searchsorted(known, held)
            swapped = at_cells(mirrored, rows, mirrored_cells(cells, store.grid))
        return cls(
            cells,
            store.grid,
            at_cells(store, rehearsed, cells),
            at_cells(store, held, cells),
            swapped,
            len(np.unique(store.sequences)),
        )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """As they are written into a file of safetensors."""
        found: dict[str, NDArray[Any]] = {
            "cells": self.cells,
            "grid": np.array(self.grid, np.int64),
            "first_drives": np.array(self.first_drives, np.int64),
        }
        for part in PARTS:
            store: FeatureStore | None = getattr(self, part)
            if store is None:
                continue
            for index, name in enumerate(store.modalities):
                found[f"{part}/tokens/{index}/{name}"] = np.ascontiguousarray(store.tokens[name])
                found[f"{part}/presence/{index}/{name}"] = np.ascontiguousarray(
                    store.presence[name]
                )
            found[f"{part}/sequences"] = np.ascontiguousarray(store.sequences)
            found[f"{part}/stamps_ns"] = np.ascontiguousarray(store.stamps_ns)
        return found

    @classmethod
    def load(cls, path: Path) -> Memory:
        """Read what a bundle remembers.

        Raises:
            ModelError: the file is not there or damaged.
        """
        try:
            found = load_file(path)
            parts = {part: _store(found, part) for part in PARTS}
            rehearsed, held = parts["rehearsed"], parts["held"]
            if rehearsed is None or held is None:
                raise KeyError("rehearsed and held pictures")
            rows, columns = (int(side) for side in found["grid"])
            first = int(found["first_drives"])
            return cls(found["cells"], (rows, columns), rehearsed, held, parts["mirrored"], first)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise ModelError(
                f"cannot read what the model remembers in {path}",
                expected="the file that unim2 train or unim2 adapt wrote",
                found=str(error).splitlines()[0],
                remedy="give the drives that it was trained on with --old-bag",
            ) from error

    def joined(self, other: Memory) -> Memory:
        """Remember another past as well; the first training keeps half of the room, at least.

        Args:
            other: at the same places; its drives are counted on from those of this one.
        """
        begin = 1 + int(max(self.rehearsed.sequences.max(), self.held.sequences.max()))
        rehearsed = concatenated(self.rehearsed, numbered(other.rehearsed, begin))
        held = concatenated(self.held, numbered(other.held, begin))
        rows = shared_out(rehearsed.sequences, self.first_drives, REHEARSED)
        held_rows = shared_out(held.sequences, self.first_drives, HELD)
        mirrored = None
        if self.mirrored is not None and other.mirrored is not None:
            both = concatenated(self.mirrored, numbered(other.mirrored, begin))
            mirrored = both.take(held_rows)
        return replace(
            self, rehearsed=rehearsed.take(rows), held=held.take(held_rows), mirrored=mirrored
        )


def draw_cells(grid: Size, modalities: int, dim: int, seed: int) -> NDArray[np.int64]:
    """Places of a grid of tokens, so many that a memory is no larger than ``LARGEST_BYTES``."""
    one = (REHEARSED + 2 * HELD) * modalities * dim * 2
    side = int(np.clip(np.sqrt(LARGEST_BYTES / one), SMALLEST_SIDE, LARGEST_SIDE))
    total = int(np.prod(grid))
    side = max(1, min(side, int(np.sqrt(total))))
    drawn = np.random.default_rng(seed).choice(total, side * side, replace=False)
    return np.sort(drawn).astype(np.int64)


def mirrored_cells(cells: NDArray[np.int64], grid: Size) -> NDArray[np.int64]:
    """Where the places are in a mirrored picture."""
    rows, columns = np.divmod(cells, grid[1])
    return np.asarray(rows * grid[1] + grid[1] - 1 - columns)


def held_out(count: int) -> NDArray[np.bool_]:
    """Which of so many pictures, in their order, are never learnt from: (count,)."""
    return np.array([is_held_out(index, count) for index in range(count)], np.bool_)


def is_held_out(index: int, count: int) -> bool:
    """Whether a picture out of so many is never learnt from; of few, blocks are shorter."""
    block = max(1, min(BLOCK, count // (2 * HELD_BLOCK)))
    return index // block % HELD_BLOCK == HELD_BLOCK - 1 or (count < HELD_BLOCK and index == 1)


def spread(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most so many of the rows, spread evenly."""
    if len(rows) <= count:
        return rows
    return rows[np.linspace(0, len(rows) - 1, count).round().astype(np.int64)]


def shared_out(drives: NDArray[np.int64], first: int, room: int) -> NDArray[np.int64]:
    """The rows that stay where there is not room for all.

    Args:
        drives: (N,) number of each picture's drive.
        first: drives below it are those of the first training, to which half of the room goes.
        room: pictures that there is room for.
    """
    if len(drives) <= room:
        return np.arange(len(drives))
    old = np.flatnonzero(drives < first)
    others = [np.flatnonzero(drives == drive) for drive in np.unique(drives[drives >= first])]
    for_old = max(room // 2, room - sum(map(len, others)))
    kept = [spread(old, for_old)]
    left = room - len(kept[0])
    for index, rows in enumerate(sorted(others, key=len)):  # what the short ones leave, others get
        part = spread(rows, left // (len(others) - index))
        kept.append(part)
        left -= len(part)
    return np.sort(np.concatenate(kept))


def at_cells(
    store: FeatureStore, rows: NDArray[np.int64], cells: NDArray[np.int64]
) -> FeatureStore:
    """Some pictures at some places (s * s,), as grids of s x s, in memory, without labels."""
    side = round(np.sqrt(len(cells)))

    def drawn(array: NDArray[Any]) -> NDArray[Any]:
        flat = array[rows].reshape(len(rows), -1, *array.shape[3:])
        return np.ascontiguousarray(
            flat[:, cells].reshape(len(rows), side, side, *array.shape[3:])
        )

    return FeatureStore(
        {name: drawn(part) for name, part in store.tokens.items()},
        {name: drawn(part) for name, part in store.presence.items()},
        np.arange(len(rows)),
        np.unique(store.sequences, return_inverse=True)[1].reshape(-1)[rows],
        store.stamps_ns[rows],
    )


def numbered(store: FeatureStore, begin: int) -> FeatureStore:
    """The store with its drives counted from a number."""
    return replace(store, sequences=store.sequences + begin)


def concatenated(*stores: FeatureStore) -> FeatureStore:
    """Stores of the same modalities and grid one after the other, without labels."""

    def joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(parts)

    names = stores[0].modalities
    count = sum(map(len, stores))
    return FeatureStore(
        {name: joined([store.tokens[name] for store in stores]) for name in names},
        {name: joined([store.presence[name] for store in stores]) for name in names},
        np.arange(count),
        joined([store.sequences for store in stores]),
        joined([store.stamps_ns for store in stores]),
    )


def _store(found: Mapping[str, NDArray[Any]], part: str) -> FeatureStore | None:
    prefix = f"{part}/tokens/"
    keys = [name.removeprefix(prefix) for name in found if name.startswith(prefix)]
    if not keys:
        return None
    ordered = sorted(keys, key=lambda key: int(key.partition("/")[0]))
    names = [key.partition("/")[2] for key in ordered]
    tokens = {
        name: found[f"{prefix}{key}"].astype(np.float16, copy=False)
        for name, key in zip(names, ordered, strict=True)
    }
    presence = {
        name: found[f"{part}/presence/{key}"].astype(np.bool_)
        for name, key in zip(names, ordered, strict=True)
    }
    count = len(tokens[names[0]])
    return FeatureStore(
        tokens,
        presence,
        np.arange(count),
        found[f"{part}/sequences"].astype(np.int64),
        found[f"{part}/stamps_ns"].astype(np.int64),
    )
