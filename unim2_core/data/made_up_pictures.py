"""Pictures of nothing, to hold a model's engines against where no real ones are at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from unim2_core.data.labels import Classes
from unim2_core.data.pictures import Image, Picture

BLOBS = 6
"""Rows and columns of random colours that an image is interpolated from."""
GRAIN = 12.0
"""Standard deviation of what is added to each pixel, grey levels."""


@dataclass(frozen=True)
class MadeUpPictures:
    """Soft random colours with grain; a ``PictureSource``.

    Attributes:
        modalities: their names; the first is the reference.
        encodings: modality -> what ``Encoder.from_description`` takes.
        size: height and width of every image, pixels.
        limit: number of pictures.
    """

    modalities: tuple[str, ...]
    encodings: Mapping[str, Mapping[str, Any]]
    size: tuple[int, int]
    limit: int = 4

    @property
    def label_size(self) -> tuple[int, int] | None:
        """None: there are no labels."""
        return None

    @property
    def classes(self) -> Classes | None:
        """None: there are no labels."""
        return None

    def fingerprint(self) -> str:
        """Hex digest of everything that decides the pictures."""
        rules = f"made up {self.modalities} {self.size} {self.limit} {BLOBS} {GRAIN}"
        return hashlib.sha256(rules.encode()).hexdigest()

    def __iter__(self) -> Iterator[Picture]:
        """Stream them; the same each time."""
        for number in range(self.limit):
            draw = np.random.default_rng(number)
            yield Picture(
                f"made up {number}",
                {name: self._image(draw) for name in self.modalities},
                source=number,
            )

    def _image(self, draw: np.random.Generator) -> Image:
        height, width = self.size
        colors = draw.uniform(0, 255, (BLOBS, BLOBS, 3)).astype(np.float32)
        soft = cv2.resize(colors, (width, height), interpolation=cv2.INTER_CUBIC)
        grained = soft + draw.normal(0, GRAIN, soft.shape)
        image: Image = np.clip(np.rint(grained), 0, 255).astype(np.uint8)
        return image
