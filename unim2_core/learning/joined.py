"""Features of several stores as those of one."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError
from unim2_core.learning.features import Features, Read

READERS = 16
"""Stores that are read at once where they are behind an address."""


class Joined:
    """Features one after the other, as those of one store; ``Features``.

    Args:
        parts: of the same grid and modalities; sources and drives are numbered on.
    """

    labels = None

    def __init__(self, parts: Sequence[Features]) -> None:
        self.parts = tuple(parts)
        first = self.parts[0]
        self.modalities, self.grid, self.dim = first.modalities, first.grid, first.dim
        self._starts = np.cumsum([0, *(len(part) for part in self.parts)])
        self.sources = _numbered_on([part.sources for part in self.parts])
        self.sequences = _numbered_on([part.sequences for part in self.parts])
        self.stamps_ns = np.concatenate([part.stamps_ns for part in self.parts])

    @property
    def remote(self) -> bool:
        """Whether some are behind an address."""
        return any(part.remote for part in self.parts)

    @property
    def complete(self) -> bool:
        """Whether every modality sees every place of every picture."""
        return all(part.complete for part in self.parts)

    @property
    def absent(self) -> tuple[str, ...]:
        """Modalities that are in none of the pictures."""
        never = [set(part.absent) for part in self.parts]
        return tuple(name for name in self.modalities if all(name in one for one in never))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, rows: NDArray[np.int64], cells: NDArray[np.int64] | None = None) -> Read:
        """Read pictures, several parts at once, see ``Features``."""
        shape = (len(rows), *(self.grid if cells is None else cells.shape[1:]))
        found = Read(
            {name: np.empty((*shape, self.dim), np.float16) for name in self.modalities},
            {name: np.empty(shape, np.bool_) for name in self.modalities},
        )

        def fill(part: Features, numbers: NDArray[np.int64], places: NDArray[np.int64]) -> None:
            read = part.read(numbers, None if cells is None else cells[places])
            for name in self.modalities:
                found.tokens[name][places] = read.tokens[name]
                found.presence[name][places] = read.presence[name]

        asked = self._asked(rows)
        if not any(part.remote for part, _, _ in asked):
            for one in asked:
                fill(*one)
        else:  # each waits for the network
            with ThreadPoolExecutor(READERS) as pool:
                for _ in pool.map(lambda one: fill(*one), asked):
                    pass
        return found

    def check(self, rows: NDArray[np.int64]) -> None:
        """Hold pictures against their checksums, see ``Features``."""
        for part, numbers, _ in self._asked(rows):
            part.check(numbers)

    def only(self, modalities: Sequence[str]) -> Joined:
        """The features of some of the modalities, see ``Features``."""
        return Joined([part.only(modalities) for part in self.parts])

    def _asked(
        self, rows: NDArray[np.int64]
    ) -> list[tuple[Features, NDArray[np.int64], NDArray[np.int64]]]:
        """Each part that has some of the rows, their numbers in it, and places among the rows."""
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        return [
            (self.parts[part], rows[places] - self._starts[part], places)
            for part in np.unique(owner).tolist()
            for places in [np.flatnonzero(owner == part)]
        ]


def check_alike(fleet: Joined, store: Features) -> None:
    """Check that shards and pictures at hand have one grid and one width of tokens.

    Raises:
        ModelError: they differ.
    """
    if (fleet.grid, fleet.dim) != (store.grid, store.dim):
        raise ModelError(
            "features of the fleet do not fit those at hand",
            expected=f"a grid of {store.grid}, tokens of {store.dim}",
            found=f"{fleet.grid}, {fleet.dim}",
            remedy="run unim2 fleet features again with the --size of the pictures at hand",
        )


def _numbered_on(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Numbers one after the other; those of one part are different from those of another."""
    found, begin = [], 0
    for part in parts:
        found.append(part + begin)
        begin += int(part.max(initial=-1)) + 1
    return np.concatenate(found)
