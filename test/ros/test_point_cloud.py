"""The labelled cloud against what the pinhole model says, and against ROS' own reader."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from std_msgs.msg import Header

from unim2_core.inference.pipeline import Encoded, Segmentation
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.frames import Frame, FrameSet
from unim2_core.sensing.rig import Extrinsics, Rig
from unim2_ros.point_cloud import LAYOUT, CloudMaker

pytestmark = pytest.mark.ros
HEIGHT, WIDTH = 6, 8
CAMERA = Intrinsics(fx=10.0, fy=12.0, cx=3.5, cy=2.5, width=WIDTH, height=HEIGHT)
HEADER = Header(frame_id="rgb_optical_frame")
ALIGNED = {"rgb": {"topic": "a"}, "depth": {"topic": "b"}}
SHIFTED = {
    **ALIGNED,
    "depth": {
        "topic": "b",
        "extrinsics": {"translation_m": [0.2, 0.0, 0.0], "rotation_xyzw": [0, 0, 0, 1]},
    },
}


def _frames(depth_m: np.ndarray, **depth: object) -> FrameSet:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    made = Frame("depth", 1, depth_m, valid=depth_m > 0, unit="m")
    return FrameSet(
        "rgb",
        {"rgb": Frame("rgb", 1, image, camera=CAMERA), "depth": replace(made, **depth)},
    )


def _result() -> Segmentation:
    classes = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    return Segmentation(classes, 255 - classes, Encoded({}, {}), {}, "v")


def _points(message) -> np.ndarray:
    assert message.point_step == LAYOUT.itemsize
    assert message.row_step * message.height == len(message.data)
    return np.frombuffer(message.data, LAYOUT).reshape(message.height, message.width)


def test_each_pixel_is_a_point_with_colour_label_and_confidence() -> None:
    depth_m = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    depth_m[0, 0] = 0  # nothing measured
    frames, result = _frames(depth_m), _result()
    message = CloudMaker(Rig.parse({"sensors": ALIGNED}))(frames, result, HEADER)
    points = _points(message)
    assert message.header is HEADER
    assert np.isnan(points[0, 0]["x"]) and np.isnan(points[0, 0]["z"])
    v, u = 4, 6
    np.testing.assert_allclose(
        [points[v, u]["x"], points[v, u]["y"], points[v, u]["z"]],
        [(u - 3.5) / 10 * 2, (v - 2.5) / 12 * 2, 2],
        rtol=1e-6,
    )
    red, green, blue = (int(value) for value in frames.frames["rgb"].data[v, u])
    assert int(points[v, u]["rgb"]) == red << 16 | green << 8 | blue
    np.testing.assert_array_equal(points["label"], result.classes)
    np.testing.assert_array_equal(points["confidence"], result.confidence)


def test_depth_of_another_size_and_place_is_seen_from_the_reference() -> None:
    wide = replace(CAMERA.scaled((2 * HEIGHT, 2 * WIDTH)), cx=7.5, cy=5.5)
    depth_m = np.full((2 * HEIGHT, 2 * WIDTH), 4.0, np.float32)
    frames = _frames(depth_m, camera=wide)
    points = _points(CloudMaker(Rig.parse({"sensors": SHIFTED}))(frames, _result(), HEADER))
    seen = np.isfinite(points["z"])
    np.testing.assert_allclose(points["z"][seen], 4.0, rtol=1e-5)
    # 0.2 m to the right at 4 m is half a pixel: the reference's left edge sees nothing of it.
    assert seen[:, 1:].all()
    columns = np.broadcast_to(np.arange(WIDTH), seen.shape)
    np.testing.assert_allclose(points["x"][seen], (columns[seen] - 3.5) / 10 * 4, rtol=1e-5)


def test_a_set_around_another_camera_has_its_points_there() -> None:
    make = CloudMaker(Rig.parse({"sensors": SHIFTED}))
    depth_m = np.arange(1, HEIGHT * WIDTH + 1, dtype=np.float32).reshape(HEIGHT, WIDTH)
    frames = _frames(depth_m, camera=CAMERA)
    points = _points(make(replace(frames, reference="depth"), _result(), HEADER))
    np.testing.assert_array_equal(points["z"], depth_m)  # as it was measured
    # Depth is 0.2 m to the right of rgb, and thermal where rgb is.
    thermal = Frame("thermal", 1, np.full((HEIGHT, WIDTH), 300, np.float32), camera=CAMERA)
    make.place("thermal", Extrinsics(translation_m=(0, 0, 0), rotation_xyzw=(0, 0, 0, 1)))
    around = FrameSet("thermal", {"thermal": thermal, "depth": frames.frames["depth"]})
    found, expected = (_points(make(one, _result(), HEADER)) for one in (around, frames))
    np.testing.assert_array_equal(found["z"], expected["z"])


def test_no_cloud_without_depth_or_calibration() -> None:
    frames = _frames(np.ones((HEIGHT, WIDTH), np.float32))
    make = CloudMaker(Rig.parse({"sensors": ALIGNED}))
    alone = FrameSet("rgb", {"rgb": frames.frames["rgb"]})
    assert make(alone, _result(), HEADER) is None
    blind = replace(frames.frames["rgb"], camera=None)
    assert make(FrameSet("rgb", {**frames.frames, "rgb": blind}), _result(), HEADER) is None


def test_ros_own_reader_finds_the_same_points() -> None:
    reader = pytest.importorskip(
        "sensor_msgs_py.point_cloud2", reason="sensor_msgs_py comes with a ROS workspace only"
    )
    frames = _frames(np.full((HEIGHT, WIDTH), 2.0, np.float32))
    message = CloudMaker(Rig.parse({"sensors": ALIGNED}))(frames, _result(), HEADER)
    ours = _points(message).ravel()
    theirs = reader.read_points(message)
    for name in ("x", "y", "z", "label", "confidence"):
        np.testing.assert_array_equal(ours[name], theirs[name])
    for field, name in zip(message.fields, LAYOUT.names, strict=True):
        assert (field.name, field.offset) == (name, LAYOUT.fields[name][1])


def test_ros_own_writer_makes_the_same_message() -> None:
    library = pytest.importorskip(
        "sensor_msgs_py.point_cloud2", reason="sensor_msgs_py comes with a ROS workspace only"
    )
    frames = _frames(np.full((HEIGHT, WIDTH), 2.0, np.float32))
    ours = CloudMaker(Rig.parse({"sensors": ALIGNED}))(frames, _result(), HEADER)
    kind = library.dtype_from_fields(ours.fields, ours.point_step)
    points = np.frombuffer(ours.data, kind)  # theirs takes an organized cloud as its transpose
    theirs = library.create_cloud(HEADER, ours.fields, points, point_step=ours.point_step)
    assert (theirs.width, theirs.row_step) == (WIDTH * HEIGHT, HEIGHT * ours.row_step)
    for name in ("fields", "point_step", "is_bigendian", "is_dense", "data"):
        assert getattr(ours, name) == getattr(theirs, name), name
