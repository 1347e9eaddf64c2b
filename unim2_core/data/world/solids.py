"""Geometry as arrays: convex polygons and ellipsoids with what they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unim2_core.data.world.materials import MATERIAL_IDS

CORNERS = 8
"""Corners of every polygon; those with fewer repeat their last one."""

Floats = NDArray[np.float32]
_NO_FACADE = (0.0,) * 6


@dataclass(frozen=True, eq=False)
class Coat:
    """How primitives look, one row each.

    Attributes:
        material: (N,) int16 material ids.
        tint: (N, 3) factor on the material's reflectance.
        heat_k: (N,) kelvin added to the material's temperature.
        power: (N,) factor on the material's glow.
        origin: (N, 3) where the texture begins, metres.
        u, v: (N, 3) directions of the texture's axes.
        facade: (N, 6) windows: pitch along u and v in metres (0: none), share of the pitch
            that is glass along u and v, share of lit windows, phase in [0, 1).
    """

    material: NDArray[np.int16]
    tint: Floats
    heat_k: Floats
    power: Floats
    origin: Floats
    u: Floats
    v: Floats
    facade: Floats


@dataclass(frozen=True, eq=False)
class Solid:
    r"""Polygons and ellipsoids in one coordinate frame (x forward, y left, z up, metres).

    Attributes:
        corners: (P, 8, 3) corners of planar convex polygons, counter-clockwise seen from outside.
        two_sided: (P,) bool, visible from behind as well.
        gaps: (P, 2) fence bars: period along u in metres (0: solid) and share that is solid.
        centres: (E, 3) centres of the ellipsoids.
        shapes: (E, 3, 3) matrices W with \|W (p - centre)\| = 1 on the surface.
        ragged: (E,) how leafy the outline is, 0 smooth to 1.
        pattern: (E,) int16 number of the pattern of leaves.
        coat: P + E rows, polygons first.
    """

    corners: Floats
    two_sided: NDArray[np.bool_]
    gaps: Floats
    centres: Floats
    shapes: Floats
    ragged: Floats
    pattern: NDArray[np.int16]
    coat: Coat

    @property
    def polygons(self) -> int:
        """Number of polygons."""
        return len(self.corners)

    def moved(self, yaw: float, translation: Sequence[float]) -> Solid:
        """Turned about z by ``yaw`` radians, then shifted by ``translation`` metres."""
        c, s = np.cos(yaw), np.sin(yaw)
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]], np.float32)
        shift = np.asarray(translation, np.float32)
        coat = replace(
            self.coat,
            origin=_turned(self.coat.origin, turn) + shift,
            u=_turned(self.coat.u, turn),
            v=_turned(self.coat.v, turn),
        )
        return replace(
            self,
            corners=_turned(self.corners, turn) + shift,
            centres=_turned(self.centres, turn) + shift,
            shapes=_turned(self.shapes, turn),
            coat=coat,
        )

    @classmethod
    def join(cls, solids: Iterable[Solid]) -> Solid:
        """All primitives of several solids in one."""
        parts = list(solids)
        own = {
            f.name: np.concatenate([getattr(part, f.name) for part in parts])
            for f in fields(cls)
            if f.name != "coat"
        }
        coat = {
            f.name: np.concatenate(
                [getattr(part.coat, f.name)[: part.polygons] for part in parts]
                + [getattr(part.coat, f.name)[part.polygons :] for part in parts]
            )
            for f in fields(Coat)
        }
        return cls(**own, coat=Coat(**coat))


def _turned(vectors: Floats, turn: Floats) -> Floats:
    """Rows times the rotation; without BLAS, whose result depends on its threads."""
    return np.asarray(np.einsum("...j,ij->...i", vectors, turn))


class Sculptor:
    """Collects the primitives of one object in its own frame and makes a :class:`Solid`."""

    def __init__(self) -> None:
        self._corners: list[NDArray[np.float64]] = []
        self._flat: list[tuple[bool, tuple[float, float]]] = []
        self._round: list[tuple[NDArray[np.float64], NDArray[np.float64], float, int]] = []
        self._coats: tuple[list[tuple[object, ...]], list[tuple[object, ...]]] = ([], [])

    def polygon(
        self,
        points: ArrayLike,
        material: str,
        tint: Sequence[float] = (1, 1, 1),
        *,
        heat_k: float = 0.0,
        power: float = 1.0,
        two_sided: bool = False,
        gaps: tuple[float, float] = (0.0, 1.0),
        facade: Sequence[float] = _NO_FACADE,
    ) -> None:
        """Add a convex polygon of 3 to 8 ``points`` (N, 3), counter-clockwise from outside."""
        corners = np.asarray(points, np.float64)
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[1])
        normal /= np.linalg.norm(normal)
        # Texture rows run up walls; on level surfaces they run along y.
        u = np.array([1.0, 0, 0]) if abs(normal[2]) > 0.95 else np.cross([0, 0, 1.0], normal)
        u /= np.linalg.norm(u)
        v = np.cross(normal, u)
        padding = np.repeat(corners[-1:], CORNERS - len(corners), axis=0)
        self._corners.append(np.concatenate([corners, padding]))
        self._flat.append((two_sided, gaps))
        self._coats[0].append(
            (MATERIAL_IDS[material], tint, heat_k, power, corners[0], u, v, facade)
        )

    def quad(
        self,
        corner: ArrayLike,
        along: ArrayLike,
        up: ArrayLike,
        material: str,
        tint: Sequence[float] = (1, 1, 1),
        **coat: object,
    ) -> None:
        """Add a parallelogram that shows its front where ``along`` x ``up`` points."""
        c, a, b = (np.asarray(x, np.float64) for x in (corner, along, up))
        self.polygon(np.stack([c, c + a, c + a + b, c + b]), material, tint, **coat)  # type: ignore[arg-type]

    def box(
        self,
        low: Sequence[float],
        high: Sequence[float],
        material: str,
        tint: Sequence[float] = (1, 1, 1),
        **coat: object,
    ) -> None:
        """Add the four walls and the top of an upright box."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        dx, dy, dz = (x1 - x0, 0, 0), (0, y1 - y0, 0), (0, 0, z1 - z0)
        back = (x0 - x1, 0, 0), (0, y0 - y1, 0)
        self.quad((x0, y0, z0), dx, dz, material, tint, **coat)
        self.quad((x1, y0, z0), dy, dz, material, tint, **coat)
        self.quad((x1, y1, z0), back[0], dz, material, tint, **coat)
        self.quad((x0, y1, z0), back[1], dz, material, tint, **coat)
        self.quad((x0, y0, z1), dx, dy, material, tint, **coat)

    def ellipsoid(
        self,
        centre: Sequence[float],
        radii: Sequence[float],
        material: str,
        tint: Sequence[float] = (1, 1, 1),
        *,
        pitch: float = 0.0,
        ragged: float = 0.0,
        pattern: int = 0,
        heat_k: float = 0.0,
    ) -> None:
        """Add an ellipsoid with ``radii`` along x, y, z, tilted about y by ``pitch`` radians."""
        c, s = np.cos(pitch), np.sin(pitch)
        axes = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
        self._round.append(
            (np.asarray(centre), axes / np.asarray(radii)[:, None], ragged, pattern)
        )
        u, v = np.array([0.8, 0.6, 0.0]), np.array([0.2, -0.27, 0.94])
        self._coats[1].append(
            (MATERIAL_IDS[material], tint, heat_k, 1.0, np.asarray(centre), u, v, _NO_FACADE)
        )

    def solid(self) -> Solid:
        """Everything that was added."""
        rows = self._coats[0] + self._coats[1]
        kinds = (np.int16, *[np.float32] * 7)
        widths = ((), (3,), (), (), (3,), (3,), (3,), (6,))
        columns = [
            np.array([row[k] for row in rows], kind).reshape(len(rows), *widths[k])
            for k, kind in enumerate(kinds)
        ]
        return Solid(
            corners=np.array(self._corners, np.float32).reshape(-1, CORNERS, 3),
            two_sided=np.array([two for two, _ in self._flat], np.bool_),
            gaps=np.array([g for _, g in self._flat], np.float32).reshape(-1, 2),
            centres=np.array([c for c, *_ in self._round], np.float32).reshape(-1, 3),
            shapes=np.array([w for _, w, *_ in self._round], np.float32).reshape(-1, 3, 3),
            ragged=np.array([r for *_, r, _ in self._round], np.float32),
            pattern=np.array([n for *_, n in self._round], np.int16),
            coat=Coat(*columns),
        )
