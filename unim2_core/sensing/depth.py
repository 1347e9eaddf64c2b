"""Depth cameras: counts to metres, and metres to HHA."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Depth = NDArray[np.float32]
Mask = NDArray[np.bool_]

_RADIUS = 3  # of the window that a plane is fitted to, pixels
_STRIDE = 4  # gravity and ground are estimated from every fourth row and column
_DISPARITY = 310.0  # disparity channel: 310 / z, so 255 from 1.2 m inwards
_ANGLE_OFFSET = 38.0  # angle channel: degrees + 38, so that a wall is in the middle (128)
_GROUND_PERCENTILE = 1.0
_TIE_BREAK = 0.01  # weight of the last estimate of gravity against all surfaces
_DOWN = (0.0, 1.0, 0.0)  # of a camera held level: y of the optical frame points down


def depth_to_metres(counts: NDArray[Any], unit_m: float) -> tuple[Depth, Mask]:
    """Depth image to metres and validity.

    Args:
        counts: (H, W): unsigned integers with 0 = no measurement, or float metres with NaN,
            infinity, zero or less = no measurement.
        unit_m: metres per count of the integers; floats are metres already.

    Returns:
        (H, W) float32 metres, 0 where not valid; (H, W) bool, True where measured.
    """
    if counts.dtype.kind != "f":
        return counts.astype(np.float32) * np.float32(unit_m), counts > 0
    valid = np.isfinite(counts) & (counts > 0)
    depth_m = np.nan_to_num(counts.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return np.maximum(depth_m, 0.0), valid


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

    # Signed height of the point (x z, y z, z) over the camera, metres.
    above_m = -depth_m * (x * down[0] + (y * down[1] + down[2]))
    seen = above_m[::_STRIDE, ::_STRIDE][measured[::_STRIDE, ::_STRIDE]]
    ground_m = np.percentile(seen, _GROUND_PERCENTILE) if seen.size else 0.0
    upward = -(normals[0] * down[0] + normals[1] * down[1] + normals[2] * down[2])
    angle_deg = np.degrees(np.arccos(np.clip(upward, -1.0, 1.0)))
    channels = np.stack(
        (
            np.float32(_DISPARITY) / np.maximum(depth_m, np.float32(1e-3)),
            (above_m - np.float32(ground_m)) * np.float32(100.0),
            angle_deg + np.float32(_ANGLE_OFFSET),
        ),
        axis=-1,
    )
    channels *= (fitted & measured)[..., None]
    return np.clip(np.rint(channels, out=channels), 0, 255, out=channels).astype(np.uint8)


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
    weight = valid.astype(np.float32)
    divisor: Depth = np.maximum(depth_m, np.float32(1e-3))
    inverse = weight / divisor
    n, n_u, n_v = _moment(weight, 0, 0), _moment(weight, 1, 0), _moment(weight, 0, 1)
    q, q_u, q_v = _moment(inverse, 0, 0), _moment(inverse, 1, 0), _moment(inverse, 0, 1)
    mean_u, mean_v = n_u / np.maximum(n, 1.0), n_v / np.maximum(n, 1.0)
    mean_q = q / np.maximum(n, 1.0)
    uu = _moment(weight, 2, 0) - mean_u * n_u
    vv = _moment(weight, 0, 2) - mean_v * n_v
    uv = _moment(weight, 1, 1) - mean_u * n_v
    uq, vq = q_u - mean_u * q, q_v - mean_v * q
    determinant = uu * vv - uv * uv
    fitted = valid & (determinant > 1.0)  # pixels^4; on one line it is 0
    scale = fitted / np.maximum(determinant, 1.0)
    slope_u = (uq * vv - vq * uv) * scale  # of the inverse depth, 1/m per pixel
    slope_v = (vq * uu - uq * uv) * scale

    columns = np.arange(depth_m.shape[1], dtype=np.float32) - np.float32(cx)
    rows = np.arange(depth_m.shape[0], dtype=np.float32)[:, None] - np.float32(cy)
    normals = np.empty((3, *depth_m.shape), np.float32)
    # (a, b, c) points away from the camera, as a X + b Y + c Z = 1 > 0 on the surface.
    normals[0] = slope_u * np.float32(-fx)
    normals[1] = slope_v * np.float32(-fy)
    normals[2] = slope_u * (columns + mean_u) + slope_v * (rows + mean_v) - mean_q
    length = np.sqrt(np.einsum("cij,cij->ij", normals, normals))
    normals *= fitted / np.maximum(length, np.float32(1e-12))
    return normals, fitted


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
