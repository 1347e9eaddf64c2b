"""Drawing polygons: planes whose inverse depth is linear in the image."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world.canvas import NEAR_M, Box, Canvas, Floats, front_to_back
from unim2_core.data.world.solids import Solid

_SUBPIXEL_BITS = 4
_BAR_PIXELS = 2.5
"""Fence bars closer together than this many pixels are drawn without gaps."""


def draw_polygons(canvas: Canvas, solid: Solid) -> None:
    """Draw the polygons of a solid, clipped at the near plane."""
    corners = canvas.to_camera(solid.corners - canvas.view.position)  # (P, 8, 3)
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1])
    distance = np.einsum("pi,pi->p", normal, corners[:, 0])
    facing = distance < 0  # the camera, at the origin, is in front of the plane
    depth = corners[..., 2]
    seen = (solid.two_sided | facing) & (depth.max(1) > NEAR_M) & (np.abs(distance) > 1e-9)
    whole = depth.min(1) > NEAR_M
    pixels = _projected(canvas, np.where(depth[..., None] > NEAR_M, corners, NEAR_M))
    boxes = canvas.clipped(pixels.min(1), pixels.max(1))
    inside = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    planes = normal / np.where(seen, distance, 1)[:, None]  # 1/z = plane . (x, y, 1)
    highest = 1 / np.maximum(depth.min(1), NEAR_M)
    outlines = _subpixels(pixels, boxes[:, None, :2])
    mask = np.zeros_like(canvas.seen.primitive, np.uint8)
    for row in front_to_back(highest, seen & (inside | ~whole)):
        outline, box = outlines[row], boxes[row]
        if not whole[row]:
            cut = _projected(canvas, _cut_near(corners[row]))
            box = canvas.clipped(cut.min(0), cut.max(0))
            outline = _subpixels(cut, box[:2])
        x0, y0, x1, y1 = box.tolist()
        if canvas.hidden((x0, y0, x1, y1), highest[row]):
            continue
        covered = mask[: y1 - y0, : x1 - x0]
        covered[:] = 0
        cv2.fillConvexPoly(covered, outline, 1, cv2.LINE_8, _SUBPIXEL_BITS)
        inverse = canvas.plane(planes[row], (x0, y0, x1, y1))
        drawn = covered.view(np.bool_)
        if solid.gaps[row, 0] > 0:
            drawn &= _bars(canvas, solid, row, (x0, y0, x1, y1), inverse)
        canvas.write((x0, y0, x1, y1), drawn, inverse, row)


def _projected(canvas: Canvas, points: Floats) -> Floats:
    """Pixels (..., 2) of points (..., 3) in the camera's axes."""
    camera = canvas.view.camera
    scale = camera.focal_px / points[..., 2:]
    return np.asarray(points[..., :2] * scale + (camera.cx, camera.cy), np.float32)


def _subpixels(pixels: Floats, origin: NDArray[np.int64]) -> NDArray[np.int32]:
    """Pixel coordinates relative to ``origin`` in OpenCV's fixed-point numbers."""
    limit = 2.0**30
    fixed = np.rint((pixels - origin) * (1 << _SUBPIXEL_BITS))
    return np.asarray(np.clip(fixed, -limit, limit).astype(np.int32))


def _cut_near(corners: Floats) -> Floats:
    """Clip one polygon at the near plane."""
    kept: list[Floats] = []
    for start, end in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if start[2] > NEAR_M:
            kept.append(start)
        if (start[2] > NEAR_M) != (end[2] > NEAR_M):
            share = (NEAR_M - start[2]) / (end[2] - start[2])
            kept.append(start + share * (end - start))
    return np.stack(kept)


def _bars(canvas: Canvas, solid: Solid, row: int, box: Box, inverse: Floats) -> NDArray[np.bool_]:
    """Which pixels of a fence meet a bar and not a gap."""
    period, share = solid.gaps[row].tolist()
    axis, origin = solid.coat.u[row], solid.coat.origin[row]
    start = float(np.sum(axis * (canvas.view.position - origin)))
    along = canvas.plane(canvas.to_camera(axis), box) / np.maximum(inverse, 1e-3) + start
    bar = np.mod(along, period) < share * period
    return np.asarray(bar | (inverse * (canvas.view.camera.focal_px * period) < _BAR_PIXELS))
