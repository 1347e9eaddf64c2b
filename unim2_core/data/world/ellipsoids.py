"""Drawing ellipsoids: a ray r meets one where the quadratic form r' Q r is not negative.

With W (p - c) on the unit sphere, M = W' W and s = c' M c - 1 (positive outside), Q is
M c c' M - s M, and the nearer hit has the inverse depth (c' M r + sqrt(r' Q r)) / s.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world.canvas import NEAR_M, Canvas, Floats, front_to_back
from unim2_core.data.world.solids import Solid

_SMALLEST_PIXELS = 1.5
"""Ellipsoids that are smaller than this are left out."""
_SMALL_AREA = 900
"""Ellipsoids with smaller boxes are drawn all at once, pixel by pixel, the others one by one."""
_LEAF_GRID = 24
_LEAF_NOISE = (
    np.random.Generator(np.random.PCG64(7)).random((64, _LEAF_GRID, _LEAF_GRID)).astype(np.float32)
)


@dataclass(frozen=True, eq=False)
class _Outlines:
    """Ellipsoids as the camera sees them, one row each; x and y are of rays with z = 1.

    Attributes:
        quadric: (E, 3, 3) Q.
        pull: (E, 3) M c.
        rest: (E,) s.
        peak: (E,) r' Q r of the ray through the centre.
        low, high: (E, 2) corners of the outline's box, pixels, not clipped.
        boxes: (E, 4) the same, clipped to the image.
        highest: (E,) inverse depth of the nearest point.
        seen: (E,) bool, in front of the camera, in the image and not tiny.
    """

    quadric: Floats
    pull: Floats
    rest: Floats
    peak: Floats
    low: Floats
    high: Floats
    boxes: NDArray[np.int64]
    highest: Floats
    seen: NDArray[np.bool_]


def draw_ellipsoids(canvas: Canvas, solid: Solid) -> None:
    """Draw the ellipsoids of a solid; those that reach behind the camera are left out."""
    if not len(solid.centres):
        return
    outlines = _outlines(canvas, solid)
    size = outlines.boxes[:, 2:] - outlines.boxes[:, :2]
    small = size[:, 0] * size[:, 1] < _SMALL_AREA
    _draw_large(canvas, solid, outlines, outlines.seen & ~small)
    _draw_small(canvas, solid, outlines, np.flatnonzero(outlines.seen & small))


def _outlines(canvas: Canvas, solid: Solid) -> _Outlines:
    centres = canvas.to_camera(solid.centres - canvas.view.position)  # (E, 3)
    shapes = canvas.to_camera(solid.shapes)
    metric = np.einsum("eki,ekj->eij", shapes, shapes)
    pull = np.einsum("eij,ej->ei", metric, centres)
    rest = np.einsum("ei,ei->e", pull, centres) - 1
    reach = np.sqrt(np.linalg.inv(metric)[:, 2, 2])
    safe = np.where(rest > 0, rest, 1)
    quadric = pull[:, :, None] * pull[:, None, :] - safe[:, None, None] * metric
    camera = canvas.view.camera
    low, high = (
        (bound * camera.focal_px + (camera.cx, camera.cy)).astype(np.float32)
        for bound in _conic_bounds(quadric)
    )
    boxes = canvas.clipped(low, high)
    seen = (rest > 0) & (centres[:, 2] - reach > NEAR_M)
    seen &= (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    seen &= (high - low).max(1) > _SMALLEST_PIXELS
    peak = (safe + 1) / np.maximum(centres[:, 2], NEAR_M) ** 2
    highest = 1 / np.maximum(centres[:, 2] - reach, NEAR_M)
    nearest = np.asarray(highest, np.float32)
    return _Outlines(quadric, pull, safe, peak, low, high, boxes, nearest, seen)


def _conic_bounds(quadric: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest (x, y) on each conic r' Q r = 0, from its dual; (E, 2) each."""
    q = quadric.astype(np.float64)
    a, b, c = q[:, 0, 0], q[:, 0, 1], q[:, 0, 2]
    d, e, f = q[:, 1, 1], q[:, 1, 2], q[:, 2, 2]
    # Entries of the adjugate.
    xx, xz = d * f - e * e, b * e - c * d
    yy, yz = a * f - c * c, b * c - a * e
    zz = a * d - b * b
    zz = np.where(zz == 0, 1e-12, zz)
    wide = np.sqrt(np.maximum(xz * xz - xx * zz, 0)) / np.abs(zz)
    tall = np.sqrt(np.maximum(yz * yz - yy * zz, 0)) / np.abs(zz)
    middle, spread = np.stack([xz / zz, yz / zz], -1), np.stack([wide, tall], -1)
    return middle - spread, middle + spread


def _draw_large(
    canvas: Canvas, solid: Solid, outlines: _Outlines, chosen: NDArray[np.bool_]
) -> None:
    for index in front_to_back(outlines.highest, chosen):
        x0, y0, x1, y1 = outlines.boxes[index].tolist()
        box = (x0, y0, x1, y1)
        if canvas.hidden(box, outlines.highest[index]):
            continue
        x, y, q = canvas.x[x0:x1], canvas.y[y0:y1], outlines.quadric[index]
        form = y[:, None] * (2 * q[0, 1] * x)[None, :]
        form += ((q[0, 0] * x + 2 * q[0, 2]) * x)[None, :]
        form += ((q[1, 1] * y + 2 * q[1, 2]) * y + q[2, 2])[:, None]
        covered = form > 0
        if solid.ragged[index] > 0:
            scale = (_LEAF_GRID - 1) / np.maximum(outlines.high[index] - outlines.low[index], 1)
            shift = (np.array([x0, y0]) - outlines.low[index]) * scale
            noise = cv2.warpAffine(
                _LEAF_NOISE[solid.pattern[index]],
                np.array([[scale[0], 0, shift[0]], [0, scale[1], shift[1]]], np.float64),
                (x1 - x0, y1 - y0),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            )
            covered &= form > _leaf_edge(noise, solid.ragged[index]) * outlines.peak[index]
        inverse = np.sqrt(np.maximum(form, 0, out=form), out=form)
        inverse += canvas.plane(outlines.pull[index], box)
        inverse *= np.float32(1 / outlines.rest[index])
        canvas.write(box, covered, inverse, solid.polygons + index)


def _draw_small(
    canvas: Canvas, solid: Solid, outlines: _Outlines, chosen: NDArray[np.intp]
) -> None:
    """Draw many ellipsoids of few pixels as one list of pixels."""
    boxes = outlines.boxes[chosen]
    width = boxes[:, 2] - boxes[:, 0]
    count = width * (boxes[:, 3] - boxes[:, 1])
    index = np.repeat(chosen, count)  # (N,) ellipsoid of each pixel
    order = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count)
    down, right = np.divmod(order, np.repeat(width, count))
    column, line = right + outlines.boxes[index, 0], down + outlines.boxes[index, 1]
    x, y = canvas.x[column], canvas.y[line]
    q = outlines.quadric.reshape(-1, 9).T.take(index, axis=1)
    form = (q[0] * x + 2 * q[2]) * x + (q[4] * y + 2 * q[5] + 2 * q[1] * x) * y + q[8]
    p = outlines.pull.T.take(index, axis=1)
    root = np.sqrt(np.maximum(form, 0))
    inverse = (root + p[0] * x + p[1] * y + p[2]) / outlines.rest[index]
    scale = (_LEAF_GRID - 1) / np.maximum(outlines.high - outlines.low, 1)
    across = (column - outlines.low[index, 0]) * scale[index, 0]
    up = (line - outlines.low[index, 1]) * scale[index, 1]
    cell = np.clip(np.rint([up, across]), 0, _LEAF_GRID - 1).astype(np.intp)
    noise = _LEAF_NOISE[solid.pattern[index], cell[0], cell[1]]
    ragged = solid.ragged[index]
    edge = np.where(ragged > 0, _leaf_edge(noise, ragged) * outlines.peak[index], 0)
    pixel = line * canvas.view.camera.width + column
    nearest = canvas.seen.inverse_depth.reshape(-1)
    drawn = np.flatnonzero((form > edge) & (inverse > nearest[pixel]))
    # Of several hits on one pixel the last that is assigned stays: let that be the nearest.
    drawn = drawn[np.argsort(inverse[drawn], kind="stable")]
    nearest[pixel[drawn]] = inverse[drawn]
    canvas.seen.primitive.reshape(-1)[pixel[drawn]] = solid.polygons + 1 + index[drawn]


def _leaf_edge(noise: Floats, ragged: Floats) -> Floats:
    """How deep into a crown the background shows through, as a share of the crown's depth."""
    return np.where(noise > 0.93, np.float32(2.0), (np.float32(0.75) * ragged) * noise * noise)
