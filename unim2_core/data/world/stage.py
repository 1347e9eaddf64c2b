"""The part of the street that can be seen from one block: ground map, solids and shadows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world.blocks import (
    CELL_M,
    HALF_M,
    LAMP_HEIGHT_M,
    LAMP_PITCH_M,
    Block,
)
from unim2_core.data.world.environment import Environment
from unim2_core.data.world.solids import Sculptor, Solid
from unim2_core.data.world.street import BLOCK_M, Street

BEHIND, AHEAD = 1, 3
"""Blocks kept behind and ahead of the one that the robot is in."""
SPAN_M = (BEHIND + 1 + AHEAD) * BLOCK_M
WIDTH_M = 2 * HALF_M + 20.0
SHADOW_CELL_M = 2 * CELL_M
GROUND = 0
"""Row of the ground in the solids of a stage: the first polygon."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Stage:
    """All that stands still, in a frame whose x = 0 lies at ``start_m`` on the street.

    Attributes:
        start_m: where the stage begins, a multiple of the block length.
        ground: (rows, columns) uint8 material ids, CELL_M a cell, of the straightened street;
            the first row lies HALF_M to the right of the centre line.
        centre: (1, columns) float32 y of the centre line for each column of ``ground``.
        shadows: (rows, columns) uint8, 255 where the sun reaches the ground, SHADOW_CELL_M a cell;
            not straightened, y = -WIDTH_M / 2 in the first row.
        solid: all that stands still; row GROUND is the ground itself.
        lamps: (N, 3) street lamps, number n at x = n * LAMP_PITCH_M.
    """

    start_m: float
    ground: NDArray[np.uint8]
    centre: Floats
    shadows: NDArray[np.uint8]
    solid: Solid
    lamps: Floats


def first_block(x: float) -> int:
    """Number of the first block of the stage for a robot at ``x``."""
    return int(np.floor(x / BLOCK_M)) - BEHIND


def build_stage(
    first: int, block: Callable[[int], Block], street: Street, environment: Environment
) -> Stage:
    """Line the blocks from number ``first`` on up along the street and cast their shadows."""
    start = first * BLOCK_M
    numbers = range(first, first + BEHIND + 1 + AHEAD)
    blocks = [block(number) for number in numbers]
    ground = np.concatenate([b.ground for b in blocks], axis=1)
    x = start + (np.arange(ground.shape[1]) + 0.5) * CELL_M
    centre = street.centre(x)[None].astype(np.float32)
    solids = [_ground_plane()]
    for number, part in zip(numbers, blocks, strict=True):
        for solid, away, y, yaw in part.items:
            along = number * BLOCK_M + away
            place = (along - start, float(street.centre(along)) + y, 0.0)
            solids.append(solid.moved(float(street.heading(along)) + yaw, place))
    solid = Solid.join(solids)
    shadows = np.full(
        (round(WIDTH_M / SHADOW_CELL_M), round(SPAN_M / SHADOW_CELL_M)), 255, np.uint8
    )
    if not environment.night:
        cast_shadows(shadows, solids[1:], environment.sun)
        shadows = cv2.GaussianBlur(shadows, (5, 5), 1.0)
    return Stage(start, ground, centre, shadows, solid, _lamps(start, street))


def cast_shadows(shadows: NDArray[np.uint8], solids: Iterable[Solid], sun: Floats) -> None:
    """Darken ``shadows`` where ``solids`` (stage frame) keep the sun off the ground."""
    solid = Solid.join(solids)
    slope = sun[:2] / max(float(sun[2]), 0.05)
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    # The rim that the sun sees edge-on is a great circle of the unit sphere.
    axis = np.einsum("eij,j->ei", solid.shapes, sun)
    side = np.cross(axis, (0.31, 0.0, 0.95))
    other = np.cross(axis, side)
    frame = np.stack([_unit(side), _unit(other)], -1)
    rim = np.einsum("eij,ejk,kn->eni", np.linalg.inv(solid.shapes), frame, circle)
    for points in (solid.corners, rim + solid.centres[:, None, :]):
        outlines = points[..., :2] - points[..., 2:] * slope
        cells = np.rint((outlines + np.array([0.0, WIDTH_M / 2])) * (16 / SHADOW_CELL_M))
        size = 16 * np.array([shadows.shape[1], shadows.shape[0]])
        inside = ((cells.max(1) > 0) & (cells.min(1) < size)).all(-1)
        for outline in cells[inside].astype(np.int32):
            cv2.fillConvexPoly(shadows, outline, 0, cv2.LINE_8, 4)


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def _ground_plane() -> Solid:
    s = Sculptor()
    s.quad((-BLOCK_M, -400, 0), (SPAN_M + 9 * BLOCK_M, 0, 0), (0, 800, 0), "lawn")
    # Texture axes start at the stage's origin, whose period divides a block.
    solid = s.solid()
    solid.coat.origin[:] = 0
    return solid


def _lamps(start: float, street: Street) -> Floats:
    """Where the lamps of the posts hang: over the road, alternating left and right."""
    x = start + np.arange(round(SPAN_M / LAMP_PITCH_M) + 1) * LAMP_PITCH_M
    left = np.round(x / LAMP_PITCH_M) % 2 == 0
    reach = np.where(left, street.kerb(1) - 0.6, -street.kerb(-1) + 0.6)
    height = np.full_like(x, LAMP_HEIGHT_M)
    return np.stack([x - start, street.centre(x) + reach, height], -1).astype(np.float32)
