"""A thermal camera: how warm things are, what they mirror, and what the detector adds."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world import optics
from unim2_core.data.world.environment import Environment
from unim2_core.data.world.materials import TABLE
from unim2_core.data.world.scene import Sight
from unim2_core.data.world.surfaces import Surface

Floats = NDArray[np.float32]

NOISE_K = 0.07
COLUMN_NOISE_K = 0.06
EDGE_K = 0.3
"""How much too cold the middle of each edge looks; the corners twice that."""


def thermal_image(
    apparent: Floats, environment: Environment, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """(H, W) mono16 centikelvin of a long-wave infrared camera that sees (1, H, W) kelvin."""
    apparent = cv2.GaussianBlur(apparent[0], (0, 0), 0.8)
    height, width = apparent.shape
    apparent += rng.standard_normal(apparent.shape, np.float32) * np.float32(NOISE_K)
    apparent += rng.standard_normal((1, width), np.float32) * np.float32(COLUMN_NOISE_K)
    x, y = np.linspace(-1, 1, width), np.linspace(-1, 1, height)[:, None]
    apparent += (environment.zero_k - EDGE_K * (x * x + y * y)).astype(np.float32)
    return np.asarray(np.rint(apparent * 100).astype(np.uint16))


def apparent_temperature(sight: Sight, environment: Environment) -> Floats:
    """(1, H, W) temperature in kelvin that a perfect thermal camera reads."""
    surface = sight.surface
    air = environment.air_k
    kelvin = air + surface.heat_k + _contact(surface, environment)
    fresnel = optics.Fresnel.at(surface.facing).mean
    emissivity = surface.of(TABLE.emissivity) * (1 - 0.8 * surface.of(TABLE.gloss) * fresnel)
    up = surface.ray[2] + 2 * surface.facing * surface.normal[2]
    mirrored = air - environment.sky_drop_k * np.sqrt(np.clip((up - 0.2) * 1.25, 0, 1))
    kelvin = emissivity * kelvin + (1 - emissivity) * mirrored
    attenuation = np.exp(-(0.0015 + 0.35 * environment.fog_per_m) * surface.depth_m)
    kelvin = air + (kelvin - air) * attenuation
    np.copyto(kelvin, _sky(surface, environment), where=surface.sky)
    return np.asarray(kelvin[None])


def _contact(surface: Surface, environment: Environment) -> Floats:
    """Kelvin above the air that sun, ground and texture give a surface."""
    contrast = surface.of(TABLE.contrast)
    grain = 0.5 * contrast * surface.shade + 0.7 * surface.stain
    if environment.night:
        return np.asarray(surface.of(TABLE.night_k) + grain)
    sunny = np.maximum(optics.dot(environment.sun, surface.normal), 0) * surface.lit
    # What lies in the shade now was in the sun before.
    heating = surface.of(TABLE.solar_k) * (environment.heat_share * (0.12 + 0.88 * sunny))
    dark = 1.15 - 0.3 * surface.tint.mean(0)
    return np.asarray(surface.of(TABLE.day_k) + heating * dark + grain * (1 + sunny))


def _sky(surface: Surface, environment: Environment) -> Floats:
    up = np.maximum(surface.ray[2], 0)
    cover = optics.cloud_cover(surface.ray, environment)
    drop = environment.sky_drop_k * np.sqrt(up) * (1.35 - 0.85 * cover)
    return np.asarray(environment.air_k - 1 - drop, np.float32)
