"""Frozen features of many pictures: computed once, then only looked up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.labels import Classes


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """Frozen features of N pictures, in the grid of the reference; arrays may be memory-mapped.

    Attributes:
        tokens: modality -> (N, h, w, D) float16, zeros where the modality is missing; the first
            modality is the reference.
        presence: modality -> (N, h, w) bool, True where the modality sees that place.
        sources: (N,) int64, number of the image that a picture was cut from.
        sequences: (N,) int64, number of the drive or folder.
        stamps_ns: (N,) int64, -1 where not known.
        labels: (N, H, W) uint8 classes, 255 = ignored; None where there are none.
        classes: that the labels mean; None where there are none.
        names: of the pictures.
    """

    tokens: Mapping[str, NDArray[np.float16]]
    presence: Mapping[str, NDArray[np.bool_]]
    sources: NDArray[np.int64]
    sequences: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    labels: NDArray[np.uint8] | None = None
    classes: Classes | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names; the first is the reference."""
        return tuple(self.tokens)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the token grid."""
        _, height, width, _ = next(iter(self.tokens.values())).shape
        return height, width

    @property
    def dim(self) -> int:
        """Width D of a token."""
        return int(next(iter(self.tokens.values())).shape[3])


@dataclass(frozen=True, eq=False)
class Standardization:
    """What is subtracted from tokens and multiplied after that, before anything learns from them.

    Attributes:
        mean: (M, D) float32.
        scale: (M, D) float32.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def identity(cls, modalities: int, dim: int) -> Standardization:
        """The one that changes nothing, as published."""
        return cls(np.zeros((modalities, dim), np.float32), np.ones((modalities, dim), np.float32))
