"""Z-buffered rendering of solids: which primitive and what depth each pixel sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world.solids import Solid

NEAR_M = 0.25
_SUBPIXEL_BITS = 4
_BAR_PIXELS = 2.5
"""Fence bars closer together than this many pixels are drawn without gaps."""

Floats = NDArray[np.float32]
Box = tuple[int, int, int, int]


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


def rasterize(solid: Solid, view: View) -> Visibility:
    """Draw a solid with hidden surfaces removed."""
    canvas = _Canvas(view)
    canvas.draw_polygons(solid)
    canvas.draw_ellipsoids(solid)
    return Visibility(canvas.primitive, canvas.inverse)


class _Canvas:
    def __init__(self, view: View) -> None:
        camera = view.camera
        self._view = view
        self._x, self._y = camera.x, camera.y
        shape = (camera.height, camera.width)
        self.primitive = np.zeros(shape, np.int32)
        self.inverse = np.zeros(shape, np.float32)
        self._mask = np.zeros(shape, np.uint8)

    def _to_camera(self, vectors: Floats) -> Floats:
        return np.asarray(np.einsum("...i,ij->...j", vectors, self._view.rotation))

    def _project(self, points: Floats) -> Floats:
        camera = self._view.camera
        scale = camera.focal_px / points[..., 2:]
        return np.asarray(points[..., :2] * scale + (camera.cx, camera.cy), np.float32)

    def _clipped(self, low: Floats, high: Floats) -> NDArray[np.int64]:
        """(N, 4) x0, y0, x1, y1 of the pixels between corners, empty outside the image."""
        size = np.array([self._view.camera.width, self._view.camera.height])
        first = np.clip(np.floor(low), 0, size)
        last = np.clip(np.ceil(high) + 1, 0, size)
        return np.concatenate([first, last], -1).astype(np.int64)

    def _write(self, box: Box, visible: NDArray[np.bool_], inverse: Floats, row: int) -> None:
        x0, y0, x1, y1 = box
        nearest = self.inverse[y0:y1, x0:x1]
        visible &= inverse > nearest
        np.copyto(nearest, inverse, where=visible)
        np.copyto(self.primitive[y0:y1, x0:x1], np.int32(row + 1), where=visible)

    def _hidden(self, box: Box, highest: float) -> bool:
        """Whether all pixels of the box show something nearer, or there is none."""
        x0, y0, x1, y1 = box
        area = self.inverse[y0:y1, x0:x1]
        return area.size == 0 or bool(area.min() >= highest)

    def draw_polygons(self, solid: Solid) -> None:
        corners = self._to_camera(solid.corners - self._view.position)  # (P, 8, 3)
        edge = corners[:, 1] - corners[:, 0]
        normal = np.cross(edge, corners[:, 2] - corners[:, 1])
        distance = np.einsum("pi,pi->p", normal, corners[:, 0])
        facing = distance < 0  # the camera, at the origin, is in front of the plane
        depth = corners[..., 2]
        seen = (solid.two_sided | facing) & (depth.max(1) > NEAR_M) & (np.abs(distance) > 1e-9)
        whole = depth.min(1) > NEAR_M
        pixels = self._project(np.where(depth[..., None] > NEAR_M, corners, NEAR_M))
        boxes = self._clipped(pixels.min(1), pixels.max(1))
        inside = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
        planes = normal / np.where(seen, distance, 1)[:, None]  # 1/z = plane . (x, y, 1)
        highest = 1 / np.maximum(depth.min(1), NEAR_M)
        for row in _front_to_back(highest, seen & (inside | ~whole)):
            if whole[row]:
                outline, box = pixels[row], boxes[row]
            else:
                outline = self._project(_cut_near(corners[row]))
                box = self._clipped(outline.min(0), outline.max(0))
            x0, y0, x1, y1 = box.tolist()
            if not self._hidden((x0, y0, x1, y1), highest[row]):
                self._polygon(solid, int(row), outline, (x0, y0, x1, y1), planes[row])

    def _polygon(self, solid: Solid, row: int, outline: Floats, box: Box, plane: Floats) -> None:
        x0, y0, x1, y1 = box
        mask = self._mask[: y1 - y0, : x1 - x0]
        mask[:] = 0
        points = np.rint((outline - (x0, y0)) * (1 << _SUBPIXEL_BITS))
        limit = 2.0**30
        cv2.fillConvexPoly(
            mask, np.clip(points, -limit, limit).astype(np.int32), 1, cv2.LINE_8, _SUBPIXEL_BITS
        )
        inverse = self._plane(plane, box)
        visible = mask.view(np.bool_)
        period, share = solid.gaps[row].tolist()
        if period > 0:
            visible &= self._bars(solid, row, box, inverse, period, share)
        self._write(box, visible, inverse, row)

    def _bars(
        self, solid: Solid, row: int, box: Box, inverse: Floats, period: float, share: float
    ) -> NDArray[np.bool_]:
        """Which pixels of a fence meet a bar and not a gap."""
        axis = self._to_camera(solid.coat.u[row])
        start = float(solid.coat.u[row] @ (self._view.position - solid.coat.origin[row]))
        along = self._plane(axis, box) / np.maximum(inverse, 1e-3) + start
        bar = np.mod(along, period) < share * period
        return bar | (inverse * (self._view.camera.focal_px * period) < _BAR_PIXELS)

    def draw_ellipsoids(self, solid: Solid) -> None:
        centres = self._to_camera(solid.centres - self._view.position)  # (E, 3)
        shapes = np.einsum("eki,ij->ekj", solid.shapes, self._view.rotation)
        metric = np.einsum("eki,ekj->eij", shapes, shapes)  # |W r|^2 = r' M r
        pull = np.einsum("eij,ej->ei", metric, centres)
        rest = np.einsum("ei,ei->e", pull, centres) - 1  # > 0: the camera is outside
        reach = np.sqrt(np.linalg.inv(metric)[:, 2, 2]) if len(centres) else rest
        safe = np.where(rest > 0, rest, 1)[:, None, None]
        # A ray r meets the ellipsoid where r' Q r >= 0.
        quadric = pull[:, :, None] * pull[:, None, :] - safe * metric
        low, high = _conic_bounds(quadric)
        peak = (rest + 1) / np.maximum(centres[:, 2], NEAR_M) ** 2  # r' Q r through the centre
        focal, middle = self._view.camera.focal_px, (self._view.camera.cx, self._view.camera.cy)
        low, high = low * focal + middle, high * focal + middle
        boxes = self._clipped(low, high)
        ahead = (rest > 0) & (centres[:, 2] - reach > NEAR_M)
        seen = ahead & (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
        highest = 1 / np.maximum(centres[:, 2] - reach, NEAR_M)
        for index in _front_to_back(highest, seen):
            x0, y0, x1, y1 = boxes[index].tolist()
            box = (x0, y0, x1, y1)
            if self._hidden(box, highest[index]):
                continue
            disc = self._discriminant(quadric[index], box)
            visible = disc > 0
            if solid.ragged[index] > 0:
                edge = _leaf_edge(solid, int(index), box, low[index], high[index])
                visible &= disc > edge * peak[index]
            inverse = np.sqrt(np.maximum(disc, 0, out=disc), out=disc)
            inverse += self._plane(pull[index], box)
            inverse *= np.float32(1 / rest[index])
            self._write(box, visible, inverse, solid.polygons + int(index))

    def _plane(self, plane: Floats, box: Box) -> Floats:
        """``plane`` . (x, y, 1) of every pixel in the box."""
        x0, y0, x1, y1 = box
        a, b, c = plane
        return np.asarray((a * self._x[x0:x1])[None, :] + (b * self._y[y0:y1] + c)[:, None])

    def _discriminant(self, q: Floats, box: Box) -> Floats:
        """The form r' Q r of every pixel in the box."""
        x0, y0, x1, y1 = box
        x, y = self._x[x0:x1], self._y[y0:y1]
        disc: Floats = y[:, None] * (2 * q[0, 1] * x)[None, :]
        disc += ((q[0, 0] * x + 2 * q[0, 2]) * x)[None, :]
        disc += ((q[1, 1] * y + 2 * q[1, 2]) * y + q[2, 2])[:, None]
        return disc


def _front_to_back(highest: NDArray[Any], seen: NDArray[np.bool_]) -> list[int]:
    """Rows that are seen, by falling inverse depth of their nearest point."""
    rows = np.flatnonzero(seen)
    return [int(row) for row in rows[np.argsort(-highest[rows], kind="stable")]]


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


def _conic_bounds(quadric: Floats) -> tuple[Floats, Floats]:
    """Lowest and highest (x, y) on each conic r' Q r = 0, from its dual; (E, 2) each."""
    q = quadric.astype(np.float64)
    a, b, c = q[:, 0, 0], q[:, 0, 1], q[:, 0, 2]
    d, e, f = q[:, 1, 1], q[:, 1, 2], q[:, 2, 2]
    # Rows of the adjugate that the bounds need.
    xx, xz = d * f - e * e, b * e - c * d
    yy, yz = a * f - c * c, b * c - a * e
    zz = a * d - b * b
    zz = np.where(zz == 0, 1e-12, zz)
    wide = np.sqrt(np.maximum(xz * xz - xx * zz, 0)) / np.abs(zz)
    tall = np.sqrt(np.maximum(yz * yz - yy * zz, 0)) / np.abs(zz)
    middle = np.stack([xz / zz, yz / zz], -1)
    spread = np.stack([wide, tall], -1)
    return (middle - spread).astype(np.float32), (middle + spread).astype(np.float32)


_LEAF_GRID = 24
_LEAF_NOISE = (
    np.random.Generator(np.random.PCG64(7)).random((64, _LEAF_GRID, _LEAF_GRID)).astype(np.float32)
)


def _leaf_edge(solid: Solid, index: int, box: Box, low: Floats, high: Floats) -> Floats:
    """How deep into a crown the background shows through, as a share of the crown's depth."""
    x0, y0, x1, y1 = box
    scale = (_LEAF_GRID - 1) / np.maximum(high - low, 1)
    offset = (np.array([x0, y0]) - low) * scale
    warp = np.array([[scale[0], 0, offset[0]], [0, scale[1], offset[1]]], np.float64)
    noise = cv2.warpAffine(
        _LEAF_NOISE[solid.pattern[index] % len(_LEAF_NOISE)],
        warp,
        (x1 - x0, y1 - y0),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    edge = (0.75 * solid.ragged[index]) * noise * noise
    return np.where(noise > 0.93, np.float32(2.0), edge)
