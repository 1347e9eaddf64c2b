from __future__ import annotations

import numpy as np
import pytest

from unim2_core.showing.confusion import CELL, MARGIN, confusion_picture

NAMES = ["road", "a class with a very long name"]


def _centres(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Colours in the lower right corner of the cells, where there is no text."""
    bottom, right = picture.shape[0] - MARGIN, picture.shape[1] - MARGIN
    return picture[
        bottom - CELL * np.arange(rows)[::-1, None] - 3,
        right - CELL * np.arange(columns)[::-1] - 3,
    ].astype(int)


def test_the_larger_the_share_the_darker_the_cell() -> None:
    shares = np.array([[0.0, 0.2, 0.8], [1.0, 0.0, 0.0]])
    picture = confusion_picture(shares, NAMES, [*NAMES, "no class"])
    assert picture.dtype == np.uint8
    darkness = 255 - _centres(picture, 2, 3)[..., 0]
    np.testing.assert_array_equal(np.argsort(darkness[0]), [0, 1, 2])
    assert darkness[1].tolist() == [darkness.max(), 0, 0]
    assert darkness[0, 0] == 0


def test_a_class_that_does_not_occur_is_grey() -> None:
    shares = np.array([[1.0, 0.0], [np.nan, np.nan]])
    found = _centres(confusion_picture(shares, NAMES, NAMES), 2, 2)
    assert (found[1] == 225).all()
    assert (found[0, 1] == 255).all()


@pytest.mark.parametrize("title", ["", "t" * 200])
def test_everything_fits(title: str) -> None:
    """Nothing is cut off: the outermost pixels are paper."""
    long = ["x" * 60, "y"]
    picture = confusion_picture(np.full((2, 2), 0.5), long, long, title)
    for edge in (picture[0], picture[:, 0], picture[-1], picture[:, -1]):
        assert (edge == 255).all()
