"""Pinhole cameras, and where they look from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera; pixel centres have whole coordinates."""

    width: int
    height: int
    focal_px: float
    cx: float
    cy: float

    @classmethod
    def of_view(cls, width: int, height: int, hfov_deg: float) -> Camera:
        """A camera with square pixels, the principal point in the middle and a field of view."""
        focal = width / 2 / float(np.tan(np.deg2rad(hfov_deg) / 2))
        return cls(width, height, focal, (width - 1) / 2, (height - 1) / 2)

    def band(self, rows: slice) -> Camera:
        """The camera that sees only some rows."""
        return Camera(
            self.width, rows.stop - rows.start, self.focal_px, self.cx, self.cy - rows.start
        )

    @property
    def x(self) -> Floats:
        """(W,) x / z of each column's ray."""
        return ((np.arange(self.width) - self.cx) / self.focal_px).astype(np.float32)

    @property
    def y(self) -> Floats:
        """(H,) y / z of each row's ray."""
        return ((np.arange(self.height) - self.cy) / self.focal_px).astype(np.float32)

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(3, 3) intrinsic matrix K."""
        f = self.focal_px
        return np.array([[f, 0, self.cx], [0, f, self.cy], [0, 0, 1]])


@dataclass(frozen=True, eq=False)
class View:
    """A camera somewhere: p_camera = (p - position) @ rotation.

    Attributes:
        camera: its intrinsics.
        rotation: (3, 3) optical frame (x right, y down, z forward) to the frame of the solids.
        position: (3,) metres.
    """

    camera: Camera
    rotation: Floats
    position: Floats

    def band(self, rows: slice) -> View:
        """The view of only some rows."""
        return View(self.camera.band(rows), self.rotation, self.position)
