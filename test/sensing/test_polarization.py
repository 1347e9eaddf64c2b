from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unim2_core.errors import DecodeError
from unim2_core.sensing.polarization import (
    Angles,
    Bayer,
    from_angles,
    from_dolp_aolp,
    from_mosaic_2x2,
    from_mosaic_bayer_4x4,
    from_stokes,
    resize_polarization,
)

Float = np.ndarray[Any, np.dtype[np.float64]]
PI = np.pi


def light(shape: tuple[int, int], seed: int = 0) -> tuple[Float, Float, Float]:
    """Random S0 in (0.2, 1), DoLP in (0.05, 0.95), AoLP in [0, pi)."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0.2, 1, shape), rng.uniform(0.05, 0.95, shape), rng.uniform(0, PI, shape)


def behind_polarizer(s0: Float, dolp: Float, aolp: Float, angle_deg: int) -> Float:
    """Malus: what of light of S0 (half of it is the full scale) passes a polarizer."""
    return s0 * (1 + dolp * np.cos(2 * (np.radians(angle_deg) - aolp)))


def angle_error(a: Any, b: Any) -> float:
    difference = np.abs(np.asarray(a, np.float64) - b) % PI
    return float(np.minimum(difference, PI - difference).max())


def check(found: Any, s0: Float, dolp: Float, aolp: Float, tolerance: float) -> None:
    assert found.dtype == np.float32
    assert found.shape == (*s0.shape, 3)
    np.testing.assert_allclose(found[..., 0], s0, atol=tolerance)
    np.testing.assert_allclose(found[..., 1], dolp, atol=10 * tolerance)
    assert angle_error(found[..., 2], aolp) < 100 * tolerance
    assert found[..., 2].min() >= 0
    assert found[..., 2].max() < PI


def test_four_angles() -> None:
    s0, dolp, aolp = light((12, 16))
    images = [100 * behind_polarizer(s0 / 2, dolp, aolp, a) for a in (0, 45, 90, 135)]
    check(from_angles(*images, full_scale=100.0), s0 / 2, dolp, aolp, 1e-5)


@pytest.mark.parametrize("angles", list(itertools.permutations((0, 45, 90, 135)))[::5])
def test_mosaic_in_any_order(angles: Angles) -> None:
    s0, dolp, aolp = light((10, 14))
    mosaic = np.zeros((21, 29))  # an odd row and column too many
    for block, angle in enumerate(angles):
        y, x = divmod(block, 2)
        mosaic[y:20:2, x:28:2] = behind_polarizer(s0 / 2, dolp, aolp, angle)
    counts = np.rint(mosaic * 65_535).astype(np.uint16)
    check(from_mosaic_2x2(counts, angles, 65_535.0), s0 / 2, dolp, aolp, 3e-5)


@pytest.mark.parametrize("bayer", ["rggb", "bggr", "grbg", "gbrg"])
def test_colour_mosaic_is_luminance(bayer: Bayer) -> None:
    _, dolp, aolp = light((6, 8))
    gains = {"r": 0.9, "g": 0.5, "b": 0.2}  # a coloured scene of uniform polarization
    angles: Angles = (90, 45, 135, 0)
    mosaic = np.zeros((24, 32))
    for block, colour in enumerate(bayer):
        for inner, angle in enumerate(angles):
            row, column = 2 * (block // 2) + inner // 2, 2 * (block % 2) + inner % 2
            grey = np.full((6, 8), gains[colour] / 2)
            mosaic[row::4, column::4] = behind_polarizer(grey, dolp, aolp, angle)
    luminance = (0.299 * 0.9 + 0.587 * 0.5 + 0.114 * 0.2) / 2
    found = from_mosaic_bayer_4x4(mosaic.astype(np.float32), angles, bayer, 1.0)
    check(found, np.full((6, 8), luminance), dolp, aolp, 1e-5)


def test_stokes_and_driver_outputs_agree() -> None:
    s0, dolp, aolp = light((9, 11))
    s1, s2 = s0 * dolp * np.cos(2 * aolp), s0 * dolp * np.sin(2 * aolp)
    check(from_stokes(4095 * s0, 4095 * s1, 4095 * s2, 4095.0), s0, dolp, aolp, 1e-5)
    check(from_dolp_aolp(255 * s0, dolp, aolp - 5 * PI, "rad", 255.0), s0, dolp, aolp, 1e-5)
    degrees = np.degrees(aolp) - 180
    check(from_dolp_aolp(None, dolp, degrees, "deg", 1.0), np.ones_like(s0), dolp, aolp, 1e-5)
    counts = np.rint(dolp * 255).astype(np.uint8)
    check(
        from_dolp_aolp(None, counts, aolp, "rad", 1.0), np.ones_like(s0), counts / 255, aolp, 1e-5
    )


def test_dark_overexposed_and_broken_pixels() -> None:
    zero = np.zeros((2, 2), np.uint16)
    assert (from_angles(zero, zero, zero, zero, 255.0) == 0).all()
    found = from_angles(zero + 900, zero, zero, zero, 255.0)
    assert found[..., 1].max() == 1.0
    assert found[..., 0].max() <= 1.0
    broken = np.array([[np.nan, np.inf, 0.5, -1.0]], np.float32)
    angle = np.array([[1.0, 1.0, np.nan, 1.0]], np.float32)
    assert (from_dolp_aolp(None, broken, angle, "rad", 1.0)[..., 1:] == 0).all()
    assert np.isfinite(from_stokes(broken, broken, broken, 1.0)).all()
    assert np.isfinite(from_angles(broken, broken, broken, broken, 1.0)).all()
    huge = np.array([[1.3e19, -1.3e19, 3e38, 0.5]], np.float32)
    assert np.isfinite(from_stokes(huge, huge, -huge, 1.0)).all()
    assert np.isfinite(from_angles(huge, -huge, -huge, huge, 1.0)).all()


def test_angles_are_as_near_as_float32_holds_them() -> None:
    """Everywhere on the circle, on its axes and diagonals too, whatever the length."""
    turns = np.concatenate([np.arange(16) / 16, np.random.default_rng(0).uniform(0, 1, 4080)])
    lengths = np.geomspace(1e-3, 1e3, 4)[:, None]
    s1, s2 = (
        (lengths * part).astype(np.float32)
        for part in (np.cos(2 * PI * turns), np.sin(2 * PI * turns))
    )
    found = from_stokes(np.full(s1.shape, 1e4, np.float32), s1, s2, 1e4)[..., 2]
    expected = np.arctan2(s2.astype(float), s1.astype(float)) / 2 % PI
    assert angle_error(found, expected) < 3e-7


def test_angle_just_below_zero_is_not_pi() -> None:
    one, small = np.ones((1, 1), np.float32), np.full((1, 1), -1e-9, np.float32)
    assert from_stokes(one, one * 0.5, small, 1.0)[0, 0, 2] == 0.0
    assert from_dolp_aolp(None, one, small, "rad", 1.0)[0, 0, 2] == 0.0
    assert from_dolp_aolp(None, one, np.float32([[np.pi]]), "rad", 1.0)[0, 0, 2] == 0.0


@settings(deadline=None, max_examples=40)
@given(
    middle=st.floats(0, 2 * PI),
    spread=st.floats(0.01, 0.3),
    size=st.tuples(st.integers(2, 20), st.integers(2, 20)),
)
def test_angles_near_each_other_stay_near_after_resizing(
    middle: float, spread: float, size: tuple[int, int]
) -> None:
    rng = np.random.default_rng(0)
    angles = middle + rng.uniform(-spread, spread, (8, 10))  # often across 0 = pi
    polarization = np.stack((np.full((8, 10), 0.5), np.full((8, 10), 0.4), angles % PI), -1)
    resized = resize_polarization(polarization.astype(np.float32), size)
    assert resized.shape == (*size, 3)
    assert angle_error(resized[..., 2], middle) <= spread + 1e-3
    np.testing.assert_allclose(resized[..., 0], 0.5, rtol=1e-4)
    assert resized[..., 1].min() > 0.4 * np.cos(2 * spread) - 1e-4


def test_raw_angles_would_have_averaged_to_the_wrong_one() -> None:
    angles = np.array([[0.1, PI - 0.1]] * 2, np.float32)
    polarization = np.stack((np.ones((2, 2)), np.full((2, 2), 0.5), angles), -1).astype(np.float32)
    assert angles.mean() == pytest.approx(PI / 2)
    assert angle_error(resize_polarization(polarization, (1, 1))[..., 2], 0.0) < 1e-5


def test_average_is_weighed_by_polarized_light() -> None:
    polarization = np.array([[[1.0, 0.8, 0.3], [0.1, 0.1, 1.8]]], np.float32)
    resized = resize_polarization(polarization, (1, 1))[0, 0]
    weight = np.array([1.0 * 0.8, 0.1 * 0.1])
    s1 = (weight * np.cos(2 * polarization[0, :, 2])).mean()
    s2 = (weight * np.sin(2 * polarization[0, :, 2])).mean()
    expected = (0.55, np.hypot(s1, s2) / 0.55, 0.5 * np.arctan2(s2, s1))
    np.testing.assert_allclose(resized, expected, rtol=1e-5)


def test_opposite_polarizations_cancel() -> None:
    polarization = np.array([[[1.0, 0.5, 0.2], [1.0, 0.5, 0.2 + PI / 2]]], np.float32)
    assert resize_polarization(polarization, (1, 1))[0, 0, 1] < 1e-6


@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (0, 0), (4, 4, 3)])
def test_impossible_mosaics(shape: tuple[int, ...]) -> None:
    with pytest.raises(DecodeError, match="expected"):
        from_mosaic_2x2(np.zeros(shape, np.uint8), (0, 45, 90, 135), 255.0)
    with pytest.raises(DecodeError, match="at least 4x4"):
        from_mosaic_bayer_4x4(np.zeros((3, 9), np.uint8), (0, 45, 90, 135), "rggb", 255.0)


def test_images_that_do_not_fit_together() -> None:
    a, b = np.zeros((4, 4)), np.zeros((4, 5))
    with pytest.raises(DecodeError, match="four polarizer angles"):
        from_angles(a, a, b, a, 1.0)
    with pytest.raises(DecodeError, match="Stokes"):
        from_stokes(a, b, a, 1.0)
    with pytest.raises(DecodeError, match="DoLP and AoLP"):
        from_dolp_aolp(b, a, a, "rad", 1.0)


@pytest.mark.data
@pytest.mark.parametrize("scene", ["knife", "leaves", "painting"])
def test_real_polarizer_images(data_dir: Path, scene: str) -> None:
    folder = data_dir / "rgb_nir_polar" / scene / "Raw"
    i0, i45, i90, i135 = (
        cv2.imread(str(folder / f"NIR_filtre_nir_{angle}_aligned.tif"), cv2.IMREAD_UNCHANGED)
        for angle in (0, 45, 90, 135)
    )
    # Two orthogonal polarizers together pass all light, whichever two they are.
    straight, diagonal = i0.astype(np.float64) + i90, i45.astype(np.float64) + i135
    error = np.median(np.abs(straight - diagonal) / np.maximum(straight, 1))
    assert error < 0.05

    found = from_angles(i0, i45, i90, i135, 65_535.0)
    np.testing.assert_allclose(found[..., 0], (straight + diagonal) / 4 / 65_535, atol=1e-5)
    assert np.isfinite(found).all()
    assert 0.005 < np.median(found[..., 1]) < 0.5
    mosaic = np.empty((2 * i0.shape[0], 2 * i0.shape[1]), i0.dtype)
    mosaic[0::2, 0::2], mosaic[0::2, 1::2] = i90, i45
    mosaic[1::2, 0::2], mosaic[1::2, 1::2] = i135, i0
    assert np.array_equal(from_mosaic_2x2(mosaic, (90, 45, 135, 0), 65_535.0), found)
