"""Messages that no driver should send: each becomes a frame, a DecodeError or a count.

A thousand of each kind: images and both kinds of compressed images spread over the five sensors,
camera_infos of one; and some of each to a node in a process of its own.
"""

from __future__ import annotations

import array
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from builtin_interfaces.msg import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from unim2_core.errors import DecodeError
from unim2_core.sensing.intake import Intake
from unim2_core.sensing.rig import SENSORS, Rig

pytestmark = pytest.mark.ros
ENCODINGS = (
    *("rgb8", "bgr8", "rgba8", "bgra8", "rgb16", "bgr16", "mono8", "mono16", "8UC1", "8UC3"),
    *("16UC1", "16SC1", "32FC1", "64FC1", "32SC1", "8SC1", "32FC3", "16UC4", "yuv422", "nv21"),
    *("bayer_rggb8", "bayer_bggr16", "bayer_gbrg8", "bayer_grbg16", "", "sonar9"),
)
FORMATS = (
    *("jpeg", "png", "rgb8; jpeg compressed bgr8", "16UC1; compressedDepth png", "32FC1; rvl", ""),
    "16UC1; compressedDepth rvl",
)
SIZES = st.one_of(st.integers(0, 40), st.sampled_from([2**16, 2**31 - 1, 2**32 - 1]))
STAMPS = st.builds(
    Time,
    sec=st.one_of(st.just(1_700_000_000), st.integers(-(2**31), 2**31 - 1)),
    nanosec=st.integers(0, 2**32 - 1),
)
BYTES = st.binary(max_size=2048)


@st.composite
def images(draw: st.DrawFn) -> Image:
    """Fields that may or may not fit one another."""
    height, width = draw(SIZES), draw(SIZES)
    fitting = width * draw(st.sampled_from([1, 2, 3, 4, 6, 8, 12])) % 2**32
    step = draw(st.one_of(st.just(fitting), SIZES))
    data = draw(BYTES)
    if step * height < 20_000 and draw(st.booleans()):  # so that some can be decoded
        data = (data or b"\x7f") * (step * height // max(len(data), 1) + 1)
        data = data[: step * height]
    message = Image(height=height, width=width, step=step, is_bigendian=draw(st.integers(0, 1)))
    message.encoding = draw(st.one_of(st.sampled_from(ENCODINGS), st.text(max_size=8)))
    message.data = array.array("B", data)
    message.header = Header(stamp=draw(STAMPS))
    return message


@st.composite
def compressed(draw: st.DrawFn) -> CompressedImage:
    """Bytes that are no picture, or begin like one."""
    start = draw(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", bytes(12)]))
    message = CompressedImage(
        format=draw(st.one_of(st.sampled_from(FORMATS), st.text(max_size=8)))
    )
    message.data = array.array("B", start + draw(BYTES))
    message.header = Header(stamp=draw(STAMPS))
    return message


def _take(sensor: str, topic: str, message: Any) -> None:
    """Take a message in as the node does; it has to become one of three things."""
    intake = Intake(Rig.parse({"reference": sensor, "sensors": {sensor: {"topic": topic}}}))
    matched = intake.add(topic, message, 1_700_000_000_000_000_000) + intake.flush()
    counts = intake.counters
    if not matched:
        assert sum(counts.values()) == 1, "counted once, with its reason"
        return
    assert len(matched) == counts["sets"] == 1
    try:
        frames = intake.decode(matched[0])
    except DecodeError as error:
        assert error.what.startswith(f"{sensor} image on {topic}")
        assert intake.counters[f"{sensor}/not decodable"] == 1
        return
    frame = frames.frames[sensor]
    assert frame.height > 0 and frame.width > 0
    if frame.valid is not None:
        assert frame.valid.shape == frame.data.shape[:2]
        assert np.isfinite(frame.data[frame.valid]).all()


def _hard(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("sensor", SENSORS)
@_hard(200)
@given(message=images())
def test_images(sensor: str, message: Image) -> None:
    _take(sensor, "image", message)


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize("suffix", ["compressed", "compressedDepth"])
@_hard(200)
@given(message=compressed())
def test_compressed_images(sensor: str, suffix: str, message: CompressedImage) -> None:
    _take(sensor, f"image/{suffix}", message)


@example(size=(9, 9), k=[1.0, 0, np.nan, 0, 1.0, 0, 0, 0, 1], d=[], model="", binning=1)
@example(size=(9, 9), k=[np.inf, 0, 0, 0, 1.0, 0, 0, 0, 1], d=[], model="", binning=1)
@_hard(1000)
@given(
    size=st.tuples(SIZES, SIZES),
    k=st.lists(st.floats(), min_size=9, max_size=9),
    d=st.lists(st.floats(), max_size=14),
    model=st.one_of(
        st.sampled_from(["", "plumb_bob", "equidistant", "none"]), st.text(max_size=5)
    ),
    binning=st.integers(0, 2**32 - 1),
)
def test_camera_infos(
    size: tuple[int, int], k: list[float], d: list[float], model: str, binning: int
) -> None:
    intake = Intake(Rig.default(("rgb",), root=""))
    info = CameraInfo(height=size[0], width=size[1], k=k, d=d, distortion_model=model)
    info.binning_x = binning
    intake.add_camera_info("rgb/camera_info", info)
    refused = intake.counters.get("rgb/camera_info without calibration", 0)
    assert refused + len(intake._cameras) == 1
    for camera in intake._cameras.values():
        assert camera.width > 0 and np.isfinite(camera.matrix).all()
