"""Where each cell of the reference camera's grid is in another camera's, and taking it there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.sensing.resampling import Size

Mask = NDArray[np.bool_]

_BLOCK = 64  # cells gathered at a time: what they need stays in the cache
_OUTSIDE = np.float32(-2.0)  # no neighbour of it is in the grid


@dataclass(frozen=True, eq=False)
class GridMap:
    """Positions in the grid (or image) of a sensor, one for each cell of the reference's.

    Attributes:
        coordinates: (h, w, 2) float32 column and row in units of the sensor's cells, the centre
            of the first at (0, 0); -2 where not valid.
        valid: (h, w) bool, True where the sensor sees what the reference sees.
        source: (height, width) of the sensor's grid.
    """

    coordinates: NDArray[np.float32]
    valid: Mask
    source: Size

    @classmethod
    def within(cls, coordinates: NDArray[np.float32], visible: Mask, source: Size) -> GridMap:
        """The map that is valid where a position is visible and on the sensor's image.

        Args:
            coordinates: (h, w, 2) float32, not NaN.
            visible: (h, w) bool, nothing hides what is there.
            source: (height, width) of the sensor's grid.
        """
        column, row = coordinates[..., 0], coordinates[..., 1]
        # Cells cover half a unit around their centres.
        inside = (np.abs(column - (source[1] - 1) / 2) <= source[1] / 2) & (
            np.abs(row - (source[0] - 1) / 2) <= source[0] / 2
        )
        valid = inside & visible
        return cls(np.where(valid[..., None], coordinates, _OUTSIDE), valid, source)

    @classmethod
    def stretched(cls, size: Size, source: Size) -> GridMap:
        """The map between two grids of one camera.

        Args:
            size: (height, width) of the reference's grid.
            source: (height, width) of the sensor's grid.
        """
        rows, columns = (
            (np.arange(count) + 0.5) * (of / count) - 0.5
            for count, of in zip(size, source, strict=True)
        )
        coordinates = np.stack(np.meshgrid(columns, rows), axis=-1).astype(np.float32)
        return cls(coordinates, np.ones(size, np.bool_), source)


def gather(
    tokens: NDArray[np.float32],
    grid_map: GridMap,
    measured: Mask | None = None,
    out: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], Mask]:
    """Interpolate tokens bilinearly; only neighbours that exist and were measured have weight.

    Args:
        tokens: (h_s, w_s, D) float32 of the sensor, finite, of the map's ``source`` size.
        grid_map: from the reference's grid (h, w).
        measured: (h_s, w_s) bool, False where a token saw no measurement; None = all.
        out: (h, w, D) float32, C-contiguous, to write to; None = a new array.

    Returns:
        (h, w, D) float32, 0 where not valid; (h, w) bool, True where the map is valid and a
        neighbour has weight.
    """
    height, width, dim = tokens.shape
    x, y = grid_map.coordinates.reshape(-1, 2).T
    left, top = np.floor(x), np.floor(y)
    right_share, lower_share = x - left, y - top
    columns = np.stack([left, left + 1, left, left + 1], axis=1).astype(np.intp)  # (n, 4)
    rows = np.stack([top, top, top + 1, top + 1], axis=1).astype(np.intp)
    across = np.stack([1 - right_share, right_share] * 2, axis=1)
    down = np.stack([1 - lower_share] * 2 + [lower_share] * 2, axis=1)
    weights = across * down
    weights *= (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    cells = np.clip(rows, 0, height - 1) * width + np.clip(columns, 0, width - 1)
    if measured is not None:
        weights *= measured.ravel()[cells]
    total = weights.sum(1, keepdims=True)
    valid = grid_map.valid.ravel() & (total[:, 0] > 1e-3)
    weights *= valid[:, None] / np.maximum(total, np.float32(1e-3))

    flat = tokens.reshape(-1, dim)
    if out is None:
        out = np.empty((*grid_map.valid.shape, dim), np.float32)
    gathered = out.reshape(-1, 1, dim)
    corners = np.empty((_BLOCK, 4, dim), np.float32)
    for start in range(0, len(cells), _BLOCK):
        part = slice(start, min(start + _BLOCK, len(cells)))
        four = corners[: part.stop - start]
        # The indices are in range; "clip" spares numpy a buffer that would guard ``out``.
        np.take(flat, cells[part], axis=0, out=four, mode="clip")
        np.matmul(weights[part, None], four, out=gathered[part])  # (b, 1, 4) (b, 4, D)
    return out, valid.reshape(grid_map.valid.shape)


def registered(
    tokens: NDArray[np.float32],
    valid: Mask | None,
    grid_map: GridMap | None,
    out: NDArray[np.float32] | None = None,
) -> tuple[NDArray[np.float32], Mask]:
    """Tokens of a sensor in the reference's grid, and where they are present.

    Args:
        tokens: (h_s, w_s, D) float32 of the sensor, finite.
        valid: (H_s, W_s) bool of the image that they come from, False where nothing was measured;
            a token counts as measured where at least half of its pixels do. None = all.
        grid_map: from the reference's grid (h, w); None = the grids are the same.
        out: (h, w, D) float32, C-contiguous, to write to; None = a new array.

    Returns:
        (h, w, D) float32, 0 where not present; (h, w) bool.
    """
    height, width, _ = tokens.shape
    measured: Mask | None = None
    if valid is not None:
        cells = valid.reshape(height, valid.shape[0] // height, width, -1)
        measured = cells.mean(axis=(1, 3)) >= 0.5
    if grid_map is not None:
        return gather(tokens, grid_map, measured, out)
    if measured is None:
        measured = np.ones((height, width), np.bool_)
    return np.multiply(tokens, measured[..., None], out=out), measured


def warp_image(image: NDArray[Any], grid_map: GridMap, fill: float = 0) -> NDArray[Any]:
    """An image of the sensor as the reference camera would have taken it, bilinearly.

    Args:
        image: (H, W) or (H, W, C), C <= 4, uint8, uint16 or float32, of the map's ``source`` size.
        grid_map: at the size of the result.
        fill: value where the map is not valid.
    """
    warped: NDArray[Any] = cv2.remap(
        image,
        grid_map.coordinates,
        None,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    warped[~grid_map.valid] = fill
    return warped


def warp_labels(labels: NDArray[Any], grid_map: GridMap, fill: int = 255) -> NDArray[Any]:
    """A label image of the sensor in the reference camera, by nearest neighbour.

    Args:
        labels: (H, W) uint8 or uint16, of the map's ``source`` size.
        grid_map: at the size of the result.
        fill: label where the map is not valid.
    """
    height, width = labels.shape
    places = np.rint(grid_map.coordinates).astype(np.intp)
    columns = np.clip(places[..., 0], 0, width - 1)
    rows = np.clip(places[..., 1], 0, height - 1)
    warped: NDArray[Any] = labels[rows, columns]
    warped[~grid_map.valid] = fill
    return warped
