"""Between arrays and ROS messages, the one place that does it."""

from __future__ import annotations

import array

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
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
