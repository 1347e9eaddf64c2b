"""The classes of a labelled data set: names, colours, and the ids that its files use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import DataError

IGNORED = 255
Labels = NDArray[np.uint8]


@dataclass(frozen=True)
class Classes:
    """Classes that are measured, and how the raw ids of label files map to them.

    Attributes:
        names: of the classes; class i is ``names[i]``.
        colors: red, green, blue of each class, for people to look at.
        raw_ids: class of raw id i; a raw id beyond the end is ignored.
    """

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    raw_ids: tuple[int, ...]

    def of(self, raw: Labels) -> Labels:
        """Raw ids (H, W) uint8 to classes (H, W) uint8, 255 = ignored."""
        table = np.full(256, IGNORED, np.uint8)
        table[: len(self.raw_ids)] = self.raw_ids
        return table[raw]


def stored_crop(labels: Labels) -> Labels:
    """Classes as the published crop store keeps them: class + 1, 0 = ignored."""
    return labels + np.uint8(1)  # 255 wraps round to 0


def loaded_crop(stored: Labels) -> Labels:
    """Inverse of ``stored_crop``."""
    return stored - np.uint8(1)


def after_ignored(classes: Sequence[int]) -> tuple[int, ...]:
    """Raw ids of a data set whose id 0 means "no label"."""
    return (IGNORED, *classes)


def raw_labels(file: NDArray[Any], path: Path) -> Labels:
    """The ids of a label file: the first channel, as the published loaders take it.

    Args:
        file: (H, W) or (H, W, C).
        path: of the file, for the message.

    Returns:
        (H, W) uint8.

    Raises:
        DataError: it is not of 8 bits.
    """
    if file.dtype != np.uint8:
        raise DataError(
            f"{path} is not a label image of this data set",
            expected="8 bit ids",
            found=f"{file.dtype} of shape {file.shape}",
            remedy="use the label files of the published data set",
        )
    return file if file.ndim == 2 else np.ascontiguousarray(file[..., 0])
