from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from unim2_core.errors import RigError
from unim2_core.sensing.calibration import Intrinsics


def camera_info(ros: int = 2, **changes: Any) -> SimpleNamespace:
    k = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
    p = [450.0, 0.0, 310.0, 0.0, 0.0, 460.0, 230.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    matrices = {"k": k, "p": p, "d": ()} if ros == 2 else {"K": k, "P": p, "D": ()}
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    fields = {"width": 640, "height": 480, "binning_x": 0, "binning_y": 0, "roi": roi}
    fields["distortion_model"] = "plumb_bob"
    return SimpleNamespace(**{**matrices, **fields, **changes})


@pytest.mark.parametrize("ros", [1, 2])
def test_raw_and_rectified(ros: int) -> None:
    raw = Intrinsics.from_camera_info(camera_info(ros))
    assert raw == Intrinsics(500, 510, 320, 240, 640, 480)
    rectified = Intrinsics.from_camera_info(camera_info(ros), rectified=True)
    assert rectified == Intrinsics(450, 460, 310, 230, 640, 480)


def test_region_of_interest_and_binning() -> None:
    roi = SimpleNamespace(x_offset=100, y_offset=40, width=400, height=300)
    found = Intrinsics.from_camera_info(camera_info(roi=roi, binning_x=2, binning_y=2))
    assert found == Intrinsics(250, 255, 110, 100, 200, 150)


def test_scaled_keeps_the_edges_where_they_are() -> None:
    camera = Intrinsics(500, 510, 319.5, 239.5, 640, 480)
    half = camera.scaled((240, 320))
    assert half == Intrinsics(250, 255, 159.5, 119.5, 320, 240)  # still the middle
    assert half.scaled((480, 640)) == camera


@pytest.mark.parametrize("changes", [{"k": [0.0] * 9}, {"k": [float("nan")] * 9}, {"width": 0}])
def test_uncalibrated(changes: dict[str, Any]) -> None:
    with pytest.raises(RigError, match="without calibration"):
        Intrinsics.from_camera_info(camera_info(**changes))


PLUMB_BOB = (-0.28, 0.09, 0.001, -0.002, -0.01)
RATIONAL = (0.4, -0.1, 0.0005, -0.0002, 0.02, 0.7, -0.05, 0.03)
FISHEYE = (-0.02, 0.01, -0.003, 0.0005)


@pytest.mark.parametrize(
    ("model", "coefficients", "fisheye"),
    [
        ("plumb_bob", PLUMB_BOB, False),
        ("rational_polynomial", RATIONAL, False),
        ("equidistant", FISHEYE, True),
        ("fisheye", FISHEYE, True),
    ],
)
@pytest.mark.parametrize("ros", [1, 2])
def test_distortion_is_read_and_undone(ros, model, coefficients, fisheye) -> None:
    name = "d" if ros == 2 else "D"
    message = camera_info(ros, distortion_model=model, **{name: list(coefficients)})
    camera = Intrinsics.from_camera_info(message)
    assert (camera.distortion, camera.fisheye) == (coefficients, fisheye)
    assert Intrinsics.from_camera_info(message, rectified=True).distortion == ()
    columns, rows = np.meshgrid(np.arange(640), np.arange(480))
    seen = camera.project(camera.rays())
    np.testing.assert_allclose(seen, np.stack([columns, rows], -1), atol=2e-3)
    # It is no pinhole: the corner looks elsewhere.
    bent = np.abs(camera.rays() - camera.rectified.rays())[0, 0].max() * camera.fx
    assert bent > 5


@pytest.mark.parametrize("coefficients", [PLUMB_BOB[:4], PLUMB_BOB, RATIONAL, FISHEYE])
def test_projection_is_that_of_opencv(coefficients) -> None:
    fisheye = coefficients is FISHEYE
    camera = Intrinsics(500, 510, 320, 240, 640, 480, coefficients, fisheye)
    rays = np.random.default_rng(0).uniform(-0.6, 0.6, (50, 2))
    rays[0] = 0
    k, d = camera.matrix, np.array(coefficients)
    if fisheye:
        expected = cv2.fisheye.distortPoints(rays[:, None], k, d)
    else:
        points = np.column_stack([rays, np.ones(50)])
        expected = cv2.projectPoints(points, np.zeros(3), np.zeros(3), k, d)[0]
    seen = camera.project(rays.astype(np.float32))
    np.testing.assert_allclose(seen, expected[:, 0], atol=1e-3)


def test_distortion_does_not_depend_on_the_size_of_the_image() -> None:
    camera = Intrinsics(500, 510, 320, 240, 640, 480, PLUMB_BOB)
    ray = np.array([[0.3, -0.2]], np.float32)
    full, half = camera.project(ray), camera.scaled((240, 320)).project(ray)
    np.testing.assert_allclose((full + 0.5) / 2 - 0.5, half, atol=1e-3)


def test_what_is_far_outside_does_not_fold_back_into_the_image() -> None:
    camera = Intrinsics(500, 510, 320, 240, 640, 480, (-0.2, 0.0, 0.0, 0.0))
    back = np.array([[2.236, 0.0], [0.0, 2.2]], np.float32)  # where 1 - 0.2 r^2 is 0 again
    bent = cv2.projectPoints(
        np.array([[2.236, 0.0, 1.0]]),
        np.zeros(3),
        np.zeros(3),
        camera.matrix,
        np.array([-0.2] + [0.0] * 3),
    )[0]
    assert np.linalg.norm(bent - (320, 240)) < 1  # the polynomial alone puts it in the middle
    assert np.isinf(camera.project(back)).all()
    assert np.isfinite(camera.project(camera.rays())).all()


def test_a_polynomial_that_ends_short_of_the_corners() -> None:
    camera = Intrinsics(500, 510, 320, 240, 640, 480, (-0.35, 0.0, 0.0, 0.0))
    rays = camera.rays()
    reached = rays[..., 0] < 1e5
    assert not reached[0, 0] and reached[240, 320]
    assert 0.7 < reached.mean() < 1
    columns, rows = np.meshgrid(np.arange(640), np.arange(480))
    seen = camera.project(rays)[reached]
    np.testing.assert_allclose(seen, np.stack([columns, rows], -1)[reached], atol=0.1)


@pytest.mark.parametrize(
    "changes",
    [
        {"distortion_model": "mei", "d": [0.1, 0.1]},
        {"d": [0.1, 0.1]},
        {"d": [float("nan")] * 5},
        {"distortion_model": "equidistant", "d": [0.1] * 5},
    ],
)
def test_distortion_that_cannot_be_used(changes: dict[str, Any]) -> None:
    with pytest.raises(RigError, match="distortion"):
        Intrinsics.from_camera_info(camera_info(**changes))
