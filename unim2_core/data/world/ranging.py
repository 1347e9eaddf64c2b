"""A stereo depth camera: disparity noise, limited range and holes where it matches nothing."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world.environment import Environment
from unim2_core.data.world.materials import MATERIAL_IDS, TABLE
from unim2_core.data.world.scene import Sight

Floats = NDArray[np.float32]

DISPARITY_NOISE = np.float32(0.0008)
"""Standard deviation of 1 / depth, 1/m: about 8 cm at 10 m, 70 cm at 30 m."""
NEAREST_M = 0.4
FARTHEST_M = 32.0
_UNSEEN = np.zeros(len(MATERIAL_IDS), np.float32)
for _name, _share in {
    "window": 0.75, "car_glass": 0.7, "puddle": 0.6, "pond": 0.7, "paint": 0.1, "bonnet": 0.2,
    "hub": 0.2, "foliage": 0.05, "foliage_dry": 0.05, "tyre": 0.12, "hair": 0.15,
}.items():  # fmt: skip
    _UNSEEN[MATERIAL_IDS[_name]] = _share


def range_cues(sight: Sight, environment: Environment) -> Floats:
    """(2, H, W) true depth in metres, 1000 in the sky, and the chance that it is not found."""
    surface = sight.surface
    depth = np.where(surface.sky, np.float32(1e3), surface.depth_m)
    grazing = np.maximum(np.float32(0.12) - surface.facing, 0) * 3
    grazing *= 1 + TABLE.gloss.take(surface.material)
    return np.stack([depth, _UNSEEN.take(surface.material) + grazing + np.float32(0.012)])


def depth_image(
    cues: Floats, environment: Environment, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """(H, W) 16UC1 millimetres from :func:`range_cues`; 0 where the camera finds no depth."""
    depth, unseen = cues
    noise = 0.8 * _patches(rng, depth.shape, 4)
    noise += np.float32(0.6) * rng.standard_normal(depth.shape, np.float32)
    disparity = 1 / depth  # in units of focal length times baseline
    measured = 1 / np.maximum(disparity + DISPARITY_NOISE * noise, np.float32(1e-4))
    reach = FARTHEST_M / (1 + 25 * environment.fog_per_m)
    valid = (depth > NEAREST_M) & (measured < reach)
    # The logistic function makes of a normal deviate one that is nearly uniform.
    chance = 1 / (1 + np.exp(np.float32(-1.702) * _patches(rng, depth.shape, 12)))
    valid &= chance > unseen
    valid &= ~_edges(disparity)
    return np.where(valid, np.rint(np.clip(measured, 0, 65.0) * 1000), 0).astype(np.uint16)


def _patches(rng: np.random.Generator, shape: tuple[int, ...], size: int) -> Floats:
    """(H, W) noise of unit deviation, correlated over about ``size`` pixels."""
    height, width = shape
    coarse = rng.standard_normal((height // size + 2, width // size + 2), np.float32)
    smooth = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(smooth * np.float32(1.5))  # interpolation takes a third of the deviation


def _edges(disparity: Floats) -> NDArray[np.bool_]:
    """Pixels beside a jump in depth, where the two views of a stereo pair differ."""
    block = np.ones((3, 3), np.uint8)
    jump = cv2.dilate(disparity, block) - cv2.erode(disparity, block)
    return np.asarray(jump > np.maximum(np.float32(0.12) * disparity, np.float32(0.01)))
