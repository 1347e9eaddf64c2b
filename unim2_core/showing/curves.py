"""Curves and bars as a picture, drawn with OpenCV: nothing more is needed to look at a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.showing.palette import distinct_colors

Image = NDArray[np.uint8]

INK, FAINT, PAPER = (30, 30, 30), (200, 200, 200), 255
FONT, SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4
LINE_PX = 18


def curves(series: Mapping[str, Sequence[float]], title: str, size: tuple[int, int]) -> Image:
    """Draw curves over a common axis; each is scaled to its own range, which is written beside it.

    Args:
        series: name -> values; what is not finite is left out.
        title: above them.
        size: height and width of the picture, pixels.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = size
    picture = np.full((height, width, 3), PAPER, np.uint8)
    legend = 300
    left, right, top, bottom = 12, width - legend, 34, height - 14
    write(picture, title, (12, 20))
    cv2.rectangle(picture, (left, top), (right, bottom), FAINT, 1)
    for index, (name, values) in enumerate(series.items()):
        color = distinct_colors(len(series))[index]
        array = np.asarray(values, np.float64)
        there = np.flatnonzero(np.isfinite(array))
        if not len(there):
            continue
        low, high = array[there].min(), array[there].max()
        span = (high - low) or 1.0
        x = left + 4 + there / max(1, len(array) - 1) * (right - left - 8)
        y = bottom - 4 - (array[there] - low) / span * (bottom - top - 8)
        points = np.stack([x, y], axis=1).round().astype(np.int32)
        cv2.polylines(picture, [points[:, None]], False, color, 1, cv2.LINE_AA)
        text = f"{name}: {array[there[0]]:.3f} to {array[there[-1]]:.3f}"
        write(picture, text, (right + 10, top + 12 + LINE_PX * index), color)
    return picture


def lines(texts: Sequence[tuple[str, bool]], title: str, width: int) -> Image:
    """Write lines of text, those that stand out in red.

    Args:
        texts: line and whether it stands out.
        title: above them.
        width: of the picture, pixels.

    Returns:
        (H, W, 3) uint8.
    """
    picture = np.full((34 + LINE_PX * len(texts), width, 3), PAPER, np.uint8)
    write(picture, title, (12, 20))
    for index, (text, stands_out) in enumerate(texts):
        color = (200, 30, 30) if stands_out else INK
        write(picture, text, (12, 42 + LINE_PX * index), color)
    return picture


def write(
    picture: Image, text: str, at: tuple[int, int], color: tuple[int, int, int] = INK
) -> None:
    """Write a line into a picture, its left lower corner at (x, y)."""
    cv2.putText(picture, text, at, FONT, SCALE, color, 1, cv2.LINE_AA)
