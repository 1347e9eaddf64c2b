"""A confusion matrix as a picture, with the names of the classes."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

CELL = 46
MARGIN = 14
LINE = 24
_FONT, _SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5
_INK, _PAPER, _NOTHING = (30, 30, 30), (255, 255, 255), (225, 225, 225)
_FULL = np.array((8, 64, 129), np.float64)
"""Colour of a share of one."""


def confusion_picture(
    shares: NDArray[np.float64], rows: Sequence[str], columns: Sequence[str], title: str = ""
) -> Image:
    """Draw a matrix of shares, in percent.

    Args:
        shares: (R, C) in [0, 1]; NaN = nothing to say, drawn grey.
        rows: names of the true classes.
        columns: names of the predicted ones.
        title: a line above.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    left = MARGIN + LINE + max(_width(name) for name in rows) + 8
    labels = max(_width(name) for name in columns)
    top = MARGIN + (LINE if title else 0) + LINE + labels + 8
    height = top + CELL * len(rows) + MARGIN
    width = max(left + CELL * len(columns), MARGIN + _width(title)) + MARGIN
    picture = np.full((height, width, 3), 255, np.uint8)
    if title:
        _write(picture, title, MARGIN, MARGIN + 12)
    _write(picture, "predicted", left, top - labels - 16)
    middle = top + (CELL * len(rows) + _width("true")) // 2
    _write_upwards(picture, "true", MARGIN, middle)
    for row, name in enumerate(rows):
        baseline = top + CELL * row + CELL // 2 + 5
        _write(picture, name, left - 8 - _width(name), baseline)
    for column, name in enumerate(columns):
        _write_upwards(picture, name, left + CELL * column + CELL // 2 - 8, top - 6)
    for row, values in enumerate(shares.tolist()):
        for column, share in enumerate(values):
            _cell(picture, left + CELL * column, top + CELL * row, share)
    return picture


def _cell(picture: Image, x: int, y: int, share: float) -> None:
    inside = picture[y + 1 : y + CELL, x + 1 : x + CELL]
    if np.isnan(share):
        inside[:] = _NOTHING
        return
    inside[:] = np.round(255 + (_FULL - 255) * share)
    if share == 0:
        return
    text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
    ink = _PAPER if share > 0.5 else _INK
    _write(picture, text, x + (CELL - _width(text)) // 2, y + CELL // 2 + 5, ink)


def _width(text: str) -> int:
    return int(cv2.getTextSize(text, _FONT, _SCALE, 1)[0][0])


def _write(picture: Image, text: str, x: int, y: int, ink: tuple[int, int, int] = _INK) -> None:
    cv2.putText(picture, text, (x, y), _FONT, _SCALE, ink, 1, cv2.LINE_AA)


def _write_upwards(picture: Image, text: str, x: int, y: int) -> None:
    """Text that reads from the bottom to the top and begins at y."""
    strip = np.full((16, _width(text) + 2, 3), 255, np.uint8)
    _write(strip, text, 0, 12)
    turned = cv2.rotate(strip, cv2.ROTATE_90_COUNTERCLOCKWISE)
    picture[y - turned.shape[0] : y, x : x + turned.shape[1]] = turned
