"""Colours for class ids: well apart, the same in every picture, bag and viewer."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

UNLABELLED = 255
"""Class id of a pixel that has none."""

_GOLDEN = 0.61803398875


def distinct_colors(count: int) -> list[tuple[int, int, int]]:
    """Make colours that differ in hue by the golden ratio and alternate in brightness.

    Args:
        count: how many, up to 255.

    Returns:
        ``count`` triples of red, green and blue, 0 to 255.
    """
    colors = []
    for index in range(count):
        hue = (0.08 + index * _GOLDEN) % 1.0
        saturation, value = ((0.75, 0.95), (0.55, 0.70), (0.90, 0.80))[index % 3]
        red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
        colors.append((round(red * 255), round(green * 255), round(blue * 255)))
    return colors


def color_table(colors: dict[int, tuple[int, int, int]]) -> NDArray[np.uint8]:
    """A look-up table from class id to colour.

    Args:
        colors: class id -> red, green, blue.

    Returns:
        (256, 3) uint8; black where no colour was given.
    """
    table = np.zeros((256, 3), np.uint8)
    for identifier, color in colors.items():
        table[identifier] = color
    return table
