"""Cameras for visible and near-infrared light: lens, exposure, noise and polarizer mosaic."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world import optics
from unim2_core.data.world.environment import Environment
from unim2_core.data.world.scene import Sight

Floats = NDArray[np.float32]
Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Imager:
    """A sensor chip behind a lens.

    Attributes:
        target: mean that the automatic exposure aims at, share of full scale.
        most_gain: largest gain, output per unit of scene radiance.
        read_noise: noise without light at gain 1, share of full scale.
        shot_noise: variance per unit of signal at gain 1.
        blur_px: radius of the lens' point spread, pixels.
        gamma: exponent of the output curve; 1 is linear.
        flare: share of glare that the lens scatters.
    """

    target: float
    most_gain: float
    read_noise: float
    shot_noise: float
    blur_px: float
    gamma: float
    flare: float


RGB = Imager(0.20, 22.0, 0.0015, 0.0005, 0.6, 2.2, 1.0)
NIR = Imager(0.24, 40.0, 0.0012, 0.0004, 0.7, 1.6, 0.7)
POLARIZATION = Imager(0.26, 26.0, 0.0003, 0.00006, 0.6, 1.0, 0.6)

_CURVE_STEPS = 4096


def color_light(sight: Sight, environment: Environment) -> Floats:
    """(3, H, W) red, green and blue light that reaches a camera."""
    fresnel = optics.Fresnel.at(sight.surface.facing)
    albedo = optics.albedo_rgb(sight.surface)
    return optics.light(sight, albedo, environment.bands["rgb"], environment, fresnel).total


def infrared_light(sight: Sight, environment: Environment) -> Floats:
    """(1, H, W) near-infrared light, of the robot's own illuminator at night."""
    fresnel = optics.Fresnel.at(sight.surface.facing)
    albedo = optics.albedo_nir(sight.surface)
    return optics.light(sight, albedo, environment.bands["nir"], environment, fresnel).total


def stokes(sight: Sight, environment: Environment) -> Floats:
    """(3, H, W) S0, S1 and S2 of visible light, see :func:`optics.polarization`."""
    fresnel = optics.Fresnel.at(sight.surface.facing)
    albedo = optics.albedo_rgb(sight.surface).mean(0, keepdims=True)
    light = optics.light(sight, albedo, environment.bands["pan"], environment, fresnel)
    return np.stack(optics.polarization(sight.surface, light, fresnel, environment))


def rgb_image(light: Floats, environment: Environment, rng: np.random.Generator) -> Image:
    """(H, W, 3) rgb8 of a colour camera."""
    return _exposed(light, RGB, environment, rng)


def nir_image(light: Floats, environment: Environment, rng: np.random.Generator) -> Image:
    """(H, W) mono8 of a near-infrared camera."""
    return _exposed(light, NIR, environment, rng)[..., 0]


def polarization_mosaic(
    light: Floats, environment: Environment, rng: np.random.Generator
) -> Image:
    """(H, W) mono8 behind polarizers at 90, 45; 135, 0 degrees in each block of 2x2.

    Angles are counted in the image from +x (right) towards up.
    """
    # The lens blurs before the mosaic: blurring after it would mix the angles.
    s0, s1, s2 = (cv2.GaussianBlur(part, (3, 3), POLARIZATION.blur_px) for part in light)
    s0[0::2, 0::2] -= s1[0::2, 0::2]
    s0[0::2, 1::2] += s2[0::2, 1::2]
    s0[1::2, 0::2] -= s2[1::2, 0::2]
    s0[1::2, 1::2] += s1[1::2, 1::2]
    # Twice what passes: a polarizer takes half of unpolarized light, the exposure makes up for it.
    return _exposed(s0[None], POLARIZATION, environment, rng, blur=False)[..., 0]


def _exposed(
    light: Floats,
    imager: Imager,
    environment: Environment,
    rng: np.random.Generator,
    *,
    blur: bool = True,
) -> Image:
    """Turn radiance (C, H, W) into the counts (H, W, C) of a sensor with automatic exposure."""
    gain = _gain(light, imager)
    signal = np.ascontiguousarray(light.transpose(1, 2, 0)) * np.float32(gain)
    signal += _veiling_glare(signal, imager, environment)
    if blur:
        signal = cv2.GaussianBlur(signal, (3, 3), imager.blur_px)
    signal = signal.reshape(*light.shape[1:], len(light))
    variance = signal * np.float32(imager.shot_noise * gain)
    variance += np.float32((imager.read_noise * gain) ** 2 + 1e-6)
    noise = rng.standard_normal(signal.shape, np.float32)
    signal += np.sqrt(variance, out=variance) * noise
    steps = np.clip(signal * (_CURVE_STEPS - 1), 0, _CURVE_STEPS - 1).astype(np.intp)
    curve = np.rint(255 * np.linspace(0, 1, _CURVE_STEPS) ** (1 / imager.gamma)).astype(np.uint8)
    return np.asarray(curve.take(steps))


def _gain(light: Floats, imager: Imager) -> float:
    # The mean of roots lets a bright sky weigh less, as metering in zones does.
    sample = np.sqrt(np.minimum(light[:, ::8, ::8], 2.0))
    return float(min(imager.target / max(float(sample.mean()) ** 2, 1e-4), imager.most_gain))


def _veiling_glare(signal: Floats, imager: Imager, environment: Environment) -> Floats:
    """(H, W, C) light that the lens scatters from what is far brighter than white."""
    height, width = signal.shape[:2]
    small = (max(width // 8, 1), max(height // 8, 1))
    _, bright = cv2.threshold(signal, 4.0, 0.0, cv2.THRESH_TOZERO)
    bright = cv2.resize(bright, small, interpolation=cv2.INTER_AREA)
    reach = max(small[0] / 40, 0.5)
    narrow = cv2.GaussianBlur(bright, (0, 0), reach) * (0.25 + 0.75 * environment.glare)
    wide = cv2.GaussianBlur(bright, (0, 0), 6 * reach) * (0.2 + 9 * environment.glare)
    veil = cv2.resize(imager.flare * (narrow + wide), (width, height))
    return np.asarray(veil.reshape(signal.shape), np.float32)
