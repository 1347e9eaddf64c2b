"""Depth images as another camera would have taken them.

Distances are inverse depths here, 1/m: 0 is infinitely far, the nearest is the largest, and the
point q r + t of a ray r is a sum of two vectors that do not depend on the image.
"""

from __future__ import annotations

from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import RigError
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.poses import Pose
from unim2_core.sensing.resampling import Size

Inverse = NDArray[np.float32]
Mask = NDArray[np.bool_]

_Scalar = TypeVar("_Scalar", bound=np.generic)

_IN_FRONT = np.float32(1e-3)
_ENOUGH_AROUND = 4  # of the eight neighbours, for a hole to be filled


class DepthProjection:
    """The z-buffer of one camera, from the depth images of another.

    What does not change from image to image is prepared once. The buffer is never finer than
    the depth image, else it would have holes between its points; nor is the depth image read
    finer than the buffer.

    Args:
        depth_camera: of the depth image, at the image's size.
        pose: of the depth camera in the frame of ``target``.
        target: camera to see the depth from, at the wanted size; its distortion is ignored.

    Attributes:
        camera: the camera of the z-buffer: ``target``, perhaps smaller.
    """

    def __init__(self, depth_camera: Intrinsics, pose: Pose, target: Intrinsics) -> None:
        share_x = min(1.0, depth_camera.fx / target.fx)
        share_y = min(1.0, depth_camera.fy / target.fy)
        size = (max(int(target.height * share_y), 1), max(int(target.width * share_x), 1))
        self.camera = target.rectified.scaled(size)
        self._steps = (
            max(int(depth_camera.fy / self.camera.fy), 1),
            max(int(depth_camera.fx / self.camera.fx), 1),
        )
        rays = self._thinned(depth_camera.rays())
        ones = np.ones_like(rays[..., :1])
        turned = np.concatenate([rays, ones], axis=-1).reshape(-1, 3) @ pose.rotation.T
        # Half a pixel makes truncation rounding; one more leaves room for a border.
        to_pixels = self.camera.matrix
        to_pixels[:2, 2] += 1.5
        self._turned = (to_pixels @ turned.T).astype(np.float32)  # (3, n)
        self._shift = (to_pixels @ pose.translation).astype(np.float32)  # (3,)
        self._shape = (depth_camera.height, depth_camera.width)

    def _thinned(self, image: NDArray[_Scalar]) -> NDArray[_Scalar]:
        rows, columns = self._steps
        return image[rows // 2 :: rows, columns // 2 :: columns]

    def __call__(self, depth_m: NDArray[np.float32], valid: Mask | None = None) -> Inverse:
        """Project one image; the nearest point of each pixel wins.

        Args:
            depth_m: (H, W) float32 metres along the optical axis. NaN, infinity, zero and less
                are no measurement.
            valid: (H, W) bool; None = all.

        Returns:
            Inverse depth at the size of ``camera``, 1/m; 0 where nothing was measured.

        Raises:
            RigError: the image has another size than the camera.
        """
        if depth_m.shape != self._shape:
            raise RigError(
                "a depth image does not fit its calibration",
                expected=f"{self._shape[1]}x{self._shape[0]} pixels",
                found=f"{depth_m.shape[::-1]}",
                remedy="check the camera_info of the depth camera",
            )
        inverse = inverse_depth(
            self._thinned(depth_m), None if valid is None else self._thinned(valid)
        ).ravel()
        x, y, z = self._turned
        distance = z + self._shift[2] * inverse
        behind = distance < _IN_FRONT
        np.maximum(distance, _IN_FRONT, out=distance)
        np.divide(1, distance, out=distance)
        width, height = self.camera.width + 2, self.camera.height + 2
        column = self._pixel(x, self._shift[0], inverse, distance, width)
        row = self._pixel(y, self._shift[1], inverse, distance, height)
        row *= width
        row += column
        # What is not measured has inverse depth 0, which never wins.
        inverse *= distance
        inverse[behind] = 0
        buffer = np.zeros(height * width, np.float32)
        np.maximum.at(buffer, row, inverse)
        return np.ascontiguousarray(buffer.reshape(height, width)[1:-1, 1:-1])

    @staticmethod
    def _pixel(
        turned: NDArray[np.float32],
        shift: np.float32,
        inverse: Inverse,
        scale: NDArray[np.float32],
        count: int,
    ) -> NDArray[np.intp]:
        """Row or column; 0 and ``count`` - 1 are the border, for what is outside."""
        place = shift * inverse
        place += turned
        place *= scale
        np.clip(place, 0, count - 1, out=place)
        return place.astype(np.intp)


def inverse_depth(depth_m: NDArray[np.float32], valid: Mask | None = None) -> Inverse:
    """1 / depth as a new array, 0 where it is not valid, NaN, infinite, zero or negative."""
    measured = depth_m > 0
    if valid is not None:
        measured &= valid
    inverse = np.zeros(depth_m.shape, np.float32)
    np.divide(1, depth_m, out=inverse, where=measured)  # 1 / infinity is 0
    return inverse


def fill_small_holes(inverse: Inverse, rounds: int = 2) -> Inverse:
    """Fill pixels that are mostly surrounded, with the farthest of their neighbours.

    A hole beside something near is nearly always the shadow that it casts, so the background
    continues there.

    Args:
        inverse: (h, w) inverse depth, 0 = hole.
        rounds: each closes holes by one pixel from their outline.
    """
    block = np.ones((3, 3), np.uint8)
    for _ in range(rounds):
        hole = inverse == 0
        known = cv2.boxFilter(
            (~hole).astype(np.float32),
            -1,
            (3, 3),
            normalize=False,
            borderType=cv2.BORDER_REPLICATE,
        )
        farthest = cv2.erode(np.where(hole, np.float32(np.inf), inverse), block)
        inverse = np.where(hole & (known > _ENOUGH_AROUND - 0.5), farthest, inverse)
    return inverse


def reproject_depth(
    depth_m: NDArray[np.float32],
    valid: Mask | None,
    depth_camera: Intrinsics,
    pose: Pose,
    reference: Intrinsics,
    size: Size,
) -> tuple[NDArray[np.float32], Mask]:
    """A depth image as the reference camera would have taken it.

    Args:
        depth_m: (H, W) float32 metres; NaN, infinity, zero and less are no measurement.
        valid: (H, W) bool; None = all.
        depth_camera: that took it, at any size.
        pose: of the depth camera in the reference camera's frame.
        reference: the reference camera, at any size; its distortion is ignored.
        size: (height, width) of the result.

    Returns:
        (h, w) float32 metres, 0 where not valid; (h, w) bool, True where something was measured
        or a small hole is surrounded by measurements.

    Raises:
        RigError: an image without pixels, or a size of 0.
    """
    if min(*depth_m.shape, *size) < 1:
        raise RigError(
            "there is nothing to project",
            expected="a depth image and a size greater than zero",
            found=f"{depth_m.shape} to {size}",
            remedy="check the depth images and the size asked for",
        )
    projection = DepthProjection(
        depth_camera.scaled((depth_m.shape[0], depth_m.shape[1])), pose, reference.scaled(size)
    )
    inverse = fill_small_holes(projection(depth_m, valid))
    inverse = cv2.resize(inverse, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    measured = inverse > 0
    return np.divide(1, inverse, out=np.zeros_like(inverse), where=measured), measured
