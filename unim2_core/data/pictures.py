"""Pictures to learn from or to be measured on, whatever they come from: files, crops or drives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.labels import Classes
from unim2_core.sensing.warping import GridMap

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of every modality, as the backbone takes it.

    Attributes:
        name: which one, for messages.
        images: modality -> (H, W, 3) uint8, each encoded in its own camera; one that is missing
            is left out.
        valid: modality -> (H, W) bool, False where nothing was measured; left out = all valid.
        maps: modality -> where the cells of the reference's token grid are in its own; left out =
            aligned.
        labels: (H', W') uint8 classes, 255 = ignored; None where there are none. Only ever used
            to report.
        source: number of the image that this was cut from: crops of one image share it.
        sequence: number of the drive or folder that it comes from.
        stamp_ns: when it was taken; -1 where that is not known.
    """

    name: str
    images: Mapping[str, Image]
    valid: Mapping[str, Mask] = field(default_factory=dict)
    maps: Mapping[str, GridMap] = field(default_factory=dict)
    labels: NDArray[np.uint8] | None = None
    source: int = 0
    sequence: int = 0
    stamp_ns: int = -1


class PictureSource(Protocol):
    """Pictures of one size, streamed in a fixed order.

    Attributes:
        modalities: their names; the first is the reference.
        encodings: modality -> what ``Encoder.from_description`` takes, for a model's manifest.
        size: height and width of every image, pixels.
        label_size: height and width of the labels; None where there are none.
        classes: that the labels mean; None where there are none.
        limit: the most pictures that it can give; drives may give fewer.
    """

    @property
    def modalities(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def encodings(self) -> Mapping[str, Mapping[str, Any]]: ...  # noqa: D102
    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def label_size(self) -> tuple[int, int] | None: ...  # noqa: D102
    @property
    def classes(self) -> Classes | None: ...  # noqa: D102
    @property
    def limit(self) -> int: ...  # noqa: D102

    def fingerprint(self) -> str:
        """Hex digest of everything that decides the pictures: file contents, encodings, crops."""
        ...

    def __iter__(self) -> Iterator[Picture]:
        """Stream them; the order and the content are the same each time."""
        ...
