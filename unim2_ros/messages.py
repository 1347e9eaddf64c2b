"""Between arrays and ROS messages, the one place that does it."""

from __future__ import annotations

import array
import copy

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header


def image_message(pixels: NDArray[np.uint8], encoding: str, header: Header) -> Image:
    """Make an image message.

    Args:
        pixels: (H, W) or (H, W, 3) uint8, contiguous.
        encoding: ``mono8`` or ``rgb8``.
        header: used unchanged.
    """
    message = Image()
    message.header = header
    message.height, message.width = pixels.shape[:2]
    message.encoding = encoding
    message.step = pixels.strides[0]
    # rclpy checks anything but an array.array element by element, which takes seconds.
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(pixels).data)
    message.data = data
    return message


def camera_info_message(info: CameraInfo | None, header: Header) -> CameraInfo | None:
    """The same calibration with another header; None where there is none.

    Args:
        info: as it came; left as it is.
        header: used unchanged.
    """
    if info is None:
        return None
    message = copy.copy(info)
    message.header = header
    return message
