"""Horizontal bars in two colours, for times that add up."""

from __future__ import annotations

from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

ROW, BAR, MARGIN, LENGTH = 34, 22, 16, 520
_FONT, _SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.5
_INK = (30, 30, 30)
_COLORS = ((31, 94, 168), (240, 160, 60), (120, 160, 90), (160, 90, 150), (120, 120, 120))


def bars_picture(rows: Mapping[str, Mapping[str, float]], title: str, unit: str) -> Image:
    """Draw a bar for each row, its parts one after the other.

    Args:
        rows: name -> part -> length, not negative; all rows have the same parts.
        title: a line above.
        unit: of the lengths.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    parts = list(next(iter(rows.values())))
    left = MARGIN + max(map(_width, rows)) + 10
    longest = max(sum(row.values()) for row in rows.values()) or 1.0
    totals = {name: f"{sum(row.values()):.1f} {unit}" for name, row in rows.items()}
    width = max(left + LENGTH + 10 + max(map(_width, totals.values())), MARGIN + _width(title))
    top = MARGIN + 2 * ROW
    picture = np.full((top + ROW * len(rows) + MARGIN, width + MARGIN, 3), 255, np.uint8)
    _write(picture, title, MARGIN, MARGIN + 14)
    x = left
    for part, color in zip(parts, _COLORS, strict=False):
        picture[MARGIN + ROW : MARGIN + ROW + 14, x : x + 14] = color
        _write(picture, part, x + 20, MARGIN + ROW + 12)
        x += 20 + _width(part) + 24
    for index, (name, row) in enumerate(rows.items()):
        y = top + ROW * index
        _write(picture, name, left - 10 - _width(name), y + BAR - 6)
        begin = 0.0
        for part, color in zip(parts, _COLORS, strict=False):
            ends = [left + round(LENGTH * at / longest) for at in (begin, begin + row[part])]
            picture[y : y + BAR, ends[0] : ends[1]] = color
            begin += row[part]
        _write(picture, totals[name], left + round(LENGTH * begin / longest) + 8, y + BAR - 6)
    return picture


def _width(text: str) -> int:
    return int(cv2.getTextSize(text, _FONT, _SCALE, 1)[0][0])


def _write(picture: Image, text: str, x: int, y: int) -> None:
    cv2.putText(picture, text, (x, y), _FONT, _SCALE, _INK, 1, cv2.LINE_AA)
