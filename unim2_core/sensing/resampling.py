"""Changing the size of images: the published nearest rule, and averages that know what is valid.

Sizes are (height, width) in pixels, as in ``array.shape``.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]
Indices = NDArray[np.intp]


def nearest_indices(length: int, resized: int) -> Indices:
    """Source index of each output pixel of Pillow's nearest resize along one axis.

    Pillow starts at half a step and *adds* the step for every pixel; the closed form
    ``floor((i + 0.5) * step)`` differs from the sum at ties, for example 640 -> 426.

    Args:
        length: pixels in the source, > 0.
        resized: pixels in the output, > 0.

    Returns:
        (resized,) in [0, length).
    """
    steps = np.full(resized, length / resized, np.float64)
    steps[0] *= 0.5
    return np.cumsum(steps).astype(np.intp)


def covering_size(source: Size, size: Size) -> Size:
    """The size with the source's aspect that just covers ``size``, other side rounded down.

    For a square ``size`` this is torchvision's "shorter side to n, other side int(n * long /
    short)".
    """
    height, width = source
    if height * size[1] <= width * size[0]:
        return size[0], int(size[0] * width / height)
    return int(size[1] * height / width), size[1]


@lru_cache(maxsize=64)
def published_grid(source: Size, size: Size) -> tuple[Indices, Indices]:
    """Source rows and columns that the published nearest resize and centre crop keep.

    Args:
        source: size of the image.
        size: size wanted; the published method only uses squares.

    Returns:
        Rows (size[0],) and columns (size[1],), read-only, as the two are cached.
    """
    resized = covering_size(source, size)
    grid = []
    for length, covered, kept in zip(source, resized, size, strict=True):
        start = round((covered - kept) / 2)  # half to even, as torchvision's centre crop
        indices = nearest_indices(length, covered)[start : start + kept]
        indices.flags.writeable = False
        grid.append(indices)
    return grid[0], grid[1]


def resize_published(image: NDArray[Any], size: Size) -> NDArray[Any]:
    """Resize an image or label map as the published method does: nearest, then centre crop.

    Args:
        image: (H, W) or (H, W, C), any dtype.
        size: size of the result.
    """
    rows, columns = published_grid((image.shape[0], image.shape[1]), size)
    return image[rows[:, None], columns]


def resize(image: NDArray[Any], size: Size) -> NDArray[Any]:
    """Resize with area averaging along axes that shrink and bilinearly along axes that grow.

    Args:
        image: (H, W) or (H, W, C), uint8, uint16 or float32.
        size: size of the result; the aspect may change.

    Returns:
        Same dtype; the image itself where it has the size already.
    """
    source: Size = (image.shape[0], image.shape[1])
    # OpenCV's INTER_AREA stops averaging as soon as one axis grows: shrink first, then grow.
    smaller = (min(source[0], size[0]), min(source[1], size[1]))
    if smaller != source:
        image = cv2.resize(image, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller != size:
        image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    return image


def resize_valid(
    values: NDArray[np.float32], valid: NDArray[np.bool_] | None, size: Size
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Resize values so that an output pixel is the mean of the *valid* pixels under it.

    Args:
        values: (H, W) or (H, W, C) float32, finite everywhere.
        valid: (H, W) bool; None = all.
        size: size of the result.

    Returns:
        The values, 0 where not valid, and the mask: True where at least half of the pixel's
        area was valid, so that the outline of a hole stays where it was. The mask is None where
        all of it is valid.
    """
    if valid is None:
        return resize(values, size), None
    weight = valid.astype(np.float32)
    share = resize(weight, size)
    resized_valid = share >= 0.5
    if values.ndim == 3:
        weight, share = weight[..., None], share[..., None]
    # 0.5 only ever replaces shares that are cut away: no division by zero, no branch.
    mean = resize(values * weight, size) / np.maximum(share, 0.5)
    if resized_valid.all():
        return mean, None
    mean *= resized_valid if values.ndim == 2 else resized_valid[..., None]
    return mean, resized_valid


def five_crop_boxes(height: int, width: int, ratio: float) -> NDArray[np.int64]:
    """The published five crops of a training image.

    Args:
        height: of the image.
        width: of the image.
        ratio: side of a crop over the side of the image, in (0, 1].

    Returns:
        (5, 4): top, left, height, width of the corners TL, TR, BL, BR and of the centre.
    """
    h, w = int(height * ratio), int(width * ratio)
    bottom, right = height - h, width - w
    centre = (round(bottom / 2), round(right / 2))  # half to even
    corners = [(0, 0), (0, right), (bottom, 0), (bottom, right), centre]
    return np.array([(top, left, h, w) for top, left in corners], np.int64)


def random_crop_boxes(item: int, height: int, width: int, ratio: float) -> NDArray[np.int64]:
    """The published "random" crops: a function of the image's index and nothing else.

    The rule is CPython's hash of a tuple of integers, the same on every 64 bit build.

    Returns:
        (5, 4): top, left, height, width.
    """
    h, w = int(height * ratio), int(width * ratio)
    rows, columns = max(height - h, 1), max(width - w, 1)
    crops = [(hash((item, crop, 0)) % rows, hash((item, crop, 1)) % columns) for crop in range(5)]
    return np.array([(top, left, h, w) for top, left in crops], np.int64)
