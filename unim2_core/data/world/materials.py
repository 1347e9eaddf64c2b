"""What things are made of: class, colour, texture, infrared, heat and gloss of every material."""

from __future__ import annotations

from dataclasses import astuple, dataclass

import numpy as np
from numpy.typing import NDArray

CLASSES: tuple[str, ...] = (
    "road",
    "sidewalk",
    "grass",
    "soil",
    "tree",
    "building",
    "glass",
    "car",
    "person",
    "water",
    "fence",
    "sky",
)
"""Names of the classes; the index is the id in every label image. ``fence`` holds fences,
poles, lamps and signs, ``glass`` the windows of buildings (those of cars are ``car``)."""

PALETTE: NDArray[np.uint8] = np.array(
    [
        (128, 64, 128),
        (244, 35, 232),
        (124, 200, 60),
        (150, 105, 60),
        (20, 105, 40),
        (90, 90, 90),
        (80, 200, 230),
        (20, 40, 200),
        (220, 20, 60),
        (30, 110, 160),
        (250, 170, 30),
        (150, 195, 245),
    ],
    dtype=np.uint8,
)
"""Colour of each class, (K, 3) RGB."""

SKY = CLASSES.index("sky")


@dataclass(frozen=True)
class Material:
    """Optical and thermal properties of one material.

    Attributes:
        label: name of the class.
        tile: name of the texture tile, see ``textures.py``.
        period_m: metres after which the texture repeats; divides 48 m.
        rgb: linear reflectance of the ground colour; objects multiply it with their tint.
        rgb_mix: linear reflectance that the texture's second channel blends in.
        contrast: relative amplitude of the texture's first channel.
        nir: reflectance in the near infrared.
        nir_mix: near-infrared reflectance that the texture's second channel blends in.
        day_k: temperature above the air by day, in the shade, kelvin.
        solar_k: what full sun at right angles adds, kelvin.
        night_k: temperature above the air at night, kelvin.
        emissivity: in the long-wave infrared; the rest mirrors the surroundings.
        gloss: share of the Fresnel reflection that stays specular, 0 rough to 1 polished.
        polarizing: share of the diffuse light's polarization that the surface keeps.
        glow: light that the material gives off itself, relative to white in full sun.
    """

    label: str
    tile: str
    period_m: float
    rgb: tuple[float, float, float]
    rgb_mix: tuple[float, float, float]
    contrast: float
    nir: float
    nir_mix: float
    day_k: float
    solar_k: float
    night_k: float
    emissivity: float = 0.95
    gloss: float = 0.0
    polarizing: float = 0.5
    glow: float = 0.0


_WHITE = (1.0, 1.0, 1.0)
_M = Material

MATERIALS: dict[str, Material] = {
    "sky": _M("sky", "flat", 48, (0, 0, 0), (0, 0, 0), 0, 0, 0, 0, 0, 0),
    # road
    "asphalt": _M(
        "road", "asphalt", 4, (0.10, 0.10, 0.105), (0.055, 0.055, 0.06), 0.24, 0.13, 0.07,
        3, 13, 4.0, 0.95, 0.10,
    ),
    "asphalt_old": _M(
        "road", "asphalt", 6, (0.21, 0.205, 0.20), (0.13, 0.13, 0.13), 0.20, 0.24, 0.14,
        2, 11, 3.0, 0.95, 0.05,
    ),
    "cobbles": _M(
        "road", "cobbles", 1.6, (0.20, 0.18, 0.17), (0.07, 0.065, 0.06), 0.35, 0.24, 0.12,
        2, 11, 3.5, 0.95, 0.08,
    ),
    "marking": _M(
        "road", "asphalt", 4, (0.62, 0.61, 0.57), (0.30, 0.30, 0.29), 0.25, 0.55, 0.30,
        2, 8, 3.0, 0.94, 0.04,
    ),
    # sidewalk
    "slabs": _M(
        "sidewalk", "slabs", 2, (0.33, 0.32, 0.30), (0.16, 0.155, 0.15), 0.20, 0.36, 0.20,
        2, 9, 2.5, 0.94, 0.03,
    ),
    "pavers": _M(
        "sidewalk", "pavers", 1.5, (0.25, 0.15, 0.11), (0.15, 0.13, 0.12), 0.30, 0.32, 0.2,
        2, 10, 3.0, 0.94, 0.02,
    ),
    "slabs_dark": _M(
        "sidewalk", "slabs", 2.4, (0.15, 0.15, 0.155), (0.07, 0.07, 0.07), 0.22, 0.19, 0.10,
        3, 11, 3.2, 0.95, 0.06,
    ),
    # grass
    "lawn": _M(
        "grass", "blades", 2, (0.075, 0.13, 0.035), (0.17, 0.17, 0.07), 0.50, 0.50, 0.40,
        0, 3, -3.0, 0.98, 0.0, 0.2,
    ),
    "meadow": _M(
        "grass", "blades", 3, (0.17, 0.16, 0.065), (0.27, 0.23, 0.11), 0.50, 0.40, 0.30,
        1, 5, -2.5, 0.98, 0.0, 0.2,
    ),
    # soil
    "earth": _M(
        "soil", "clods", 3, (0.14, 0.095, 0.06), (0.20, 0.15, 0.10), 0.45, 0.26, 0.33,
        1, 8, 0.0, 0.95, 0.0, 0.3,
    ),
    "gravel": _M(
        "soil", "gravel", 2, (0.30, 0.275, 0.24), (0.13, 0.12, 0.11), 0.45, 0.36, 0.18,
        1, 9, 1.0, 0.94, 0.0, 0.3,
    ),
    # tree
    "foliage": _M(
        "tree", "leaves", 3, (0.05, 0.095, 0.028), (0.15, 0.20, 0.06), 0.75, 0.46, 0.60,
        -0.5, 2, 0.5, 0.98, 0.02, 0.2,
    ),
    "foliage_dry": _M(
        "tree", "leaves", 3, (0.13, 0.10, 0.035), (0.26, 0.18, 0.06), 0.70, 0.36, 0.48,
        0, 3, 0.5, 0.98, 0.0, 0.2,
    ),
    "bark": _M(
        "tree", "bark", 1.5, (0.12, 0.09, 0.065), (0.05, 0.04, 0.03), 0.5, 0.30, 0.18,
        0, 5, 1.5, 0.96, 0.0, 0.3,
    ),
    # building; rgb is multiplied with the tint of the building
    "brick": _M(
        "building", "bricks", 1.6, (0.75, 0.75, 0.75), (1.15, 1.25, 1.3), 0.28, 0.36, 0.42,
        0, 8, 3.0, 0.93, 0.0,
    ),
    "plaster": _M(
        "building", "plaster", 6, _WHITE, (0.72, 0.70, 0.66), 0.10, 0.50, 0.40,
        0, 7, 1.5, 0.92, 0.0,
    ),
    "planks": _M(
        "building", "siding", 2.4, _WHITE, (0.45, 0.42, 0.40), 0.18, 0.42, 0.24,
        0.5, 9, 0.5, 0.92, 0.03,
    ),
    "panels": _M(
        "building", "panels", 6, (0.9, 0.92, 0.95), (0.45, 0.45, 0.46), 0.10, 0.38, 0.20,
        0, 7, 2.0, 0.88, 0.12,
    ),
    "roof": _M(
        "building", "bricks", 2.4, (0.26, 0.14, 0.11), (0.11, 0.08, 0.07), 0.35, 0.28, 0.18,
        3, 15, -3.0, 0.92, 0.03,
    ),
    "door": _M(
        "building", "siding", 1.2, (0.20, 0.12, 0.08), (0.08, 0.06, 0.05), 0.2, 0.28, 0.16,
        0, 6, 3.0, 0.92, 0.08,
    ),
    "frame": _M(
        "building", "plaster", 4, (0.62, 0.62, 0.60), (0.5, 0.5, 0.5), 0.08, 0.55, 0.45,
        0, 6, 3.5, 0.92, 0.03,
    ),
    # glass of buildings
    "window": _M(
        "glass", "flat", 4, (0.045, 0.05, 0.055), (0.10, 0.10, 0.10), 0.30, 0.05, 0.10,
        -0.5, 3, 3.0, 0.85, 1.0, 1.0, 0.12,
    ),
    # car; rgb is multiplied with the tint of the car
    "paint": _M(
        "car", "paint", 3, _WHITE, (0.8, 0.8, 0.8), 0.06, 0.45, 0.40,
        2, 11, -2.0, 0.80, 0.9, 1.0,
    ),
    "bonnet": _M(
        "car", "paint", 3, _WHITE, (0.8, 0.8, 0.8), 0.06, 0.45, 0.40,
        3, 11, -1.0, 0.80, 0.9, 1.0,
    ),
    "car_glass": _M(
        "car", "flat", 3, (0.03, 0.035, 0.04), (0.05, 0.05, 0.05), 0.1, 0.05, 0.07,
        1, 6, 0.0, 0.85, 1.0, 1.0,
    ),
    "tyre": _M(
        "car", "asphalt", 1.5, (0.03, 0.03, 0.03), (0.05, 0.05, 0.05), 0.2, 0.06, 0.08,
        1, 7, 1.0, 0.95, 0.02,
    ),
    "hub": _M(
        "car", "flat", 1.5, (0.40, 0.40, 0.41), (0.3, 0.3, 0.3), 0.2, 0.42, 0.35,
        1, 6, 0.5, 0.70, 0.5,
    ),
    "grille": _M(
        "car", "siding", 1.2, (0.05, 0.05, 0.055), (0.16, 0.16, 0.16), 0.3, 0.08, 0.15,
        3, 6, 1.5, 0.88, 0.2,
    ),
    "headlight": _M(
        "car", "flat", 1.5, (0.6, 0.6, 0.6), (0.5, 0.5, 0.5), 0.1, 0.5, 0.5,
        2, 6, 3.0, 0.85, 0.8, 1.0, 1.2,
    ),
    "taillight": _M(
        "car", "flat", 1.5, (0.30, 0.02, 0.02), (0.2, 0.01, 0.01), 0.1, 0.4, 0.4,
        2, 6, 2.0, 0.85, 0.6, 1.0, 0.08,
    ),
    # person; rgb is multiplied with the tint of the garment or of the skin
    "cloth": _M(
        "person", "cloth", 1.5, _WHITE, (0.72, 0.72, 0.74), 0.28, 0.48, 0.38,
        0, 0, 0.0, 0.95, 0.0, 0.1,
    ),
    "skin": _M(
        "person", "plaster", 1.5, _WHITE, (0.85, 0.75, 0.7), 0.12, 0.55, 0.50,
        0, 0, 0.0, 0.98, 0.03, 0.3,
    ),
    "hair": _M(
        "person", "bark", 1.2, _WHITE, (0.6, 0.6, 0.6), 0.35, 0.20, 0.14,
        0, 0, 0.0, 0.96, 0.02, 0.2,
    ),
    # water
    "puddle": _M(
        "water", "ripples", 3, (0.045, 0.045, 0.042), (0.07, 0.065, 0.055), 0.15, 0.03, 0.05,
        -3, 1, 1.5, 0.96, 1.0, 0.3,
    ),
    "pond": _M(
        "water", "ripples", 4, (0.03, 0.045, 0.04), (0.055, 0.075, 0.05), 0.25, 0.02, 0.04,
        -4, 1, 4.0, 0.96, 0.9, 0.3,
    ),
    # fence, pole, sign
    "timber": _M(
        "fence", "siding", 1.2, (0.24, 0.17, 0.11), (0.09, 0.07, 0.05), 0.35, 0.38, 0.2,
        1, 9, -1.5, 0.93, 0.0,
    ),
    "metal": _M(
        "fence", "paint", 2, (0.30, 0.31, 0.32), (0.16, 0.16, 0.165), 0.2, 0.32, 0.2,
        1, 9, -3.0, 0.75, 0.35,
    ),
    "sign": _M(
        "fence", "panels", 1.2, _WHITE, (0.8, 0.8, 0.8), 0.05, 0.55, 0.5,
        1, 7, -3.0, 0.85, 0.2,
    ),
    "lamp": _M(
        "fence", "flat", 1.5, (0.5, 0.48, 0.42), (0.5, 0.5, 0.5), 0.05, 0.5, 0.5,
        1, 7, 8.0, 0.85, 0.3, 1.0, 3.0,
    ),
}  # fmt: skip

MATERIAL_IDS: dict[str, int] = {name: index for index, name in enumerate(MATERIALS)}


@dataclass(frozen=True, eq=False)
class MaterialTable:
    """The materials as one array per property, indexed by material id.

    Attributes:
        label: (N,) uint8 class ids.
        rgb, rgb_mix: (3, N) linear reflectances.
        contrast, nir, nir_mix, day_k, solar_k, night_k, emissivity, gloss, polarizing, glow:
            (N,) float32, see :class:`Material`.
        period_m: (N,) float32.
        tiles: name of the texture tile of each material.
    """

    label: NDArray[np.uint8]
    tiles: tuple[str, ...]
    period_m: NDArray[np.float32]
    rgb: NDArray[np.float32]
    rgb_mix: NDArray[np.float32]
    contrast: NDArray[np.float32]
    nir: NDArray[np.float32]
    nir_mix: NDArray[np.float32]
    day_k: NDArray[np.float32]
    solar_k: NDArray[np.float32]
    night_k: NDArray[np.float32]
    emissivity: NDArray[np.float32]
    gloss: NDArray[np.float32]
    polarizing: NDArray[np.float32]
    glow: NDArray[np.float32]

    @classmethod
    def build(cls) -> MaterialTable:
        """The table of ``MATERIALS``."""
        label, tiles, *numbers = zip(*(astuple(m) for m in MATERIALS.values()), strict=True)
        columns = [np.ascontiguousarray(np.array(c, np.float32).T) for c in numbers]
        ids = np.array([CLASSES.index(name) for name in label], np.uint8)
        return cls(ids, tuple(tiles), *columns)


TABLE = MaterialTable.build()
