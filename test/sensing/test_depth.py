from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from unim2_core.sensing.depth import depth_to_metres, estimate_gravity, hha, surface_normals

FX, FY, CX, CY = 260.0, 262.0, 158.0, 121.0
SHAPE = (240, 320)
Vector = np.ndarray[Any, np.dtype[np.float64]]


def rays() -> Vector:
    """(3, H, W): the point of each pixel at depth 1."""
    v, u = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return np.stack(((u - CX) / FX, (v - CY) / FY, np.ones(SHAPE)))


def render(planes: list[tuple[Vector, float]]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Depth of the nearest plane n . p = d, metres; 0 where the ray meets none within 30 m."""
    nearest = np.full(SHAPE, np.inf)
    for normal, distance in planes:
        along = np.einsum("c,cij->ij", normal, rays())
        with np.errstate(divide="ignore"):
            depth = np.where(along * distance > 0, distance / along, np.inf)
        nearest = np.minimum(nearest, depth)
    return np.where(nearest < 30, nearest, 0).astype(np.float32)


def tilted(pitch_deg: float, roll_deg: float) -> Vector:
    """(3, 3): turns directions of a level camera into those of one that is tilted."""
    pitch, roll = np.radians(pitch_deg), np.radians(roll_deg)
    c, s = np.cos(pitch), np.sin(pitch)
    pitched = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    c, s = np.cos(roll), np.sin(roll)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ pitched


def room(turn: Vector) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Floor 1.4 m below the camera, wall 5 m ahead, wall 1.5 m to the right."""
    level = [((0, 1, 0), 1.4), ((0, 0, 1), 5.0), ((1, 0, 0), 1.5)]
    return render([(turn @ np.array(normal, float), d) for normal, d in level])


def test_counts_to_metres() -> None:
    depth, valid = depth_to_metres(np.array([[0, 1, 1500, 65_535]], np.uint16), 0.001)
    np.testing.assert_allclose(depth, [[0, 0.001, 1.5, 65.535]], rtol=1e-6)
    assert valid.tolist() == [[False, True, True, True]]
    assert (depth.dtype, valid.dtype) == (np.float32, np.bool_)
    assert depth_to_metres(np.array([[1000]], np.uint16), 0.00025)[0][0, 0] == 0.25


def test_negative_counts_are_no_measurement() -> None:
    depth, valid = depth_to_metres(np.array([[-5, 0, 2000]], np.int16), 0.001)
    assert depth.tolist() == [[0, 0, 2]]
    assert valid.tolist() == [[False, False, True]]


def test_metres_with_all_that_means_nothing() -> None:
    metres = np.array([[np.nan, np.inf, -np.inf, -1.0, 0.0, 2.5]], np.float32)
    depth, valid = depth_to_metres(metres, 0.001)
    assert depth.tolist() == [[0, 0, 0, 0, 0, 2.5]]
    assert valid.tolist() == [[False] * 5 + [True]]
    assert np.isnan(metres[0, 0])  # the message's own bytes are left alone


def test_flat_floor_in_closed_form() -> None:
    depth = render([(np.array([0.0, 1.0, 0.0]), 1.2)])
    valid = depth > 0
    image = hha(depth, valid, FX, FY, CX, CY, gravity=(0, 9.81, 0))
    assert (image[~valid] == 0).all()
    inner = cv2.erode(valid.astype(np.uint8), np.ones((9, 9))).astype(bool)
    expected = np.clip(np.rint(310 / depth[inner]), 0, 255)
    np.testing.assert_array_equal(image[inner][:, 0], expected)
    assert image[inner][:, 1].max() <= 1  # on the ground
    assert set(image[inner][:, 2]) == {38}  # angle 0


def test_wall_and_ceiling_in_closed_form() -> None:
    turn = np.eye(3)
    planes = [((0, 1, 0), 1.0), ((0, 0, 1), 4.0), ((0, -1, 0), 0.8)]
    depth = render([(turn @ np.array(n, float), d) for n, d in planes])
    image = hha(depth, None, FX, FY, CX, CY, gravity=(0, 1, 0))
    column = image[:, 160].astype(int)
    y = (np.arange(SHAPE[0]) - CY) / FY * depth[:, 160]  # metres below the camera
    wall = np.abs(depth[:, 160] - 4.0) < 1e-3
    middle = np.flatnonzero(wall)[5:-5]
    np.testing.assert_allclose(column[middle, 1], 100 * (1.0 - y[middle]), atol=1.5)
    assert set(column[middle, 2]) == {38 + 90}
    ceiling = np.flatnonzero(~wall & (y < 0))[5:-5]
    assert set(column[ceiling, 2]) == {38 + 180}
    np.testing.assert_allclose(column[ceiling, 1], 180, atol=1.5)


@pytest.mark.parametrize("seed", range(3))
def test_normals_of_planes_are_exact_also_beside_holes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    normal = np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5), 1.0])
    normal /= np.linalg.norm(normal)
    depth = render([(normal, 3.0)])
    valid = (depth > 0) & (rng.random(SHAPE) > 0.4)
    normals, fitted = surface_normals(np.where(valid, depth, 0), valid, FX, FY, CX, CY)
    assert fitted[valid].mean() > 0.999
    cosine = -np.einsum("c,cn->n", normal, normals[:, fitted])
    assert np.degrees(np.arccos(np.clip(cosine, -1, 1))).max() < 0.5
    assert (normals[:, ~fitted] == 0).all()


def test_no_plane_through_a_line() -> None:
    depth = np.zeros(SHAPE, np.float32)
    depth[100] = 2.0
    _, fitted = surface_normals(depth, depth > 0, FX, FY, CX, CY)
    assert not fitted.any()
    assert (hha(depth, None, FX, FY, CX, CY) == 0).all()
    assert (hha(np.zeros(SHAPE, np.float32), None, FX, FY, CX, CY) == 0).all()


@pytest.mark.parametrize(("pitch", "roll"), [(0, 0), (20, 0), (-15, 10), (30, -20), (-25, 25)])
@pytest.mark.parametrize("noise", [0.0, 0.0015])
def test_gravity_of_a_tilted_camera(pitch: float, roll: float, noise: float) -> None:
    turn = tilted(pitch, roll)
    depth = room(turn)
    rng = np.random.default_rng(0)
    # A depth camera measures disparity: its noise grows with the square of the distance.
    depth += (depth**2 * rng.normal(0, noise, SHAPE)).astype(np.float32)
    normals, fitted = surface_normals(depth, depth > 0, FX, FY, CX, CY)
    found = estimate_gravity(normals[:, fitted])
    down = turn @ np.array([0.0, 1.0, 0.0])
    assert np.degrees(np.arccos(np.clip(found @ down, -1, 1))) < 2.0


def test_estimated_gravity_gives_the_image_of_the_true_one() -> None:
    turn = tilted(20, -10)
    depth = room(turn)
    down = turn @ np.array([0.0, 1.0, 0.0])
    true = hha(depth, None, FX, FY, CX, CY, gravity=(down[0], down[1], down[2]))
    estimated = hha(depth, None, FX, FY, CX, CY)
    difference = np.abs(true.astype(int) - estimated.astype(int))
    assert np.percentile(difference, 95) <= 3
    # Not by chance: a level camera is assumed wrongly here.
    assumed = hha(depth, None, FX, FY, CX, CY, gravity=(0, 1, 0))
    assert np.percentile(np.abs(true.astype(int) - assumed.astype(int)), 95) > 15


def test_gravity_in_front_of_one_wall_is_level() -> None:
    depth = render([(np.array([0.1, 0.0, 1.0]), 3.0)])
    normals, fitted = surface_normals(depth, depth > 0, FX, FY, CX, CY)
    np.testing.assert_allclose(estimate_gravity(normals[:, fitted]), [0, 1, 0], atol=1e-3)


def test_gravity_without_surfaces_is_level() -> None:
    assert estimate_gravity(np.zeros((3, 0), np.float32)).tolist() == [0, 1, 0]


@pytest.mark.data
def test_real_depth_image(data_dir: Path) -> None:
    path = sorted((data_dir / "peach_rgbd_ir" / "depth").iterdir())[0]
    counts = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    depth, valid = depth_to_metres(counts, 0.001)
    assert 0.3 < valid.mean() < 0.9
    image = hha(depth, valid, 610.0, 610.0, counts.shape[1] / 2, counts.shape[0] / 2)
    assert (image[~valid] == 0).all()
    assert (image[valid][:, 2] > 0).mean() > 0.95
    assert image[valid][:, 2].std() > 5
