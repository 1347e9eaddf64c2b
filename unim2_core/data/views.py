"""Other views of pictures: a model that is steady says the same of them."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from unim2_core.data.labels import Classes
from unim2_core.data.pictures import Image, Picture, PictureSource
from unim2_core.sensing.warping import GridMap

_SINE_CHANNELS = {"robot": (0,), "paper": (0, 2)}
"""Of an encoded angle of polarization: a mirror turns the sign of sin 2a."""


class _View(ABC):
    """Some pictures of a source, seen in another way; a ``PictureSource``.

    Args:
        source: the pictures.
        rows: which of them, counted from 0 in the order of the source.
    """

    _rules: str
    """What is done to a picture, for the fingerprint."""

    def __init__(self, source: PictureSource, rows: Collection[int]) -> None:
        self._source = source
        self._rows = frozenset(int(row) for row in rows)

    @property
    def modalities(self) -> tuple[str, ...]:
        """As of the source."""
        return self._source.modalities

    @property
    def encodings(self) -> Mapping[str, Mapping[str, Any]]:
        """As of the source."""
        return self._source.encodings

    @property
    def size(self) -> tuple[int, int]:
        """As of the source."""
        return self._source.size

    @property
    def label_size(self) -> tuple[int, int] | None:
        """As of the source."""
        return self._source.label_size

    @property
    def classes(self) -> Classes | None:
        """As of the source."""
        return self._source.classes

    @property
    def limit(self) -> int:
        """The most pictures that it can give."""
        return len(self._rows)

    def fingerprint(self) -> str:
        """Hex digest of everything that decides the pictures."""
        rules = f"{self._rules} {sorted(self._rows)} of {self._source.fingerprint()}"
        return hashlib.sha256(rules.encode()).hexdigest()

    def __iter__(self) -> Iterator[Picture]:
        """Stream them, in the order of the source."""
        last = max(self._rows, default=-1)
        for row, picture in enumerate(self._source):
            if row in self._rows:
                yield self.seen(picture)
            if row == last:
                return

    @abstractmethod
    def seen(self, picture: Picture) -> Picture:
        """What becomes of a picture."""


class Kept(_View):
    """Some pictures of a source as they are, decoded once and held in memory.

    Arguments as of ``_View``.
    """

    _rules = "kept"

    def __init__(self, source: PictureSource, rows: Collection[int]) -> None:
        super().__init__(source, rows)
        self._pictures = tuple(super().__iter__())

    @property
    def limit(self) -> int:
        """How many there are."""
        return len(self._pictures)

    def __iter__(self) -> Iterator[Picture]:
        """Give them, in the order of the source."""
        return iter(self._pictures)

    def seen(self, picture: Picture) -> Picture:
        """What becomes of a picture."""
        return picture


class Mirrored(_View):
    """Some pictures of a source with left and right swapped; arguments as of ``_View``."""

    _rules = "mirrored"

    def seen(self, picture: Picture) -> Picture:
        """What becomes of a picture."""
        return replace(
            picture,
            name=f"{picture.name} mirrored",
            images={name: self._image(name, image) for name, image in picture.images.items()},
            valid={name: np.ascontiguousarray(v[:, ::-1]) for name, v in picture.valid.items()},
            maps={name: mirrored_map(grid_map) for name, grid_map in picture.maps.items()},
            labels=None
            if picture.labels is None
            else np.ascontiguousarray(picture.labels[:, ::-1]),
        )

    def _image(self, name: str, image: Image) -> Image:
        swapped = np.ascontiguousarray(image[:, ::-1])
        encoding = self.encodings[name]
        if encoding["modality"] == "aolp":
            for channel in _SINE_CHANNELS[encoding["preset"]]:
                swapped[..., channel] = 255 - swapped[..., channel]
        return swapped


def mirrored_map(grid_map: GridMap) -> GridMap:
    """The map between two cameras whose images are both mirrored."""
    coordinates = grid_map.coordinates[:, ::-1].copy()
    valid = np.ascontiguousarray(grid_map.valid[:, ::-1])
    coordinates[..., 0] = np.where(
        valid, grid_map.source[1] - 1 - coordinates[..., 0], coordinates[..., 0]
    )
    return GridMap(coordinates, valid, grid_map.source)


class Cropped(_View):
    """The middle of some pictures of a source, without labels; a ``PictureSource``.

    Cut along the cells of the token grid, so that a token of the crop has its counterpart among
    those of the whole picture: the two differ in what the backbone saw around the place.

    Args:
        source: the pictures.
        rows: which of them, counted from 0 in the order of the source.
        patch_size: pixels of a token's side.
    """

    def __init__(self, source: PictureSource, rows: Collection[int], patch_size: int) -> None:
        super().__init__(source, rows)
        height, width = source.size
        self._patch = patch_size
        self._cells = middle((height // patch_size, width // patch_size))
        self._rules = f"middle {self._cells}, patches of {patch_size},"

    @property
    def size(self) -> tuple[int, int]:
        """Of the crops."""
        height, width = (cells.stop - cells.start for cells in self._cells)
        return height * self._patch, width * self._patch

    @property
    def label_size(self) -> None:
        """None: labels are left out."""

    @property
    def classes(self) -> None:
        """None: labels are left out."""

    def seen(self, picture: Picture) -> Picture:
        """What becomes of a picture."""
        pixels = tuple(
            slice(cells.start * self._patch, cells.stop * self._patch) for cells in self._cells
        )
        return replace(
            picture,
            name=f"{picture.name} cropped",
            images={n: np.ascontiguousarray(i[pixels]) for n, i in picture.images.items()},
            valid={n: np.ascontiguousarray(v[pixels]) for n, v in picture.valid.items()},
            maps={n: cropped_map(grid_map, self._cells) for n, grid_map in picture.maps.items()},
            labels=None,
        )


def middle(grid: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the middle of a grid, half as high and as wide, at least one cell."""
    halves = [max(1, count // 2) for count in grid]
    rows, columns = (
        slice((count - half) // 2, (count - half) // 2 + half)
        for count, half in zip(grid, halves, strict=True)
    )
    return rows, columns


def cropped_map(grid_map: GridMap, cells: tuple[slice, slice]) -> GridMap:
    """The map between two cameras whose images are both cut to these cells."""
    rows, columns = cells
    shift = np.array([columns.start, rows.start], np.float32)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    return GridMap.within(
        grid_map.coordinates[cells] - shift, grid_map.valid[cells], (height, width)
    )
