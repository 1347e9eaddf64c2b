"""MCubeS: street scenes, RGB, near infrared and polarization. The published rules for one image.

All files lose their first 192 columns, which not every camera sees.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.labels import Classes
from unim2_core.sensing.paper_encoding import high_byte, stretch, stretched_angle, three_times

# fmt: off
MCUBES = Classes(
    names=(
        "asphalt", "concrete", "metal", "road_marking", "fabric", "glass", "plaster", "plastic",
        "rubber", "sand", "gravel", "ceramic", "cobblestone", "brick", "grass", "wood", "leaf",
        "water", "human", "sky",
    ),
    colors=(
        (44, 160, 44), (31, 119, 180), (255, 127, 14), (214, 39, 40), (140, 86, 75),
        (127, 127, 127), (188, 189, 34), (255, 152, 150), (23, 190, 207), (174, 199, 232),
        (196, 156, 148), (197, 176, 213), (247, 182, 210), (199, 199, 199), (219, 219, 141),
        (158, 218, 229), (57, 59, 121), (107, 110, 207), (156, 158, 222), (99, 121, 57),
    ),
    raw_ids=tuple(range(20)),
)
# fmt: on

UNSEEN_COLUMNS = 192


def seen(file: NDArray[Any]) -> NDArray[Any]:
    """Image or labels (H, W, ...) without the columns that not every camera sees."""
    return file[:, UNSEEN_COLUMNS:]


def mcubes_images(
    rgb: NDArray[np.uint16],
    nir: NDArray[np.uint16],
    aolp_sin: NDArray[Any],
    aolp_cos: NDArray[Any],
    dolp: NDArray[Any],
) -> dict[str, NDArray[np.uint8]]:
    """Modality -> (H, W, 3) uint8.

    Args:
        rgb: (H, W, 3) red, green, blue of ``polL_color``, 16 bit.
        nir: (H, W) of ``NIR_warped``, 16 bit.
        aolp_sin: (H, W) of ``polL_aolp_sin``, the sine as stored.
        aolp_cos: (H, W) of ``polL_aolp_cos``.
        dolp: (H, W) of ``polL_dolp``.
    """
    return {
        "rgb": high_byte(rgb),
        "nir": three_times(high_byte(nir)),
        "aolp": stretched_angle(aolp_sin, aolp_cos),
        "dolp": three_times(stretch(dolp)),
    }
