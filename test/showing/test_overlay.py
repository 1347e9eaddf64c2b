from __future__ import annotations

import numpy as np
import pytest

from unim2_core.showing.overlay import colorize, overlay, side_by_side
from unim2_core.showing.palette import UNLABELLED, color_table, distinct_colors

COLORS = color_table({0: (255, 0, 0), 3: (0, 0, 200)})


def test_every_class_gets_its_colour() -> None:
    classes = np.array([[0, 3], [UNLABELLED, 3]], np.uint8)
    expected = [[[255, 0, 0], [0, 0, 200]], [[0, 0, 0], [0, 0, 200]]]
    np.testing.assert_array_equal(colorize(classes, COLORS), expected)


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, 100), (0.5, 178), (1.0, 255)])
def test_overlay_blends(alpha: float, expected: int) -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    blended = overlay(image, np.zeros((4, 4), np.uint8), COLORS, alpha)
    assert abs(int(blended[0, 0, 0]) - expected) <= 1


def test_colours_are_distinct() -> None:
    colors = np.array(distinct_colors(20), np.float64)
    distances = np.linalg.norm(colors[:, None] - colors[None], axis=2)
    assert distances[~np.eye(20, dtype=bool)].min() > 25


def test_tiles_of_different_sizes_share_a_row() -> None:
    tiles = {
        "one": np.zeros((40, 60, 3), np.uint8),
        "two": np.full((20, 20, 3), 9, np.uint8),
    }
    picture = side_by_side(tiles, height=40, footer="below")
    assert picture.shape == (40 + 2 * 22, 60 + 40, 3)
    assert (picture[30, 80] == 9).all()
