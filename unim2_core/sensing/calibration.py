"""The camera that a ``camera_info`` message describes, at any size of its image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import isfinite
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import RigError

Points = NDArray[np.float32]
_Float = TypeVar("_Float", bound=np.floating[Any])

_FISHEYE = ("equidistant", "fisheye")
_POLYNOMIAL = ("", "plumb_bob", "rational_polynomial")
_COEFFICIENTS = (4, 5, 8)
"""Numbers of coefficients that the polynomial has: k1 k2 p1 p2 k3 k4 k5 k6."""
_REFINEMENTS = 20
_EXACT_PX, _CLOSE_PX = 1e-4, 0.1
_NOWHERE = 1e6  # x / z of pixels that a distortion model does not reach: outside of every image
_BEYOND = 1.1  # no distortion model holds much further out than its image


@dataclass(frozen=True)
class Intrinsics:
    """A camera, pinhole but for its distortion. The centre of the first pixel is at (0, 0).

    Attributes:
        fx: focal length, pixels.
        fy: focal length, pixels.
        cx: principal point, pixels.
        cy: principal point, pixels.
        width: of the image that these numbers hold for, pixels.
        height: of that image, pixels.
        distortion: coefficients in OpenCV's order; none where the images are rectified.
        fisheye: the coefficients are those of the equidistant model, not of the polynomial.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int
    distortion: tuple[float, ...] = ()
    fisheye: bool = False

    def __post_init__(self) -> None:
        numbers = (self.fx, self.fy, self.cx, self.cy)
        positive = self.fx > 0 and self.fy > 0 and self.width > 0 and self.height > 0
        if not (positive and all(map(isfinite, numbers))):
            raise RigError(
                "a camera without calibration",
                expected="finite numbers, focal lengths and an image size greater than zero",
                found=f"fx, fy, cx, cy {numbers}, {self.width}x{self.height}",
                remedy="calibrate the camera, or make its driver publish camera_info",
            )
        known = (4,) if self.fisheye else _COEFFICIENTS
        if self.distortion and not (
            len(self.distortion) in known and np.isfinite(self.distortion).all()
        ):
            raise RigError(
                "a distortion that cannot be read",
                expected=f"{' or '.join(map(str, known))} finite coefficients",
                found=f"{self.distortion}",
                remedy="calibrate the camera anew, or publish rectified images",
            )

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(3, 3) intrinsic matrix K."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    @property
    def rectified(self) -> Intrinsics:
        """The camera with the same matrix that does not distort."""
        return replace(self, distortion=(), fisheye=False)

    def rays(self) -> Points:
        """Where each pixel looks: (height, width, 2) float32 x / z and y / z, not distorted.

        A million where no ray reaches the pixel: polynomials may end short of the corners.
        """
        columns, rows = np.meshgrid(np.arange(self.width), np.arange(self.height))
        pixels = np.stack([columns, rows], axis=-1).astype(np.float64)
        return self._undistorted(pixels).astype(np.float32)

    def project(self, rays: Points) -> Points:
        """Where a direction is seen.

        Args:
            rays: (..., 2) x / z and y / z of directions in front of the camera, finite.

        Returns:
            (..., 2) column and row, pixels; infinite where a distortion model does not reach.
        """
        if not self.distortion:
            scale = np.array([self.fx, self.fy], rays.dtype)
            return rays * scale + np.array([self.cx, self.cy], rays.dtype)
        pixels = self._distorted(rays)
        # Polynomials fold back: what is far outside must not come into view again.
        pixels[np.square(rays).sum(-1) > (_BEYOND * _reach(self)) ** 2] = np.inf
        return pixels

    def _distorted(self, rays: NDArray[_Float]) -> NDArray[_Float]:
        """As ``cv2.projectPoints`` and ``cv2.fisheye.distortPoints``, in a tenth of their time."""
        x, y = rays[..., 0], rays[..., 1]
        r2 = x * x + y * y
        pixels = np.empty_like(rays)
        if self.fisheye:
            k1, k2, k3, k4 = self.distortion
            r = np.sqrt(r2)
            theta = np.arctan(r)
            t2 = theta * theta
            theta *= 1 + t2 * (k1 + t2 * (k2 + t2 * (k3 + t2 * k4)))
            radial = np.where(r > 1e-8, theta / np.maximum(r, 1e-8), 1)
            pixels[..., 0] = x * radial * self.fx + self.cx
            pixels[..., 1] = y * radial * self.fy + self.cy
            return pixels
        k1, k2, p1, p2, k3, k4, k5, k6 = (*self.distortion, *(0.0,) * 8)[:8]
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        if k4 or k5 or k6:
            radial /= 1 + r2 * (k4 + r2 * (k5 + r2 * k6))
        xy = 2 * x * y
        pixels[..., 0] = (x * radial + p1 * xy + p2 * (r2 + 2 * x * x)) * self.fx + self.cx
        pixels[..., 1] = (y * radial + p2 * xy + p1 * (r2 + 2 * y * y)) * self.fy + self.cy
        return pixels

    def _undistorted(self, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
        focal = np.array([self.fx, self.fy])
        if not self.distortion:
            rays: NDArray[np.float64] = (pixels - (self.cx, self.cy)) / focal
            return rays
        undistort = cv2.fisheye.undistortPoints if self.fisheye else cv2.undistortPoints
        flat = undistort(pixels.reshape(-1, 1, 2), self.matrix, np.array(self.distortion))
        rays = np.asarray(flat, np.float64).reshape(pixels.shape)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for _ in range(_REFINEMENTS):  # OpenCV stops after five steps
                error_px = self._distorted(rays) - pixels
                if np.abs(error_px).max() < _EXACT_PX:
                    break
                rays -= error_px / focal
            reached = (np.abs(self._distorted(rays) - pixels) < _CLOSE_PX).all(axis=-1)
        rays[~reached] = _NOWHERE
        return rays

    def scaled(self, size: tuple[int, int]) -> Intrinsics:
        """The same camera, its whole image resized to (height, width).

        Edges stay edges: pixel u covers [u - 0.5, u + 0.5], hence the half pixels.
        """
        height, width = size
        sx, sy = width / self.width, height / self.height
        return replace(
            self,
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

        Binning and region of interest are applied as ``image_geometry`` does.

        Args:
            message: has ``k``, ``p``, ``d`` (or ``K``, ``P``, ``D``), ``distortion_model``,
                ``width``, ``height``, ``binning_x``, ``binning_y`` and ``roi``.
            rectified: the images are rectified, so ``P`` holds and nothing is distorted; else
                ``K`` and ``d``.

        Raises:
            RigError: the camera is not calibrated, or its distortion model is not known.
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
            **({} if rectified else _distortion(message)),
        )


def _matrix(message: Any, name: str) -> Sequence[float]:
    values = getattr(message, name, None)
    if values is None:  # ROS 1 spells them in capitals
        values = getattr(message, name.upper())
    return [float(value) for value in values]


def _distortion(message: Any) -> dict[str, Any]:
    coefficients = tuple(_matrix(message, "d"))
    if not any(coefficients):
        return {}
    model = message.distortion_model
    if model not in (*_FISHEYE, *_POLYNOMIAL):
        raise RigError(
            "a distortion model that is not known",
            expected=", ".join(filter(None, (*_POLYNOMIAL, *_FISHEYE))),
            found=model,
            remedy="publish rectified images with a camera_info that has no distortion",
        )
    return {"distortion": coefficients, "fisheye": model in _FISHEYE}


@lru_cache(maxsize=64)
def _reach(camera: Intrinsics) -> float:
    """Largest distance of a ray from the optical axis that the image shows, of z = 1."""
    columns, rows = np.meshgrid(
        np.linspace(0, camera.width - 1, 33), np.linspace(0, camera.height - 1, 33)
    )
    distance = np.linalg.norm(camera._undistorted(np.stack([columns, rows], axis=-1)), axis=-1)
    return float(distance[distance < _NOWHERE].max(initial=0.0))
