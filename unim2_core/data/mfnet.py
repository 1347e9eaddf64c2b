"""MFNet: road scenes, RGB and thermal in one four-channel file.

The published rules for one image.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.labels import Classes, after_ignored

# fmt: off
MFNET = Classes(
    names=(
        "car", "person", "bike", "curve", "car_stop", "guardrail", "color_cone", "bump",
    ),
    colors=(
        (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 192), (128, 128, 0), (64, 64, 128),
        (192, 128, 128), (192, 64, 0),
    ),
    raw_ids=after_ignored(range(8)),
)
# fmt: on

FLIPPED = "_flip"


def source_of(name: str) -> tuple[str, bool]:
    """The file that a listed name stands for, and whether it is to be mirrored.

    The lists hold names such as ``00001D_flip``, for which there is no file.
    """
    return name.removesuffix(FLIPPED), name.endswith(FLIPPED)


def mirrored(image: NDArray[Any]) -> NDArray[Any]:
    """Image or labels (H, W, ...) with left and right swapped."""
    return image[:, ::-1]


def mfnet_images(file: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Modality -> (H, W, 3) uint8.

    Args:
        file: (H, W, 4) red, green, blue, thermal.
    """
    return {"rgb": file[..., :3], "thermal": np.repeat(file[..., 3:], 3, axis=2)}
