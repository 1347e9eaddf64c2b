"""Other views of pictures: a model that is steady says the same of them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from unim2_core.data.labels import Classes
from unim2_core.data.pictures import Image, Picture, PictureSource
from unim2_core.sensing.warping import GridMap

_SINE_CHANNELS = {"robot": (0,), "paper": (0, 2)}
"""Of an encoded angle of polarization: a mirror turns the sign of sin 2a."""


class Mirrored:
    """Some pictures of a source with left and right swapped; a ``PictureSource``.

    Args:
        source: the pictures.
        rows: which of them, counted from 0 in the order of the source.
    """

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
        rules = f"mirrored {sorted(self._rows)} of {self._source.fingerprint()}"
        return hashlib.sha256(rules.encode()).hexdigest()

    def __iter__(self) -> Iterator[Picture]:
        """Stream them, in the order of the source."""
        last = max(self._rows, default=-1)
        for row, picture in enumerate(self._source):
            if row in self._rows:
                yield self._mirrored(picture)
            if row == last:
                return

    def _mirrored(self, picture: Picture) -> Picture:
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
