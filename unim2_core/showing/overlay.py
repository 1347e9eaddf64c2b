"""What a person looks at: classes over the image, every modality side by side."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


def overlay(image: Image, classes: Image, colors: Image, alpha: float = 0.5) -> Image:
    """Blend the colours of the classes over an image.

    Args:
        image: (H, W, 3) uint8.
        classes: (H, W) uint8 class ids.
        colors: (256, 3) uint8 look-up table.
        alpha: share of the class colour, 0 to 1.

    Returns:
        (H, W, 3) uint8.
    """
    colored = colorize(classes, colors)
    blended: Image = cv2.addWeighted(image, 1.0 - alpha, colored, alpha, 0.0)
    return blended


def colorize(classes: Image, colors: Image) -> Image:
    """Replace every class id by its colour: (H, W) uint8 -> (H, W, 3) uint8."""
    return np.take(colors, classes, axis=0)


def side_by_side(tiles: Mapping[str, Image], height: int, footer: str = "") -> Image:
    """Put titled pictures of one scene into a row.

    Args:
        tiles: title -> (h, w, 3) uint8 of any size.
        height: rows that every tile gets, pixels.
        footer: a line below all of them.

    Returns:
        (height + bars, W, 3) uint8.
    """
    row = []
    for title, tile in tiles.items():
        width = round(tile.shape[1] * height / tile.shape[0])
        scaled = cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA)
        row.append(np.vstack([_bar(title, width), scaled]))
    picture = np.hstack(row)
    return np.vstack([picture, _bar(footer, picture.shape[1])]) if footer else picture


def _bar(text: str, width: int) -> Image:
    bar = np.full((22, width, 3), 24, np.uint8)
    cv2.putText(
        bar, text, (6, 15), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (235, 235, 235), 1, cv2.LINE_AA
    )
    return bar
