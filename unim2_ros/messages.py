"""Between arrays and ROS messages, the one place that does it."""

from __future__ import annotations

import array
import copy
from collections.abc import Sequence

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


def camera_info_message(
    info: CameraInfo | None, header: Header, scale: tuple[float, float] = (1.0, 1.0)
) -> CameraInfo | None:
    """The same calibration with another header; None where there is none.

    Args:
        info: as it came; left as it is.
        header: used unchanged.
        scale: rows and columns of the image that it is to be of, of those of the one that it is.
    """
    if info is None:
        return None
    message = copy.copy(info)
    message.header = header
    if scale != (1.0, 1.0):
        sy, sx = scale
        message.height, message.width = round(info.height * sy), round(info.width * sx)
        # Edges of the image's pixels stay edges, hence half a pixel, of K's smaller ones.
        shift = 0.5 * (sx - 1) * max(1, info.binning_x), 0.5 * (sy - 1) * max(1, info.binning_y)
        message.k, message.p = (_scaled(m, sx, sy, shift) for m in (info.k, info.p))
        roi = message.roi = copy.copy(info.roi)
        roi.x_offset, roi.width = round(roi.x_offset * sx), round(roi.width * sx)
        roi.y_offset, roi.height = round(roi.y_offset * sy), round(roi.height * sy)
    return message


def _scaled(
    matrix: Sequence[float], sx: float, sy: float, shift: tuple[float, float]
) -> NDArray[np.float64]:
    """K (3x3) or P (3x4) of a resized image, its principal point moved."""
    scaled = np.array(matrix, np.float64).reshape(3, -1)
    scaled[0] *= sx
    scaled[1] *= sy
    scaled[:2, 2] += shift
    return scaled.ravel()
