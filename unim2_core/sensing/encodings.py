"""The pixel encodings of ``sensor_msgs/image_encodings.hpp`` that our sensors send."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from unim2_core.sensing.frames import Array


@dataclass(frozen=True)
class Encoding:
    """How the bytes of one pixel are laid out.

    Attributes:
        kind: ``yuv422`` shares chroma between two columns, ``yuv420`` between 2x2 pixels and
            keeps it in a plane below the luma.
        sample: type of one sample, native byte order.
        samples: samples in a pixel.
        to_rgb: OpenCV code of the conversion to RGB, None where there is nothing to convert.
    """

    kind: Literal["mono", "color", "bayer", "yuv422", "yuv420"]
    sample: np.dtype[Any]
    samples: int = 1
    to_rgb: int | None = None

    @property
    def pixel_bytes(self) -> int:
        """Bytes of a pixel in a row of the message."""
        return self.samples * int(self.sample.itemsize)

    def rows(self, height: int) -> int:
        """Rows of ``step`` bytes in a message whose image has ``height`` rows."""
        return height * 3 // 2 if self.kind == "yuv420" else height

    def size_problem(self, height: int, width: int) -> str:
        """What a size must be for this encoding, empty where (height, width) is possible."""
        if self.kind == "bayer" and min(height, width) < 3:
            return "at least 3x3 pixels for a Bayer pattern"
        if self.kind == "yuv422" and width % 2:
            return "an even width for 4:2:2 chroma"
        if self.kind == "yuv420" and (width % 2 or height % 2):
            return "an even width and height for 4:2:0 chroma"
        return ""


_U8 = np.dtype(np.uint8)
_U16 = np.dtype(np.uint16)

# The CV types 8UC3 and 8UC4 name no colour; RViz and cv_bridge's users take them as BGR(A).
ENCODINGS = {
    "mono8": Encoding("mono", _U8),
    "8UC1": Encoding("mono", _U8),
    "mono16": Encoding("mono", _U16),
    "16UC1": Encoding("mono", _U16),
    "16SC1": Encoding("mono", np.dtype(np.int16)),
    "32FC1": Encoding("mono", np.dtype(np.float32)),
    "rgb8": Encoding("color", _U8, 3),
    "rgb16": Encoding("color", _U16, 3),
    "bgr8": Encoding("color", _U8, 3, cv2.COLOR_BGR2RGB),
    "8UC3": Encoding("color", _U8, 3, cv2.COLOR_BGR2RGB),
    "bgr16": Encoding("color", _U16, 3, cv2.COLOR_BGR2RGB),
    "rgba8": Encoding("color", _U8, 4, cv2.COLOR_RGBA2RGB),
    "rgba16": Encoding("color", _U16, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": Encoding("color", _U8, 4, cv2.COLOR_BGRA2RGB),
    "8UC4": Encoding("color", _U8, 4, cv2.COLOR_BGRA2RGB),
    "bgra16": Encoding("color", _U16, 4, cv2.COLOR_BGRA2RGB),
    # ROS names a pattern by its first 2x2 block, OpenCV by the block one pixel further down and
    # right. (Its longer names, which do as ROS does, came after the OpenCV of Ubuntu 22.04.)
    "bayer_rggb8": Encoding("bayer", _U8, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": Encoding("bayer", _U8, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_grbg8": Encoding("bayer", _U8, 1, cv2.COLOR_BayerGB2RGB),
    "bayer_gbrg8": Encoding("bayer", _U8, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_rggb16": Encoding("bayer", _U16, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr16": Encoding("bayer", _U16, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_grbg16": Encoding("bayer", _U16, 1, cv2.COLOR_BayerGB2RGB),
    "bayer_gbrg16": Encoding("bayer", _U16, 1, cv2.COLOR_BayerGR2RGB),
    "uyvy": Encoding("yuv422", _U8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422": Encoding("yuv422", _U8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": Encoding("yuv422", _U8, 2, cv2.COLOR_YUV2RGB_YUYV),
    "yuv422_yuy2": Encoding("yuv422", _U8, 2, cv2.COLOR_YUV2RGB_YUYV),
    "nv12": Encoding("yuv420", _U8, 1, cv2.COLOR_YUV2RGB_NV12),
    "nv21": Encoding("yuv420", _U8, 1, cv2.COLOR_YUV2RGB_NV21),
}


def high_bytes(samples: Array) -> Array:
    """Cut 16-bit samples to their high byte; 8-bit samples pass through unchanged.

    Args:
        samples: any shape, uint16 or uint8.

    Returns:
        The same shape, uint8.
    """
    if samples.dtype == np.uint8:
        return samples
    return (samples >> 8).astype(np.uint8)


def to_rgb(pixels: Array, encoding: Encoding) -> Array:
    """Convert pixels of any encoding but ``mono`` to RGB.

    16-bit samples are cut before the conversion, which makes it cheaper and costs a demosaiced
    value at most one count.

    Args:
        pixels: (H, W) or (H, W, samples), uint8 or uint16; ``yuv420`` (3H/2, W).
        encoding: what the samples mean.

    Returns:
        (H, W, 3) uint8 red, green, blue; ``pixels`` itself where it is that already.
    """
    pixels = high_bytes(pixels)
    return pixels if encoding.to_rgb is None else cv2.cvtColor(pixels, encoding.to_rgb)
