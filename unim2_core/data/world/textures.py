"""Procedural texture tiles, periodic and mip-mapped, in one atlas that OpenCV can sample."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world.materials import TABLE

SIZE = 256
LEVELS = 6
_PAD = 1

Floats = NDArray[np.float32]
Tile = tuple[Floats, Floats]


def _noise(rng: np.random.Generator, low: float, high: float, stretch: float = 1.0) -> Floats:
    """Periodic Gaussian noise, zero mean, unit deviation.

    Args:
        rng: source of randomness.
        low: lowest frequency kept, cycles per tile.
        high: highest frequency kept, cycles per tile.
        stretch: more than one elongates the grain along v (columns), less along u.
    """
    fy = np.fft.fftfreq(SIZE, 1 / SIZE)[:, None] * stretch
    fx = np.fft.rfftfreq(SIZE, 1 / SIZE)[None, :]
    radius = np.hypot(fx, fy)
    band = np.exp(-((radius / high) ** 2)) - np.exp(-((radius / low) ** 2))
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) * band / np.maximum(radius, 1)
    field = np.fft.irfft2(spectrum, (SIZE, SIZE))
    return np.asarray((field - field.mean()) / field.std(), np.float32)


def _cells(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Periodic Worley cells: gap to the second nearest seed (texels) and a value per cell."""
    seeds = rng.uniform(0, SIZE, (count, 2)).astype(np.float32)
    first = np.full((SIZE, SIZE), np.inf, np.float32)
    second, value = first.copy(), np.zeros_like(first)
    # A seed further away than four mean distances is neither first nor second.
    reach = min(round(4 * SIZE / np.sqrt(count)), SIZE // 2)
    around = np.arange(-reach, reach, dtype=np.float32)
    for seed, shade in zip(seeds, rng.uniform(-1, 1, count), strict=True):
        texels = np.floor(seed)[:, None] + around  # (2, N) columns and rows
        dx, dy = np.abs(texels - seed[:, None])
        distance = np.hypot(dx[None, :], dy[:, None])
        column, row = np.mod(texels, SIZE).astype(int)
        window = np.ix_(row, column)
        near, far = first[window], second[window]
        nearer = distance < near
        second[window] = np.where(nearer, near, np.minimum(far, distance))
        first[window] = np.where(nearer, distance, near)
        value[window] = np.where(nearer, shade, value[window])
    return second - first, value


def _courses(
    rng: np.random.Generator, rows: int, columns: int, joint: int, bond: bool = True
) -> Tile:
    """Stones in courses: a shade per stone, and the joints between them."""
    v, u = np.mgrid[0:SIZE, 0:SIZE]
    row = v * rows // SIZE
    shifted = (u + (row % 2) * (SIZE // (2 * columns)) * int(bond)) % SIZE
    column = shifted * columns // SIZE
    shade = rng.normal(0, 0.8, (rows, columns))[row, column]
    joints = (v % (SIZE / rows) < joint) | (shifted % (SIZE / columns) < joint)
    grain = _noise(rng, 12, 90)
    return (shade + 0.35 * grain).astype(np.float32), joints.astype(np.float32)


def _ramp(field: Floats, low: float, high: float) -> Floats:
    return np.asarray(np.clip((field - low) / (high - low), 0, 1))


def _asphalt(rng: np.random.Generator) -> Tile:
    cracks, _ = _cells(rng, 9)
    lines = np.exp(-((cracks / 2.0) ** 2)) * _ramp(_noise(rng, 1, 3), 0.0, 0.8)
    patches = _ramp(_noise(rng, 1, 2.5), 0.9, 1.0) * 0.6
    return _noise(rng, 30, 120) + 0.4 * _noise(rng, 1, 6), np.maximum(lines, patches)


def _cobbles(rng: np.random.Generator) -> Tile:
    shade, joints = _courses(rng, 12, 12, 4)
    return shade, cv2.GaussianBlur(joints, (5, 5), 1.2)


def _blades(rng: np.random.Generator) -> Tile:
    fine = _noise(rng, 25, 110, 0.4)
    return fine + 0.7 * _noise(rng, 3, 14), _ramp(_noise(rng, 2, 20), 0.3, 1.6)


def _clods(rng: np.random.Generator) -> Tile:
    return 0.8 * _noise(rng, 6, 40) + 0.6 * _noise(rng, 30, 100), _ramp(
        _noise(rng, 2, 9), -0.3, 1.2
    )


def _gravel(rng: np.random.Generator) -> Tile:
    gap, value = _cells(rng, 900)
    return value * 1.2 + 0.3 * _noise(rng, 40, 110), np.exp(-((gap / 1.6) ** 2))


def _leaves(rng: np.random.Generator) -> Tile:
    gap, value = _cells(rng, 420)
    clumps = _noise(rng, 3, 12)
    return 0.6 * value + 0.8 * clumps - 0.5 * np.exp(-((gap / 2.5) ** 2)), _ramp(
        0.5 * value + 0.6 * clumps, 0.1, 1.4
    )


def _bark(rng: np.random.Generator) -> Tile:
    streaks = _noise(rng, 8, 50, 5.0)
    return streaks, _ramp(streaks + 0.5 * _noise(rng, 4, 20), 0.4, 1.4)


def _plaster(rng: np.random.Generator) -> Tile:
    stains = _noise(rng, 2, 12, 4.0)
    return 0.6 * _noise(rng, 20, 110) + _noise(rng, 1, 5), _ramp(stains, 0.7, 2.2)


def _siding(rng: np.random.Generator) -> Tile:
    shade, joints = _courses(rng, 16, 1, 3, bond=False)
    v = np.mgrid[0:SIZE, 0:SIZE][0]
    joints = (v % (SIZE // 16) < 3).astype(np.float32)
    return shade * 0.5 + 0.5 * _noise(rng, 10, 70, 0.15), joints


def _panels(rng: np.random.Generator) -> Tile:
    shade, joints = _courses(rng, 4, 4, 2, bond=False)
    return 0.7 * shade, joints


def _cloth(rng: np.random.Generator) -> Tile:
    v, u = np.mgrid[0:SIZE, 0:SIZE] * (2 * np.pi / SIZE)
    weave = np.sin(24 * v) * np.sin(24 * u) + 0.6 * _noise(rng, 3, 10)
    return _noise(rng, 4, 16, 3.0), _ramp(weave.astype(np.float32), 0.2, 0.9)


def _ripples(rng: np.random.Generator) -> Tile:
    return _noise(rng, 6, 30, 2.5), _ramp(_noise(rng, 2, 8), 0.0, 1.5)


def _clouds(rng: np.random.Generator) -> Tile:
    return _noise(rng, 1, 40), _ramp(_noise(rng, 1, 20), -0.3, 1.0)


TILES: dict[str, Callable[[np.random.Generator], Tile]] = {
    "flat": lambda rng: (0.5 * _noise(rng, 1, 3), _ramp(_noise(rng, 1, 4), 0.0, 2.0)),
    "asphalt": _asphalt,
    "cobbles": _cobbles,
    "slabs": lambda rng: _courses(rng, 4, 4, 4, bond=False),
    "pavers": lambda rng: _courses(rng, 16, 8, 3),
    "blades": _blades,
    "clods": _clods,
    "gravel": _gravel,
    "leaves": _leaves,
    "bark": _bark,
    "bricks": lambda rng: _courses(rng, 20, 6, 3),
    "plaster": _plaster,
    "siding": _siding,
    "panels": _panels,
    "paint": lambda rng: (_noise(rng, 1, 6), _ramp(_noise(rng, 1, 8), 0.5, 2.0)),
    "cloth": _cloth,
    "ripples": _ripples,
    "clouds": _clouds,
}

TILE_IDS = {name: index for index, name in enumerate(TILES)}
MATERIAL_TILE: NDArray[np.int32] = np.array([TILE_IDS[name] for name in TABLE.tiles], np.int32)

_LEVEL_SIZE = np.array([SIZE >> level for level in range(LEVELS)], np.float32)
_LEVEL_X = np.concatenate([[0], np.cumsum(_LEVEL_SIZE + 2 * _PAD)[:-1]]).astype(np.float32)
_LEVEL_LEFT = (_LEVEL_X + (_PAD - 0.5)).astype(np.float32)
_ROW = SIZE + 2 * _PAD


@cache
def atlas() -> NDArray[np.uint8]:
    """All tiles and levels in one image, (rows, columns, 2) uint8; 128 is the mean of channel 0.

    One row of tiles per texture, its levels side by side, each with a wrapped border of one
    texel, so that bilinear sampling is seamless.
    """
    width = int(_LEVEL_X[-1] + _LEVEL_SIZE[-1] + 2 * _PAD)
    image = np.zeros((_ROW * len(TILES), width, 2), np.uint8)
    for index, make in enumerate(TILES.values()):
        shade, mix = make(np.random.Generator(np.random.PCG64(1000 + index)))
        levels = np.stack([np.clip(0.5 + shade / 5.0, 0, 1), np.clip(mix, 0, 1)], -1)
        for x, size in zip(_LEVEL_X.astype(int), _LEVEL_SIZE.astype(int), strict=True):
            tile = cv2.resize(levels, (int(size), int(size)), interpolation=cv2.INTER_AREA)
            padded = np.pad(tile, ((_PAD, _PAD), (_PAD, _PAD), (0, 0)), mode="wrap")
            rows = slice(index * _ROW, index * _ROW + len(padded))
            image[rows, x : x + len(padded)] = np.rint(padded * 255)
    image.setflags(write=False)
    return image


def sample(
    tile: NDArray[np.int32] | int, u: Floats, v: Floats, footprint: Floats | None = None
) -> tuple[Floats, Floats]:
    """Look both channels of a tile up, at the resolution that a pixel can show.

    Args:
        tile: tile ids of the shape of ``u``, or one for all.
        u: (H, W) or (N,) coordinate along the tile's columns, in periods.
        v: coordinate along the tile's rows, in periods.
        footprint: size of a pixel on the surface, in periods; None for the finest level.

    Returns:
        Shade, float32 about -1 to 1, and mix, float32 in [0, 1], of the shape of ``u``.
    """
    size: Floats | np.float32 = np.float32(SIZE)
    left: Floats | np.float32 = np.float32(_PAD - 0.5)
    if footprint is not None:
        # The exponent of the footprint in texels is the level: no logarithm needed.
        _, exponent = np.frexp(footprint * np.float32(SIZE))
        level = np.clip(exponent - 1, 0, LEVELS - 1).astype(np.intp)
        size, left = _LEVEL_SIZE.take(level), _LEVEL_LEFT.take(level)
    x = (u - np.floor(u)) * size + left
    top = tile * _ROW + np.float32(_PAD - 0.5)
    y = (v - np.floor(v)) * size + np.asarray(top, np.float32)
    both = _interpolated(x, y)
    shade = both[..., 0] * np.float32(2.5 / 255) - np.float32(1.25)
    return shade, both[..., 1] * np.float32(1 / 255)


def _interpolated(x: Floats, y: Floats) -> NDArray[np.uint8]:
    """The atlas at the points (x, y): (..., 2)."""
    if x.ndim == 2:
        return np.asarray(cv2.remap(atlas(), x, y, cv2.INTER_LINEAR))
    # OpenCV takes no side longer than 32767: fold long rows into an image.
    fold = 1024
    points = np.zeros((2, (len(x) // fold + 1) * fold), np.float32)
    points[:, : len(x)] = x, y
    column, line = points.reshape(2, -1, fold)
    return np.asarray(cv2.remap(atlas(), column, line, cv2.INTER_LINEAR)).reshape(-1, 2)[: len(x)]
