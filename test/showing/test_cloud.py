"""Labelled points: where depth measured, in the reference camera, at the pixel that sees them."""

from __future__ import annotations

import numpy as np
import pytest

from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.poses import Pose
from unim2_core.showing.cloud import cloud

CAMERA = Intrinsics(20, 20, 15.5, 11.5, 32, 24)


def wall(distance_m: float, camera: Intrinsics | None = CAMERA) -> Frame:
    data = np.full((24, 32), distance_m, np.float32)
    return Frame("depth", 0, data, camera=camera)


def test_a_wall_before_one_camera_is_seen_pixel_by_pixel():
    found = cloud(wall(2.0), Pose.identity(), CAMERA)
    assert found.positions.shape == (24 * 32, 3)
    np.testing.assert_allclose(found.positions[:, 2], 2.0)
    rows, columns = np.divmod(np.arange(24 * 32), 32)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.columns, columns)


def test_a_camera_to_the_right_sees_things_further_right():
    shift = Pose(np.eye(3), np.array([0.2, 0.0, 0.0]))
    found = cloud(wall(2.0), shift, CAMERA)
    # 0.2 m at 2 m are two of the 20 pixels of focal length; what leaves the image is left out.
    assert len(found.positions) == 24 * 30
    assert found.columns.min() == 2
    np.testing.assert_allclose(found.positions[0], [(-15.5 / 20) * 2 + 0.2, -1.15, 2], atol=1e-6)


def test_nothing_is_made_of_what_was_not_measured():
    frame = wall(2.0)
    valid = np.ones((24, 32), bool)
    frame.data[0] = 0
    valid[1] = False
    frame = Frame("depth", 0, frame.data, valid=valid, camera=CAMERA)
    assert len(cloud(frame, Pose.identity(), CAMERA).positions) == 22 * 32
    assert cloud(wall(2.0, camera=None), Pose.identity(), CAMERA) is None


def test_what_is_behind_the_reference_is_left_out():
    turned = Pose(np.diag([-1.0, 1.0, -1.0]), np.zeros(3))
    assert len(cloud(wall(2.0), turned, CAMERA).positions) == 0


@pytest.mark.parametrize("most", [10, 100, 768])
def test_large_clouds_are_thinned(most):
    count = len(cloud(wall(2.0), Pose.identity(), CAMERA, most).positions)
    assert most / 2 <= count <= most * 1.5  # rows and columns are left out whole
