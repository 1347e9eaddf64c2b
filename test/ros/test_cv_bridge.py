"""Our conversions between messages and arrays against ROS' own."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from unim2_core.sensing.compressed import decode_compressed
from unim2_core.sensing.images import decode_image
from unim2_ros.messages import image_message

pytestmark = pytest.mark.ros
HEIGHT, WIDTH, PADDING = 7, 10, 12
ONE_CHANNEL = {
    "mono8": np.uint8,
    "8UC1": np.uint8,
    "mono16": np.uint16,
    "16UC1": np.uint16,
    "16SC1": np.int16,
    "32FC1": np.float32,
}
COLOUR = {"rgb8": 3, "bgr8": 3, "rgba8": 4, "bgra8": 4}


@pytest.fixture
def bridge() -> Any:
    cv_bridge = pytest.importorskip(
        "cv_bridge", reason="cv_bridge comes with a ROS workspace only", exc_type=ImportError
    )
    return cv_bridge.CvBridge()


def _message(samples: np.ndarray, encoding: str, *, big_endian: bool = False) -> Image:
    """With padded rows, by whole pixels: cv_bridge takes no other."""
    stored = samples.astype(samples.dtype.newbyteorder(">" if big_endian else "<"))
    rows = stored.reshape(HEIGHT, -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, PADDING)))
    message = Image(height=HEIGHT, width=WIDTH, encoding=encoding, is_bigendian=int(big_endian))
    message.step = padded.shape[1]
    message.data = padded.tobytes()
    return message


def _samples(kind: Any, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (HEIGHT, WIDTH, *shape, np.dtype(kind).itemsize), np.uint8).view(
        kind
    )[..., 0]


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", ONE_CHANNEL)
def test_one_channel(bridge: Any, encoding: str, big_endian: bool) -> None:
    if big_endian and np.lib.NumpyVersion(np.__version__) >= "2.0.0" and sys.byteorder == "little":
        pytest.skip("cv_bridge cannot turn bytes around with NumPy 2")
    message = _message(_samples(ONE_CHANNEL[encoding]), encoding, big_endian=big_endian)
    theirs = bridge.imgmsg_to_cv2(message)
    ours = decode_image(message)
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("encoding", COLOUR)
def test_colour(bridge: Any, encoding: str) -> None:
    message = _message(_samples(np.uint8, COLOUR[encoding]), encoding)
    theirs = bridge.imgmsg_to_cv2(message, desired_encoding="rgb8")
    np.testing.assert_array_equal(decode_image(message), theirs)


def test_compressed(bridge: Any) -> None:
    message = bridge.cv2_to_compressed_imgmsg(_samples(np.uint16), dst_format="png")
    assert isinstance(message, CompressedImage)
    np.testing.assert_array_equal(
        decode_compressed(message), bridge.compressed_imgmsg_to_cv2(message)
    )


@pytest.mark.parametrize(("encoding", "shape"), [("mono8", ()), ("rgb8", (3,))])
def test_messages_that_we_publish(bridge: Any, encoding: str, shape: tuple[int, ...]) -> None:
    pixels, header = _samples(np.uint8, *shape), Header(frame_id="camera")
    ours = image_message(pixels, encoding, header)
    assert ours == bridge.cv2_to_imgmsg(pixels, encoding=encoding, header=header)
    np.testing.assert_array_equal(bridge.imgmsg_to_cv2(ours), pixels)
