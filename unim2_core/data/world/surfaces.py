"""From visible primitives to surfaces: position, normal, material and texture of every pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world import textures
from unim2_core.data.world.blocks import CELL_M, HALF_M
from unim2_core.data.world.cameras import View
from unim2_core.data.world.canvas import Visibility
from unim2_core.data.world.materials import MATERIAL_IDS, TABLE
from unim2_core.data.world.solids import Solid
from unim2_core.data.world.stage import GROUND, SHADOW_CELL_M, WIDTH_M, Stage

_MACRO_M = 24.0
"""Period of the stains that lie over every texture."""

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Surface:
    """What each pixel of a view shows, before any light.

    Attributes:
        view: camera and pose.
        sky: (H, W) bool.
        depth_m: (H, W) along the optical axis; infinite in the sky.
        ray: (3, H, W) unit vector from the camera to the surface, world axes.
        position: (3, H, W) metres, frame of the stage; meaningless in the sky.
        normal: (3, H, W) unit vector, world axes; 0 in the sky.
        facing: (H, W) cosine between the normal and the direction to the camera.
        material: (H, W) material ids.
        tint: (3, H, W) factor on the material's reflectance.
        heat_k: (H, W) kelvin added to the material's temperature.
        power: (H, W) factor on the material's glow.
        u, v: (H, W) texture coordinates, metres.
        ground: (H, W) bool, on the ground.
        shadows: (rows, columns) uint8 sunlight on the ground, see :class:`Stage`.
    """

    view: View
    sky: NDArray[np.bool_]
    depth_m: Floats
    ray: Floats
    position: Floats
    normal: Floats
    facing: Floats
    material: NDArray[np.intp]
    tint: Floats
    heat_k: Floats
    power: Floats
    u: Floats
    v: Floats
    ground: NDArray[np.bool_]
    shadows: NDArray[np.uint8]

    # Not every camera needs all of what follows.

    @cached_property
    def texture(self) -> tuple[Floats, Floats]:
        """The two texture channels, (H, W) each: about -1 to 1, and [0, 1]."""
        frequency: Floats = np.reciprocal(TABLE.period_m.take(self.material))
        slant = self.view.camera.focal_px * np.sqrt(np.maximum(self.facing, np.float32(0.08)))
        distance = np.where(self.sky, np.float32(1), self.depth_m)
        footprint: Floats = np.divide(distance, slant, dtype=np.float32)
        return textures.sample(
            textures.MATERIAL_TILE.take(self.material),
            self.u * frequency,
            self.v * frequency,
            footprint * frequency,
        )

    @property
    def shade(self) -> Floats:
        """(H, W) first texture channel, about -1 to 1."""
        return self.texture[0]

    @property
    def mix(self) -> Floats:
        """(H, W) second texture channel in [0, 1]."""
        return self.texture[1]

    @cached_property
    def stain(self) -> Floats:
        """(H, W) large-scale variation, about -1 to 1."""
        u, v = self.u / _MACRO_M, self.v / _MACRO_M
        return textures.sample(textures.TILE_IDS["clouds"], u, v)[0]

    @cached_property
    def lit(self) -> Floats:
        """(H, W) share of the sun that reaches the surface, in [0, 1]."""
        column = self.position[0] / SHADOW_CELL_M - 0.5
        line = (self.position[1] + WIDTH_M / 2) / SHADOW_CELL_M - 0.5
        found = cv2.remap(
            self.shadows,
            column,
            line,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=255,
        )
        return np.where(self.ground, found * np.float32(1 / 255), np.float32(1))

    @property
    def label(self) -> NDArray[np.uint8]:
        """(H, W) uint8 class ids."""
        return TABLE.label.take(self.material)

    def of(self, column: Floats) -> Floats:
        """A column of the material table for every pixel: (..., N) to (..., H, W)."""
        return column.take(self.material, axis=-1)


class Resolver:
    """Works out surfaces of one solid, band by band of an image.

    Whole images at once would be slower: their arrays leave the processor's cache, and the
    system takes the memory back between two images.

    Args:
        solid: what was drawn; its row GROUND is the ground of ``stage``.
        position: (3,) of the camera, metres.
        stage: ground map.
        shadows: (rows, columns) uint8 sunlight on the ground, see :class:`Stage`.
    """

    def __init__(
        self, solid: Solid, position: Floats, stage: Stage, shadows: NDArray[np.uint8]
    ) -> None:
        coat = solid.coat
        self._stage, self._shadows = stage, shadows
        self._polygons = solid.polygons
        # Columns of the coat, with the sky in front: row 0 of everything is zero.
        self._material = _column(coat.material.astype(np.intp))
        self._heat, self._power = _column(coat.heat_k), _column(coat.power)
        self._tint = _columns(coat.tint)
        self._facade = _columns(coat.facade)
        self._has_windows = self._facade[0] > 0
        start = position - coat.origin
        self._axes = [
            (_columns(axis), _column(np.einsum("ni,ni->n", axis, start)))
            for axis in (coat.u, coat.v)
        ]
        self._flat_normal = _columns(_facets(solid, position))
        self._metric = np.einsum("eki,ekj->ije", solid.shapes, solid.shapes)
        self._centre = (solid.centres - position).T

    def surface(self, visibility: Visibility, view: View) -> Surface:
        """The surface of every pixel of a band."""
        row = visibility.primitive.astype(np.intp)
        sky = row == 0
        depth: Floats = np.reciprocal(np.where(sky, np.float32(1), visibility.inverse_depth))
        ray, reach = _rays(view)
        offset = ray * (depth * reach)  # (3, H, W) from the camera
        position = offset + view.position[:, None, None]
        normal = self._normals(row, offset)
        facing = np.clip(-np.einsum("chw,chw->hw", normal, ray), 0, 1)
        material, power = self._material.take(row), self._power.take(row)
        tint = self._tint.take(row, axis=1)
        u, v = (
            start.take(row) + np.einsum("chw,chw->hw", axis.take(row, axis=1), offset)
            for axis, start in self._axes
        )
        ground = row == GROUND + 1
        np.copyto(material, _ground_material(position, self._stage), where=ground)
        windows = np.flatnonzero(self._has_windows.take(row))
        if windows.size:
            _glaze(
                windows, material, power, tint, self._facade.take(row.ravel()[windows], 1), u, v
            )
        return Surface(
            view, sky, np.where(sky, np.float32(np.inf), depth), ray, position, normal, facing,
            material, tint, self._heat.take(row), power, u, v, ground, self._shadows,
        )  # fmt: skip

    def _normals(self, row: NDArray[np.intp], offset: Floats) -> Floats:
        normal = self._flat_normal.take(row, axis=1)
        curved = np.flatnonzero(row > self._polygons)
        if curved.size:
            which = row.ravel()[curved] - (self._polygons + 1)
            away = offset.reshape(3, -1)[:, curved] - self._centre.take(which, axis=1)
            gradient = np.einsum("ijn,jn->in", self._metric.take(which, axis=2), away)
            gradient /= np.sqrt(np.einsum("in,in->n", gradient, gradient))
            normal.reshape(3, -1)[:, curved] = gradient
        return normal


def _column(values: NDArray[Any]) -> NDArray[Any]:
    """(N,) with a zero for the sky in front."""
    return np.concatenate([np.zeros(1, values.dtype), values])


def _columns(values: Floats) -> Floats:
    """(N, C) as (C, 1 + N), with zeros for the sky in front."""
    return np.concatenate([np.zeros((values.shape[1], 1), values.dtype), values.T], axis=1)


def _facets(solid: Solid, position: Floats) -> Floats:
    """(N, 3) unit normals of polygons on the side that the camera sees; 0 for ellipsoids."""
    edge = solid.corners[:, 1] - solid.corners[:, 0]
    normal = np.cross(edge, solid.corners[:, 2] - solid.corners[:, 1])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    front = np.sign(np.einsum("pi,pi->p", position - solid.corners[:, 0], normal))
    return np.concatenate([normal * front[:, None], np.zeros_like(solid.centres)])


def _rays(view: View) -> tuple[Floats, Floats]:
    """Unit rays (3, H, W) in world axes, and the length of each ray with z = 1 (H, W)."""
    x, y = view.camera.x[None, :], view.camera.y[:, None]
    length = np.sqrt(x * x + y * y + 1)
    r = view.rotation
    ray = np.empty((3, *length.shape), np.float32)
    for k in range(3):
        np.add(r[k, 0] * x, r[k, 1] * y + r[k, 2], out=ray[k])
    ray /= length
    return ray, length


def _ground_material(position: Floats, stage: Stage) -> NDArray[np.uint8]:
    """(H, W) material ids of the ground map at each position."""
    column = position[0] / CELL_M - 0.5
    centre = cv2.remap(
        stage.centre,
        column,
        np.zeros_like(column),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    )
    line = (position[1] - centre + HALF_M) / CELL_M - 0.5
    return np.asarray(
        cv2.remap(stage.ground, column, line, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    )


_GLASS, _FRAME = MATERIAL_IDS["window"], MATERIAL_IDS["frame"]
_FRAME_M = 0.09


def _glaze(
    pixels: NDArray[np.intp],
    material: NDArray[np.intp],
    power: Floats,
    tint: Floats,
    facade: Floats,
    u: Floats,
    v: Floats,
) -> None:
    """Put windows and their frames into facades, some of them lit (``power`` > 0).

    Args:
        pixels: (N,) flat indices of the pixels that show a facade.
        material: (H, W), changed there.
        power: (H, W), changed there.
        tint: (3, H, W), changed there.
        facade: (6, N) see :class:`Coat`.
        u: (H, W) texture coordinate along the facade, metres.
        v: (H, W) texture coordinate up the facade, metres.
    """
    pitch_u, pitch_v, share_u, share_v, lit, phase = facade
    across, up = u.ravel()[pixels] / pitch_u, v.ravel()[pixels] / pitch_v
    bay, storey = np.floor(across), np.floor(up)
    # Distance from the edge of the glass, metres; positive on the glass.
    du = (share_u / 2 - np.abs(across - bay - 0.5)) * pitch_u
    dv = (share_v / 2 - np.abs(up - storey - 0.54)) * pitch_v
    inside = np.minimum(du, dv)
    glass, frame = inside > 0, (inside > -_FRAME_M) & (inside <= 0)
    flat_material = material.reshape(-1)
    flat_material[pixels[frame]] = _FRAME
    flat_material[pixels[glass]] = _GLASS
    # Multiples of these two irrationals spread evenly over [0, 1).
    dice = np.mod(bay * np.float32(0.7549) + storey * np.float32(0.5698) + phase, 1)
    shining = np.where(dice < lit, 0.25 + 2 * dice, 0).astype(np.float32)
    power.reshape(-1)[pixels[glass]] = shining[glass]
    tint.reshape(3, -1)[:, pixels[glass | frame]] = 1
