"""NYU-Depth-v2: indoor RGB and depth, 40 classes merged to 13 or 4.

The published rules for one image. RGB files are stored with x and y swapped; depth comes as a
precomputed HHA image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.labels import Classes, Labels, after_ignored

# fmt: off
NYU13 = Classes(
    names=(
        "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa",
        "table", "tv", "wall", "window",
    ),
    colors=(
        (107, 142, 35), (220, 220, 0), (70, 130, 180), (128, 64, 128), (152, 251, 152),
        (244, 35, 232), (190, 153, 153), (250, 170, 30), (255, 0, 0), (220, 20, 60), (0, 0, 142),
        (70, 70, 70), (153, 153, 153),
    ),
    raw_ids=after_ignored((
        11, 4, 5, 0, 3, 8, 9, 11, 12, 5, 7, 5, 12, 9, 5, 12, 5, 6, 6, 4, 6, 2, 1, 5, 10, 6, 6, 6,
        6, 6, 6, 5, 6, 6, 6, 6, 6, 6, 5, 6,
    )),
)
NYU4 = Classes(
    names=(
        "structure", "furniture", "objects", "void",
    ),
    colors=(
        (70, 70, 70), (220, 20, 60), (190, 153, 153), (128, 128, 128),
    ),
    raw_ids=after_ignored((
        0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 2, 1, 0, 1, 1, 0, 1, 2, 2, 0, 2, 0, 2, 1, 2, 2, 2, 0, 2, 2,
        2, 1, 2, 2, 2, 2, 2, 0, 1, 2,
    )),
)
# fmt: on


def nyu_images(
    rgb_file: NDArray[np.uint8], hha_file: NDArray[np.uint8]
) -> dict[str, NDArray[np.uint8]]:
    """Modality -> (H, W, 3) uint8.

    Args:
        rgb_file: (W, H, 3) red, green, blue, as stored: transposed.
        hha_file: (H, W, 3 or 4), upright.
    """
    return {"rgb": rgb_file.transpose(1, 0, 2), "depth": hha_file[..., :3]}


def nyu_crop_labels(stored: Labels, classes: Classes) -> Labels:
    """Classes of a stored training crop, as the published loader reads them.

    The store holds classes + 1, but the loader takes these for raw ids and merges them a second
    time. Labels of crops only train the linear probe.
    """
    return classes.of(stored)
