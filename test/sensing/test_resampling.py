from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unim2_core.sensing.resampling import (
    covering_size,
    five_crop_boxes,
    nearest_indices,
    random_crop_boxes,
    resize,
    resize_published,
    resize_valid,
)

SIDES = st.integers(8, 90)
VALUES = st.one_of(st.just(0.0), st.floats(1e-6, 9))  # what is denormal has no relative precision


def test_nearest_adds_steps_as_pillow_does() -> None:
    added = nearest_indices(640, 426)
    closed = np.floor((np.arange(426) + 0.5) * (640 / 426)).astype(int)
    assert np.count_nonzero(added != closed) == 1  # a tie that the sum breaks the other way
    assert (added[0], added[-1]) == (0, 639)


@settings(deadline=None, max_examples=50)
@given(length=st.integers(1, 2000), resized=st.integers(1, 2000))
def test_nearest_stays_inside_and_in_order(length: int, resized: int) -> None:
    indices = nearest_indices(length, resized)
    assert indices.shape == (resized,)
    assert indices.min() >= 0
    assert indices.max() < length
    assert (np.diff(indices) >= 0).all()


@pytest.mark.parametrize(
    ("source", "size", "expected"),
    [
        ((480, 640), (320, 320), (320, 426)),
        ((100, 70), (32, 32), (45, 32)),
        ((50, 50), (20, 20), (20, 20)),
        ((480, 640), (240, 400), (300, 400)),
    ],
)
def test_covering_size(
    source: tuple[int, int], size: tuple[int, int], expected: tuple[int, int]
) -> None:
    assert covering_size(source, size) == expected


@settings(deadline=None, max_examples=50)
@given(source=st.tuples(SIDES, SIDES), size=st.tuples(SIDES, SIDES))
def test_published_resize_only_picks_pixels(
    source: tuple[int, int], size: tuple[int, int]
) -> None:
    image = np.arange(source[0] * source[1], dtype=np.int32).reshape(source)
    picked = resize_published(image, size)
    assert picked.shape == size
    rows, columns = picked // source[1], picked % source[1]
    assert (rows == rows[:, :1]).all()
    assert (columns == columns[:1]).all()


def test_published_resize_keeps_the_middle() -> None:
    image = np.zeros((40, 80), np.uint8)
    image[:, 20:60] = 1
    assert (resize_published(image, (20, 20)) == 1).all()


@settings(deadline=None, max_examples=60)
@given(source=st.tuples(SIDES, SIDES), size=st.tuples(SIDES, SIDES), value=VALUES)
def test_resize_keeps_a_constant(
    source: tuple[int, int], size: tuple[int, int], value: float
) -> None:
    image = np.full(source, value, np.float32)
    resized = resize(image, size)
    assert resized.shape == size
    np.testing.assert_allclose(resized, np.float32(value), rtol=1e-5)


def test_resize_averages_the_axis_that_shrinks_although_the_other_grows() -> None:
    stripes = np.tile(np.array([1, 0, 0, 1], np.float32), (10, 20))  # (10, 80)
    # OpenCV's INTER_AREA alone turns bilinear here: it gives 0.25.
    np.testing.assert_allclose(resize(stripes, (20, 20)), 0.5, atol=1e-6)


def test_resize_of_the_same_size_copies_nothing() -> None:
    image = np.zeros((6, 8, 3), np.uint8)
    assert resize(image, (6, 8)) is image


def test_valid_mean_equals_a_slow_mean() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((24, 36), np.float32)
    valid = rng.random((24, 36)) > 0.5
    resized, mask = resize_valid(np.where(valid, values, 99.0).astype(np.float32), valid, (6, 6))
    assert mask is not None
    for y in range(6):
        for x in range(6):
            block = (slice(4 * y, 4 * y + 4), slice(6 * x, 6 * x + 6))
            assert mask[y, x] == (valid[block].mean() >= 0.5)
            expected = values[block][valid[block]].mean() if mask[y, x] else 0.0
            assert resized[y, x] == pytest.approx(expected, rel=1e-5)


def test_valid_pixels_are_not_smeared_into_a_hole() -> None:
    values = np.full((40, 40), 5.0, np.float32)
    valid = np.ones((40, 40), np.bool_)
    valid[9:31, 9:31] = False
    values[~valid] = 0.0
    for size in ((13, 17), (40, 40), (70, 50)):
        resized, mask = resize_valid(values, valid, size)
        assert mask is not None
        assert 0.0 < 1.0 - mask.mean() < 0.5
        np.testing.assert_allclose(resized[mask], 5.0, rtol=1e-5)
        assert (resized[~mask] == 0).all()


def test_valid_of_three_channels_and_of_everything() -> None:
    values = np.ones((8, 8, 3), np.float32)
    valid = np.ones((8, 8), np.bool_)
    assert resize_valid(values, valid, (4, 4))[1] is None
    valid[:4] = False
    resized, mask = resize_valid(values, valid, (4, 4))
    assert mask is not None
    assert mask.tolist() == [[False] * 4] * 2 + [[True] * 4] * 2
    assert (resized[:2] == 0).all()
    assert (resized[2:] == 1).all()


def test_crop_boxes() -> None:
    assert five_crop_boxes(481, 641, 0.5).tolist() == [
        [0, 0, 240, 320],
        [0, 321, 240, 320],
        [241, 0, 240, 320],
        [241, 321, 240, 320],
        [120, 160, 240, 320],
    ]
    boxes = random_crop_boxes(3, 60, 80, 0.5)
    assert (boxes == random_crop_boxes(3, 60, 80, 0.5)).all()
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= (60, 80)).all()
    assert len({tuple(box) for box in boxes.tolist()}) > 1
    assert random_crop_boxes(3, 60, 80, 1.0).tolist() == [[0, 0, 60, 80]] * 5
