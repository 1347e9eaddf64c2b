"""Depth cameras: counts to metres, and metres to HHA."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Depth = NDArray[np.float32]
Mask = NDArray[np.bool_]

_RADIUS = 3  # of the window that a plane is fitted to, pixels
_BAND = 32  # rows that normals are computed for at a time
_STRIDE = 4  # gravity and ground are estimated from every fourth row and column
_DISPARITY = 310.0  # disparity channel: 310 / z, so 255 from 1.2 m inwards
_ANGLE_OFFSET = 38.0  # angle channel: degrees + 38, so that a wall is in the middle (128)
_GROUND_PERCENTILE = 1.0
_TIE_BREAK = 0.01  # weight of the last estimate of gravity against all surfaces
_DOWN = (0.0, 1.0, 0.0)  # of a camera held level: y of the optical frame points down


def depth_to_metres(counts: NDArray[Any], unit_m: float) -> tuple[Depth, Mask]:
    """Depth image to metres and validity.

    Args:
        counts: (H, W): integers with zero or less = no measurement, or float metres with NaN,
            infinity, zero or less = no measurement.
        unit_m: metres per count of the integers; floats are metres already.

    Returns:
        (H, W) float32 metres, 0 where not valid; (H, W) bool, True where measured.
    """
    if counts.dtype.kind != "f":
        depth_m = counts.astype(np.float32)
        depth_m *= np.float32(unit_m)
        return np.maximum(depth_m, 0.0, out=depth_m), counts > 0
    valid = np.isfinite(counts) & (counts > 0)
    depth_m = np.nan_to_num(counts.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return np.maximum(depth_m, 0.0, out=depth_m), valid


def hha(
    depth_m: Depth,
    valid: Mask | None,
    fx: float,
    fy: float,
    cx: float,
    cy: float,
    gravity: tuple[float, float, float] | None = None,
) -> NDArray[np.uint8]:
    """Horizontal disparity, height above ground, angle with gravity (Gupta et al., ECCV 2014).

    The scale of each channel is the published one, rounded and cut to [0, 255]:

    - disparity: 310 / z, z in metres;
    - height: centimetres above the ground, the 1st percentile of all heights in the image;
    - angle: 38 + degrees between the surface's normal and up: floor 38, wall 128, ceiling 218.

    Args:
        depth_m: (H, W) float32 metres along the optical axis.
        valid: (H, W) bool; None = all.
        fx: focal length, pixels.
        fy: focal length, pixels.
        cx: principal point, pixels.
        cy: principal point, pixels.
        gravity: direction in which things fall, in the camera's optical frame (x right, y down,
            z forward), any length; None = estimated from the image.

    Returns:
        (H, W, 3) uint8; 0, 0, 0 where the depth is not valid or no plane can be fitted.
    """
    height, width = depth_m.shape
    x = (np.arange(width, dtype=np.float32) - np.float32(cx)) / np.float32(fx)
    y = (np.arange(height, dtype=np.float32)[:, None] - np.float32(cy)) / np.float32(fy)
    measured = depth_m > 0 if valid is None else valid & (depth_m > 0)
    normals, fitted = surface_normals(depth_m, measured, fx, fy, cx, cy)
    if gravity is None:
        sparse = fitted[::_STRIDE, ::_STRIDE]
        down = estimate_gravity(normals[:, ::_STRIDE, ::_STRIDE][:, sparse])
    else:
        down = np.asarray(gravity, np.float32) / np.float32(np.linalg.norm(gravity))

    # Height of the point (x z, y z, z) over the camera, metres.
    above_m = x * -down[0] - (y * down[1] + down[2])
    above_m *= depth_m
    seen = above_m[::_STRIDE, ::_STRIDE][measured[::_STRIDE, ::_STRIDE]]
    ground_m = np.percentile(seen, _GROUND_PERCENTILE) if seen.size else 0.0
    above_m -= np.float32(ground_m)
    angle = np.tensordot(-down, normals, axes=1)  # cosine to up, (H, W)
    np.arccos(np.clip(angle, -1.0, 1.0, out=angle), out=angle)
    disparity = np.float32(_DISPARITY) / np.maximum(depth_m, np.float32(1e-3))
    pixels: NDArray[np.uint8] = cv2.merge(
        (
            cv2.convertScaleAbs(disparity),
            cv2.convertScaleAbs(np.maximum(above_m, 0.0, out=above_m), alpha=100.0),
            cv2.convertScaleAbs(angle, alpha=180.0 / np.pi, beta=_ANGLE_OFFSET),
        )
    )
    pixels *= fitted[..., None]
    return pixels


def surface_normals(
    depth_m: Depth, valid: Mask, fx: float, fy: float, cx: float, cy: float
) -> tuple[NDArray[np.float32], Mask]:
    """Unit normals that face the camera, by least squares over 7x7 valid pixels.

    The inverse depth q of a plane a X + b Y + c Z = 1 is q = a x + b y + c, *linear* in the pixel
    (x, y normalised): so the fit is exact on planes, and its sums are separable filters.

    Args:
        depth_m: (H, W) float32 metres.
        valid: (H, W) bool.
        fx: focal length, pixels.
        fy: focal length, pixels.
        cx: principal point, pixels.
        cy: principal point, pixels.

    Returns:
        (3, H, W) float32 x, y, z in the optical frame, 0 where there is none; (H, W) bool, True
        where the window determines a plane.
    """
    height, width = depth_m.shape
    normals = np.empty((3, height, width), np.float32)
    fitted = np.empty((height, width), np.bool_)
    columns = np.arange(width, dtype=np.float32) - np.float32(cx)
    for top in range(0, height, _BAND):  # sums over a band of rows stay in the cache
        band = slice(top, min(top + _BAND, height))
        around = slice(max(top - _RADIUS, 0), min(band.stop + _RADIUS, height))
        inner = slice(top - around.start, band.stop - around.start)
        rows = np.arange(top, band.stop, dtype=np.float32)[:, None] - np.float32(cy)
        plane, determined = _fit_planes(depth_m[around], valid[around], inner, rows, columns)
        # (a, b, c) points away from the camera, as a X + b Y + c Z = 1 > 0 on the surface.
        plane *= np.array([-fx, -fy, -1.0], np.float32)[:, None, None]
        length = np.sqrt(np.einsum("cij,cij->ij", plane, plane))
        plane *= determined / np.maximum(length, np.float32(1e-12))
        normals[:, band], fitted[band] = plane, determined
    return normals, fitted


def _fit_planes(
    depth_m: Depth,
    valid: Mask,
    inner: slice,
    rows: NDArray[np.float32],
    columns: NDArray[np.float32],
) -> tuple[NDArray[np.float32], Mask]:
    """Slopes of the inverse depth along u and v, and its value at the principal point.

    Args:
        depth_m: (N, W) metres, the band and ``_RADIUS`` rows around it.
        valid: (N, W).
        inner: rows of the band.
        rows: (n, 1) v - cy of the band, pixels.
        columns: (W,) u - cx, pixels.

    Returns:
        (3, n, W): 1/m per pixel, 1/m per pixel, 1/m; (n, W), where the window has a plane.
    """
    weight = valid.astype(np.float32)
    divisor: Depth = np.maximum(depth_m, np.float32(1e-3))
    inverse = weight / divisor
    n, n_u, n_v, n_uu, n_uv, n_vv = (
        _moment(weight, *powers)[inner]
        for powers in ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
    )
    q, q_u, q_v = (_moment(inverse, *powers)[inner] for powers in ((0, 0), (1, 0), (0, 1)))
    count = np.maximum(n, 1.0)
    mean_u, mean_v, mean_q = n_u / count, n_v / count, q / count
    uu, uv, vv = n_uu - mean_u * n_u, n_uv - mean_u * n_v, n_vv - mean_v * n_v
    uq, vq = q_u - mean_u * q, q_v - mean_v * q
    determinant = uu * vv - uv * uv
    determined = valid[inner] & (determinant > 1.0)  # pixels^4; 0 where all are on one line
    scale = determined / np.maximum(determinant, 1.0)
    plane = np.empty((3, *n.shape), np.float32)
    plane[0] = (uq * vv - vq * uv) * scale
    plane[1] = (vq * uu - uq * uv) * scale
    plane[2] = mean_q - plane[0] * (columns + mean_u) - plane[1] * (rows + mean_v)
    return plane, determined


def estimate_gravity(normals: NDArray[np.float32]) -> NDArray[np.float32]:
    """The direction most parallel to floors and most perpendicular to walls.

    Starts from the camera held level and refines: surfaces whose normal is within 45 (later 15)
    degrees of the direction are floors, within 45 (15) degrees of perpendicular walls.

    Args:
        normals: (3, N) float32 unit normals.

    Returns:
        (3,) float32 unit vector that points down; level where no surface tells.
    """
    down = np.array(_DOWN, np.float32)
    for limit_deg in (45.0,) * 5 + (15.0,) * 5:
        along = np.abs(down @ normals)
        floors = normals[:, along > np.cos(np.radians(limit_deg))]
        walls = normals[:, along < np.sin(np.radians(limit_deg))]
        if floors.shape[1] + walls.shape[1] == 0:
            break
        spread = walls @ walls.T - floors @ floors.T  # (3, 3)
        # One wall alone leaves a whole plane of directions: of these, stay where we are.
        spread -= _TIE_BREAK * (floors.shape[1] + walls.shape[1]) * np.outer(down, down)
        direction = np.linalg.eigh(spread.astype(np.float64)).eigenvectors[:, 0]
        if direction @ down < 0:
            direction = -direction
        down = direction.astype(np.float32)
    return down


def _moment(image: NDArray[np.float32], power_u: int, power_v: int) -> NDArray[np.float32]:
    """Sum of image * du^power_u * dv^power_v over the window around each pixel."""
    offsets = np.arange(-_RADIUS, _RADIUS + 1, dtype=np.float32)
    moment: NDArray[np.float32] = cv2.sepFilter2D(
        image, cv2.CV_32F, offsets**power_u, offsets**power_v, borderType=cv2.BORDER_CONSTANT
    )
    return moment
