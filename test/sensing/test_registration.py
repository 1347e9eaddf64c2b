"""Planes, boxes and round trips with closed forms."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unim2_core.errors import RigError
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.poses import Pose
from unim2_core.sensing.registration import Assumption, GridProjection, rectification
from unim2_core.sensing.reprojection import fill_small_holes, inverse_depth, reproject_depth
from unim2_core.sensing.rig import Extrinsics
from unim2_core.sensing.warping import GridMap, gather, warp_image, warp_labels

CAMERA = Intrinsics(160.0, 160.0, 99.5, 74.5, 200, 150)
OTHER = Intrinsics(110.0, 112.0, 65.0, 50.0, 128, 96)
GRID = (15, 20)


def turned(*rotation_vector: float, shift=(0.0, 0.0, 0.0)) -> Pose:
    return Pose(cv2.Rodrigues(np.array(rotation_vector))[0], np.array(shift, np.float64))


def extrinsics(pose: Pose) -> Extrinsics:
    vector = cv2.Rodrigues(pose.rotation)[0].ravel()
    angle = np.linalg.norm(vector)
    axis = vector / max(angle, 1e-12) * np.sin(angle / 2)
    return Extrinsics(
        translation_m=tuple(pose.translation), rotation_xyzw=(*axis, np.cos(angle / 2))
    )


POSE = turned(0.02, -0.03, 0.015, shift=(0.12, -0.05, 0.03))
PLANE = (0.1, -0.6, 0.8, 4.0)  # n p = d in the frame of the reference


def plane_depth(camera: Intrinsics, pose: Pose, plane=PLANE) -> np.ndarray:
    """Depth of a plane of the reference's frame, seen by a camera that is posed in it."""
    normal, distance = np.array(plane[:3]), plane[3]
    rays = camera.rays().astype(np.float64)
    world = np.concatenate([rays, np.ones((*rays.shape[:2], 1))], -1) @ pose.rotation.T
    return ((distance - normal @ pose.translation) / (world @ normal)).astype(np.float32)


def exact_places(
    depth_m: np.ndarray, reference: Intrinsics, sensor: Intrinsics, pose: Pose
) -> np.ndarray:
    """Pixel of the sensor that sees each reference pixel's point; straight from the definition."""
    places = np.empty((*depth_m.shape, 2))
    for (row, column), z in np.ndenumerate(depth_m):
        x = (column - reference.cx) / reference.fx * z
        y = (row - reference.cy) / reference.fy * z
        p = pose.rotation.T @ (np.array([x, y, z]) - pose.translation)
        places[row, column] = (
            sensor.fx * p[0] / p[2] + sensor.cx,
            sensor.fy * p[1] / p[2] + sensor.cy,
        )
    return places


# Depth in the reference camera


def test_a_plane_stays_a_plane_in_the_other_camera() -> None:
    found, valid = reproject_depth(plane_depth(OTHER, POSE), None, OTHER, POSE, CAMERA, (75, 100))
    expected = plane_depth(CAMERA.scaled((75, 100)), Pose.identity())
    assert found.dtype == np.float32 and valid.dtype == np.bool_
    seen = exact_places(expected, CAMERA.scaled((75, 100)), OTHER, POSE)
    inside = ((seen > 2) & (seen < (OTHER.width - 3, OTHER.height - 3))).all(-1)
    outside = ((seen < -3) | (seen > (OTHER.width + 2, OTHER.height + 2))).any(-1)
    assert 0.5 < inside.mean() < 0.99 and outside.any()
    assert valid[inside].all()
    assert not valid[outside].any()
    # A cell takes the nearest of its points: half a cell away on a plane that is not frontal.
    slope = np.abs(np.diff(expected, axis=0)).max() + np.abs(np.diff(expected, axis=1)).max()
    assert np.abs(found - expected)[inside].max() < slope
    assert np.abs(found - expected)[inside].mean() < 0.3 * slope
    assert (found[~valid] == 0).all()


@pytest.mark.parametrize("size", [(150, 200), (38, 50), (15, 20), (7, 9)])
def test_same_camera_same_depth_at_any_size(size) -> None:
    depth_m = plane_depth(CAMERA, Pose.identity(), (0.0, 0.0, 1.0, 3.0))
    found, valid = reproject_depth(depth_m, None, CAMERA, Pose.identity(), CAMERA, size)
    assert valid.all()
    np.testing.assert_allclose(found, 3.0, rtol=1e-6)


def test_there_and_back() -> None:
    depth_m = plane_depth(OTHER, POSE)
    there, seen = reproject_depth(depth_m, None, OTHER, POSE, CAMERA, (150, 200))
    back, valid = reproject_depth(there, seen, CAMERA, POSE.inverse, OTHER, (96, 128))
    assert valid.mean() > 0.7
    relative = np.abs(back / depth_m - 1)[valid]
    assert np.median(relative) < 0.005 and np.quantile(relative, 0.99) < 0.03


def test_the_nearest_wins_and_what_it_hid_stays_unknown() -> None:
    """A box 1 m away before a wall 5 m away; the depth camera is 20 cm to the right."""
    pose = turned(0.0, 0.0, 0.0, shift=(0.2, 0.0, 0.0))
    depth_m = np.full((150, 200), 5.0, np.float32)
    depth_m[50:100, 80:120] = 1.0
    found, valid = reproject_depth(depth_m, None, CAMERA, pose, CAMERA, (150, 200))
    row = found[75]
    # Column u at depth z is at u + 160 * 0.2 / z: the box at +32, the wall at +6.4.
    np.testing.assert_allclose(row[112:152], 1.0, rtol=1e-5)
    hidden = valid[75, 88:110]  # the wall from 80 + 6.4 to 112, without the filled rims
    assert not hidden.any()
    np.testing.assert_allclose(row[20:84], 5.0, rtol=1e-5)
    np.testing.assert_allclose(row[154:], 5.0, rtol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0, -2.0])
def test_what_is_no_measurement_stays_none(bad) -> None:
    depth_m = np.full((150, 200), 3.0, np.float32)
    depth_m[:, 100:] = bad
    found, valid = reproject_depth(depth_m, None, CAMERA, Pose.identity(), CAMERA, (30, 40))
    assert valid[:, :20].all() and not valid[:, 23:].any()
    assert np.isfinite(found).all() and (found[:, 23:] == 0).all()
    masked, same = reproject_depth(
        np.full((150, 200), 3.0, np.float32),
        depth_m == 3,
        CAMERA,
        Pose.identity(),
        CAMERA,
        (30, 40),
    )
    np.testing.assert_array_equal(valid, same)
    np.testing.assert_array_equal(found, masked)


def test_small_holes_take_the_farthest_neighbour_and_large_ones_stay() -> None:
    inverse = np.full((20, 20), 0.2, np.float32)
    inverse[:, 10:] = 1.0
    inverse[5, 9:11] = 0  # on the edge of something near
    inverse[8:18, 2:8] = 0
    filled = fill_small_holes(inverse)
    np.testing.assert_allclose(filled[5, 9:11], 0.2)
    assert (filled[11:15, 4:6] == 0).all()
    known = inverse > 0
    np.testing.assert_array_equal(filled[known], inverse[known])
    np.testing.assert_array_equal(fill_small_holes(np.zeros((5, 5), np.float32)), 0)


def test_points_behind_the_camera_are_not_seen() -> None:
    behind = turned(0.0, 0.0, 0.0, shift=(0.0, 0.0, -4.0))
    depth_m = np.full((150, 200), 3.0, np.float32)
    _, valid = reproject_depth(depth_m, None, CAMERA, behind, CAMERA, (30, 40))
    assert not valid.any()


@pytest.mark.parametrize(("shape", "size"), [((0, 200), (10, 10)), ((150, 200), (0, 10))])
def test_nothing_to_project(shape, size) -> None:
    with pytest.raises(RigError, match="nothing to project"):
        reproject_depth(np.ones(shape, np.float32), None, CAMERA, POSE, CAMERA, size)


def test_inverse_depth_leaves_its_input_alone() -> None:
    depth_m = np.array([[2.0, np.nan, 0.0]], np.float32)
    np.testing.assert_array_equal(inverse_depth(depth_m), [[0.5, 0, 0]])
    assert np.isnan(depth_m[0, 1])


# Maps


def test_a_plane_gives_the_places_of_the_definition_and_of_its_homography() -> None:
    grid, sensor = CAMERA.scaled(GRID), OTHER.scaled((12, 16))
    inverse = Assumption(plane=PLANE).inverse_depth(grid.rays())
    found = GridProjection(grid, sensor, POSE)(inverse, None)
    depth_m = plane_depth(grid, Pose.identity())
    expected = exact_places(depth_m, grid, sensor, POSE)
    np.testing.assert_allclose(found.coordinates[found.valid], expected[found.valid], atol=1e-4)
    back = POSE.inverse
    homography = (
        sensor.matrix
        @ (back.rotation + np.outer(back.translation, PLANE[:3]) / PLANE[3])
        @ np.linalg.inv(grid.matrix)
    )
    columns, rows = np.meshgrid(np.arange(20.0), np.arange(15.0))
    places = cv2.perspectiveTransform(np.stack([columns, rows], -1), homography)
    np.testing.assert_allclose(found.coordinates[found.valid], places[found.valid], atol=1e-4)
    inside = (np.abs(expected - (7.5, 5.5)) <= (8, 6)).all(-1)
    np.testing.assert_array_equal(found.valid, inside)
    assert 0.5 < inside.mean() < 1


def test_an_infinite_range_is_the_rotation_alone() -> None:
    far = Assumption().inverse_depth(CAMERA.rays())
    near = Assumption(range_m=2.0).inverse_depth(CAMERA.rays())
    turn = Pose(POSE.rotation, np.zeros(3))
    one, other = (GridProjection(CAMERA, OTHER, pose)(far, None) for pose in (POSE, turn))
    np.testing.assert_allclose(one.coordinates, other.coordinates, atol=1e-4)
    moved = GridProjection(CAMERA, OTHER, POSE)(near, None)
    both = one.valid & moved.valid
    shift = (one.coordinates - moved.coordinates)[both]
    assert np.abs(np.median(shift[:, 0]) - 110 * 0.12 / 2) < 1  # fx * baseline / range


def test_the_ground_holds_below_the_horizon_and_the_range_above() -> None:
    inverse = Assumption(range_m=50.0, plane=(0.0, 1.0, 0.0, 1.3)).inverse_depth(CAMERA.rays())
    np.testing.assert_allclose(inverse[:75], 1 / 50)
    np.testing.assert_allclose(inverse[149], (149 - 74.5) / 160 / 1.3, rtol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"range_m": 0.0},
        {"range_m": -1.0},
        {"range_m": float("nan")},
        {"plane": (0.0, 0.0, 0.0, 1.0)},
        {"plane": (0.0, 1.0, 0.0, 0.0)},
        {"plane": (0.0, float("nan"), 0.0, 1.0)},
    ],
)
def test_impossible_assumptions(options) -> None:
    with pytest.raises(RigError, match="assumed distance"):
        Assumption(**options)


def test_rectification_is_that_of_opencv() -> None:
    bent = replace(CAMERA, distortion=(-0.25, 0.06, 0.001, -0.002, 0.0))
    found = rectification(bent)
    expected = cv2.initUndistortRectifyMap(
        bent.matrix, np.array(bent.distortion), None, bent.matrix, (200, 150), cv2.CV_32FC1
    )
    places = np.stack(expected[:2], axis=-1)
    assert found.valid.mean() > 0.9
    np.testing.assert_allclose(found.coordinates[found.valid], places[found.valid], atol=2e-3)


# Gathering


def slow_gather(tokens, grid_map, measured):
    height, width, dim = tokens.shape
    out = np.zeros((*grid_map.valid.shape, dim))
    valid = np.zeros(grid_map.valid.shape, bool)
    for cell in np.ndindex(*grid_map.valid.shape):
        x, y = grid_map.coordinates[cell].astype(np.float64)
        total = 0.0
        for row in (int(np.floor(y)), int(np.floor(y)) + 1):
            for column in (int(np.floor(x)), int(np.floor(x)) + 1):
                if 0 <= row < height and 0 <= column < width and measured[row, column]:
                    weight = (1 - abs(x - column)) * (1 - abs(y - row))
                    out[cell] += weight * tokens[row, column]
                    total += weight
        if grid_map.valid[cell] and total > 1e-3:
            valid[cell] = True
            out[cell] /= total
        else:
            out[cell] = 0
    return out, valid


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**16),
    dim=st.integers(1, 9),
    source=st.sampled_from([(1, 1), (3, 5), (9, 4)]),
)
def test_gather_is_bilinear_over_what_was_measured(seed, dim, source) -> None:
    draw = np.random.default_rng(seed)
    tokens = draw.normal(size=(*source, dim)).astype(np.float32)
    places = draw.uniform(-1.5, np.array(source[::-1]) + 0.5, (11, 13, 2)).astype(np.float32)
    grid_map = GridMap.within(places, draw.random((11, 13)) < 0.8, source)
    measured = draw.random(source) < 0.7
    found, valid = gather(tokens, grid_map, measured)
    expected, expected_valid = slow_gather(tokens, grid_map, measured)
    np.testing.assert_array_equal(valid, expected_valid)
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_gather_and_warp_agree() -> None:
    draw = np.random.default_rng(1)
    image = cv2.GaussianBlur(draw.random((96, 128, 3), np.float32), (0, 0), 4)
    inverse = Assumption(range_m=4.0).inverse_depth(CAMERA.rays())
    grid_map = GridProjection(CAMERA, OTHER, POSE)(inverse, None)
    gathered, valid = gather(image, grid_map)
    warped = warp_image(image, grid_map)
    np.testing.assert_array_equal(valid, grid_map.valid)
    np.testing.assert_allclose(warped, gathered, atol=2e-3)  # remap knows 1/32 pixels
    place = np.full((2, *gathered.shape), 7, np.float32)
    gather(image, grid_map, out=place[1])
    np.testing.assert_array_equal(place[1], gathered)
    assert (place[0] == 7).all()
    columns = np.broadcast_to(np.arange(128, dtype=np.uint8), (96, 128))
    labels = warp_labels(columns, grid_map)
    nearest = np.rint(grid_map.coordinates[..., 0]).clip(0, 127)
    np.testing.assert_array_equal(labels[valid], nearest[valid])
    assert (labels[~valid] == 255).all() and (warped[~valid] == 0).all() and (~valid).any()


def test_stretching_is_the_identity_of_one_camera() -> None:
    same = GridMap.stretched((6, 8), (6, 8)).coordinates
    np.testing.assert_array_equal(same[..., 0], np.broadcast_to(np.arange(8), (6, 8)))
    image = np.arange(24, dtype=np.float32).reshape(4, 6)
    map_ = GridMap.stretched((8, 12), (4, 6))
    expected = cv2.resize(image, (12, 8), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(gather(image[..., None], map_)[0][..., 0], expected, atol=1e-5)


# Poses


def test_poses_compose_and_invert() -> None:
    other = turned(-0.3, 0.2, 1.0, shift=(1.0, 2.0, 3.0))
    point = np.array([0.3, -0.2, 4.0])
    inner = other.rotation @ point + other.translation
    both = POSE @ other
    np.testing.assert_allclose(
        both.rotation @ point + both.translation, POSE.rotation @ inner + POSE.translation
    )
    unity = both @ both.inverse
    np.testing.assert_allclose(unity.rotation, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(unity.translation, 0, atol=1e-12)
    read = Pose.of(extrinsics(other))
    np.testing.assert_allclose(read.rotation, other.rotation, atol=1e-12)


def test_a_quaternion_typed_with_two_digits_is_one() -> None:
    typed = Extrinsics(translation_m=(0, 0, 0), rotation_xyzw=(0.71, 0, 0, 0.71))
    np.testing.assert_allclose(Pose.of(typed).rotation[1:, 1:], [[0, -1], [1, 0]], atol=1e-12)


@pytest.mark.parametrize(
    "xyzw", [(0, 0, 0, 0), (0, 90, 0, 0), (float("nan"), 0, 0, 1), (0.5, 0, 0, 0.5)]
)
def test_quaternions_that_are_none(xyzw) -> None:
    with pytest.raises(RigError, match="unit quaternion"):
        Pose.of(Extrinsics(translation_m=(0, 0, 0), rotation_xyzw=xyzw))


@pytest.mark.parametrize(
    ("rotation", "translation"),
    [
        (np.zeros((3, 3)), np.zeros(3)),
        (np.diag([1.0, 1.0, -1.0]), np.zeros(3)),
        (np.eye(3), np.array([0, np.inf, 0])),
        (np.eye(4), np.zeros(3)),
    ],
)
def test_what_is_no_rigid_motion(rotation, translation) -> None:
    with pytest.raises(RigError, match="rigid motion"):
        Pose(rotation, translation)
