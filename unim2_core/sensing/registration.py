"""Everything into the reference camera: which cell of a sensor sees what a reference cell sees.

A cell of the reference's grid looks along a ray r. With the inverse depth q of what it meets, the
sensor sees it in the direction R' (r - q t), where R, t is the sensor's pose in the reference's
frame. q comes from depth where there is depth; from a plane or a range it is a homography.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import RigError
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.poses import Pose
from unim2_core.sensing.reprojection import DepthProjection, Inverse, Mask, fill_small_holes
from unim2_core.sensing.warping import GridMap

FINENESS = 2
"""Cells of a z-buffer along the side of a grid's cell: near things must not grow by a cell."""
_IN_FRONT = np.float32(1e-3)
_ALIGNED_CELLS = 0.05  # largest shift that is no shift
_NEAREST_M = 0.3  # for which that has to hold


@dataclass(frozen=True)
class Assumption:
    """Where things are that no depth was measured of.

    Attributes:
        range_m: distance along the optical axis of the reference camera, metres; infinite: only
            the rotation between the cameras counts.
        plane: (nx, ny, nz, d) of a plane n p = d in the reference's optical frame, metres, that
            holds where a ray meets it nearer than ``range_m``. The ground below a level camera
            1.3 m high is (0, 1, 0, 1.3).
    """

    range_m: float = float("inf")
    plane: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        plane = self.plane
        if not self.range_m > 0 or not (
            plane is None or (np.isfinite(plane).all() and any(plane[:3]) and plane[3])
        ):
            raise RigError(
                "nothing can be at the assumed distance",
                expected="a range above 0 and a plane with a normal, not through the camera",
                found=f"range_m {self.range_m}, plane {plane}",
                remedy="mend the range or the plane; a range of infinity is always possible",
            )

    def inverse_depth(self, rays: NDArray[np.float32]) -> Inverse:
        """Of each ray (h, w, 2), 1/m."""
        inverse = np.full(rays.shape[:2], 1 / self.range_m, np.float32)
        if self.plane is not None:
            *normal, distance_m = self.plane
            along = rays @ np.array(normal[:2], np.float32) + np.float32(normal[2])
            np.maximum(inverse, along / np.float32(distance_m), out=inverse)
        return inverse

    def __str__(self) -> str:
        far = "infinitely far away" if np.isinf(self.range_m) else f"{self.range_m:g} m away"
        return far if self.plane is None else f"on the plane {self.plane}, else {far}"


class GridProjection:
    """Cells of the reference's grid seen by one sensor; prepared once.

    Args:
        reference: the reference camera at the size of its grid.
        sensor: the sensor's camera at the size of its grid.
        pose: of the sensor's camera in the reference camera's frame.
    """

    def __init__(self, reference: Intrinsics, sensor: Intrinsics, pose: Pose) -> None:
        self._sensor = sensor
        rays = reference.rays()
        ones = np.ones_like(rays[..., :1])
        back = pose.inverse
        turn = back.rotation.T
        turned = np.concatenate([rays, ones], axis=-1) @ turn  # (h, w, 3)
        self._turned: NDArray[np.float32] = turned.astype(np.float32)
        self._shift = back.translation.astype(np.float32)
        self._baseline_m = float(np.linalg.norm(pose.translation))

    def __call__(self, inverse: Inverse, nearest: tuple[Inverse, Intrinsics] | None) -> GridMap:
        """Where the sensor sees each cell.

        Args:
            inverse: (h, w) inverse depth of each cell in the reference camera, 1/m.
            nearest: z-buffer of the sensor, 1/m, and its camera; what is so much nearer there
                that the reference sees it in another cell of the buffer hides what is behind.
                None = nothing hides anything.
        """
        points: NDArray[np.float32] = self._turned + self._shift * inverse[..., None]
        distance = points[..., 2]
        visible = distance > _IN_FRONT
        distance = np.maximum(distance, _IN_FRONT)
        directions: NDArray[np.float32] = points[..., :2] / distance[..., None]
        if nearest is not None:
            buffer, camera = nearest
            rows, columns, inside = nearest_cells(camera, directions)
            gap = np.where(inside, buffer[rows, columns], 0) - inverse / distance
            visible &= gap * (self._baseline_m * max(camera.fx, camera.fy)) < 1
        source = (self._sensor.height, self._sensor.width)
        return GridMap.within(self._sensor.project(directions), visible, source)

    @property
    def aligned(self) -> bool:
        """Whether every cell is seen at the same place of the image, whatever its distance."""
        size = self._turned.shape[:2]
        source = (self._sensor.height, self._sensor.width)
        twins = GridMap.stretched((size[0], size[1]), source).coordinates
        return all(
            np.abs(self(np.full(size, q, np.float32), None).coordinates - twins).max()
            < _ALIGNED_CELLS
            for q in (0.0, 1 / _NEAREST_M)
        )


def rectification(camera: Intrinsics) -> GridMap:
    """The map that takes a camera's images to those of ``camera.rectified``."""
    projection = GridProjection(camera.rectified, camera, Pose.identity())
    return projection(np.zeros((camera.height, camera.width), np.float32), None)


class DepthGrid:
    """Inverse depth of each cell of the reference's grid, from the depth camera; prepared once.

    Args:
        depth_camera: at the size of the depth image.
        pose: of the depth camera in the reference camera's frame.
        reference: the reference camera at the size of its grid.
        assumption: for cells that nothing was measured of.
    """

    def __init__(
        self,
        depth_camera: Intrinsics,
        pose: Pose,
        reference: Intrinsics,
        assumption: Assumption,
    ) -> None:
        self._projection = DepthProjection(depth_camera, pose, finer(reference))
        rays = reference.rays()
        self._rows, self._columns, self._inside = nearest_cells(self._projection.camera, rays)
        self._assumed = assumption.inverse_depth(rays)

    def __call__(self, depth_m: NDArray[np.float32], valid: Mask | None) -> tuple[Inverse, Mask]:
        """(h, w) inverse depth, 1/m, and (h, w) bool, True where it was not only assumed."""
        buffer = fill_small_holes(self._projection(depth_m, valid))
        inverse = buffer[self._rows, self._columns]
        measured = (inverse > 0) & self._inside
        return np.where(measured, inverse, self._assumed), measured


def finer(grid: Intrinsics) -> Intrinsics:
    """The camera of a grid at the size of its z-buffer."""
    return grid.scaled((FINENESS * grid.height, FINENESS * grid.width))


def nearest_cells(
    camera: Intrinsics, rays: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.intp], Mask]:
    """Row and column of the cell of an undistorted camera that each ray meets, and if it does.

    Rows and columns of rays that miss the image are those of its nearest cell.
    """
    places = camera.project(rays)
    last = np.array([camera.width - 1, camera.height - 1], np.float32)
    within = np.clip(places, 0, last)
    inside = (np.abs(places - within) <= 0.5).all(axis=-1)
    cells = np.rint(within).astype(np.intp)
    return cells[..., 1], cells[..., 0], inside
