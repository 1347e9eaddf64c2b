"""The z-buffer that polygons and ellipsoids are drawn into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world.cameras import View

NEAR_M = 0.25
"""What is nearer to the camera's plane is not drawn."""

Floats = NDArray[np.float32]
Box = tuple[int, int, int, int]
"""First column, first row, last column + 1, last row + 1."""


@dataclass(frozen=True, eq=False)
class Visibility:
    """What each pixel sees.

    Attributes:
        primitive: (H, W) int32 row of the solid's coat plus one; 0 is the sky.
        inverse_depth: (H, W) float32, 1/m along the optical axis; 0 in the sky.
    """

    primitive: NDArray[np.int32]
    inverse_depth: Floats

    def band(self, rows: slice) -> Visibility:
        """What only some rows see."""
        return Visibility(self.primitive[rows], self.inverse_depth[rows])


class Canvas:
    """An image being drawn.

    Attributes:
        view: the camera.
        x: (W,) x / z of each column's ray.
        y: (H,) y / z of each row's ray.
        seen: what is nearest so far.
    """

    def __init__(self, view: View) -> None:
        self.view = view
        self.x, self.y = view.camera.x, view.camera.y
        shape = (view.camera.height, view.camera.width)
        self.seen = Visibility(np.zeros(shape, np.int32), np.zeros(shape, np.float32))

    def to_camera(self, vectors: Floats) -> Floats:
        """Turn (..., 3) directions into the camera's axes; without BLAS, see ``solids.py``."""
        return np.asarray(np.einsum("...i,ij->...j", vectors, self.view.rotation))

    def clipped(self, low: Floats, high: Floats) -> NDArray[np.int64]:
        """(N, 4) boxes of the pixels between corners (N, 2), empty outside the image."""
        size = np.array([self.view.camera.width, self.view.camera.height])
        first = np.clip(np.floor(low), 0, size)
        last = np.clip(np.ceil(high) + 1, 0, size)
        return np.concatenate([first, last], -1).astype(np.int64)

    def plane(self, plane: Floats, box: Box) -> Floats:
        """``plane`` . (x, y, 1) of every pixel in the box."""
        x0, y0, x1, y1 = box
        a, b, c = plane
        return np.asarray((a * self.x[x0:x1])[None, :] + (b * self.y[y0:y1] + c)[:, None])

    def hidden(self, box: Box, highest: float) -> bool:
        """Whether all pixels of the box show something nearer, or there is none."""
        x0, y0, x1, y1 = box
        area = self.seen.inverse_depth[y0:y1, x0:x1]
        return area.size == 0 or bool(area.min() >= highest)

    def write(self, box: Box, covered: NDArray[np.bool_], inverse: Floats, row: int) -> None:
        """Draw primitive ``row`` where it is ``covered`` and nearest; changes ``covered``."""
        x0, y0, x1, y1 = box
        nearest = self.seen.inverse_depth[y0:y1, x0:x1]
        covered &= inverse > nearest
        np.copyto(nearest, inverse, where=covered)
        np.copyto(self.seen.primitive[y0:y1, x0:x1], np.int32(row + 1), where=covered)


def front_to_back(highest: NDArray[Any], seen: NDArray[np.bool_]) -> list[int]:
    """Rows that are seen, by falling inverse depth of their nearest point."""
    rows = np.flatnonzero(seen)
    return [int(row) for row in rows[np.argsort(-highest[rows], kind="stable")]]
