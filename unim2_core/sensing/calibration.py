"""The pinhole camera that a ``camera_info`` message describes, at any size of its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unim2_core.errors import RigError


@dataclass(frozen=True)
class Intrinsics:
    """A pinhole camera. The centre of the first pixel is at (0, 0).

    Attributes:
        fx: focal length, pixels.
        fy: focal length, pixels.
        cx: principal point, pixels.
        cy: principal point, pixels.
        width: of the image that these numbers hold for, pixels.
        height: of that image, pixels.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        if not (self.fx > 0 and self.fy > 0 and self.width > 0 and self.height > 0):
            raise RigError(
                "a camera without calibration",
                expected="focal lengths and an image size greater than zero",
                found=f"fx {self.fx}, fy {self.fy}, {self.width}x{self.height}",
                remedy="calibrate the camera, or make its driver publish camera_info",
            )

    def scaled(self, size: tuple[int, int]) -> Intrinsics:
        """The same camera, its whole image resized to (height, width).

        Edges stay edges: pixel u covers [u - 0.5, u + 0.5], hence the half pixels.
        """
        height, width = size
        sx, sy = width / self.width, height / self.height
        return Intrinsics(
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
            width=width,
            height=height,
        )

    @classmethod
    def from_camera_info(cls, message: Any, *, rectified: bool = False) -> Intrinsics:
        """Read a ``sensor_msgs/CameraInfo`` of ROS 1 or 2, from any library.

        Binning and region of interest are applied as ``image_geometry`` does. Distortion is
        not: a raw image of a camera with a wide lens is only approximately pinhole.

        Args:
            message: has ``k``, ``p`` (or ``K``, ``P``), ``width``, ``height``, ``binning_x``,
                ``binning_y`` and ``roi``.
            rectified: the images are rectified, so ``P`` holds; else ``K``.

        Raises:
            RigError: the camera is not calibrated.
        """
        matrix = _matrix(message, "p" if rectified else "k")
        stride = len(matrix) // 3  # K is 3x3, P 3x4
        fx, cx, fy, cy = matrix[0], matrix[2], matrix[stride + 1], matrix[stride + 2]
        roi = message.roi
        binning_x, binning_y = max(message.binning_x, 1), max(message.binning_y, 1)
        return cls(
            fx=fx / binning_x,
            fy=fy / binning_y,
            cx=(cx - roi.x_offset) / binning_x,
            cy=(cy - roi.y_offset) / binning_y,
            width=(roi.width or message.width) // binning_x,
            height=(roi.height or message.height) // binning_y,
        )


def _matrix(message: Any, name: str) -> Sequence[float]:
    values = getattr(message, name, None)
    if values is None:  # ROS 1 spells them in capitals
        values = getattr(message, name.upper())
    return [float(value) for value in values]
