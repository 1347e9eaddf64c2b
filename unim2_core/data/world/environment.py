"""Time of day and weather of one drive: sun, sky, lamps, air, fog."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Band:
    """The light of a scene in the C channels of one camera; white in full sun is about 1.

    Attributes:
        sun: (C,) irradiance of the sun on a surface at right angles.
        fill: (C,) irradiance of the sky on a level surface.
        zenith: (C,) radiance of the clear sky overhead.
        horizon: (C,) radiance of the sky at the horizon.
        cloud: (C,) radiance of a cloud.
        lamp: (C,) intensity of a street lamp, irradiance at 1 m.
        headlight: (C,) intensity of the robot's own light, irradiance at 1 m.
        flood: the robot's own light is wide (a near-infrared illuminator) instead of a beam.
        fog_share: how much of the visible fog this band sees.
        glow: (C,) colour of windows and lamps.
        surroundings: (C,) radiance that replaces the sky in reflections close to the horizon.
    """

    sun: Floats
    fill: Floats
    zenith: Floats
    horizon: Floats
    cloud: Floats
    lamp: Floats
    headlight: Floats
    flood: bool
    fog_share: float
    glow: Floats
    surroundings: Floats


@dataclass(frozen=True, eq=False)
class Environment:
    """Weather and light of one drive.

    Attributes:
        night: sun below the horizon, lamps on.
        sun: (3,) unit vector towards the sun (world: x along the street, y left, z up).
        cloud: cloud cover in [0, 1].
        cloud_shift: (2,) which part of the clouds' texture lies overhead, in periods.
        fog_per_m: extinction of visible light, 1/m.
        glare: strength of veiling glare in [0, 1].
        air_k: temperature of the air, kelvin.
        zero_k: error of the thermal camera's zero, kelvin.
        sky_drop_k: how much colder than the air the sky overhead looks in the infrared.
        heat_share: how much of the sun's heating is left (clouds).
        wet: share of the street with puddles, in [0, 1].
        dry: share of dry vegetation, in [0, 1].
        bands: ``rgb``, ``nir`` and ``pan`` (polarization).
    """

    night: bool
    sun: Floats
    cloud: float
    cloud_shift: Floats
    fog_per_m: float
    glare: float
    air_k: float
    zero_k: float
    sky_drop_k: float
    heat_share: float
    wet: float
    dry: float
    bands: dict[str, Band]

    @classmethod
    def draw(cls, seed: tuple[int, ...], *, night: bool, fog: float, glare: float) -> Environment:
        """Draw the weather of a drive."""
        rng = np.random.default_rng([*seed, 11])
        cloud = float(rng.beta(0.8, 1.0)) * (1.0 - 0.9 * glare)
        cloud = max(cloud, fog)
        elevation = float(np.deg2rad(rng.uniform(18, 55)))
        azimuth = float(rng.uniform(-np.pi, np.pi))
        if glare > 0:  # a low sun, roughly ahead
            elevation = float(np.deg2rad(rng.uniform(13, 21)))
            azimuth = float(rng.uniform(-0.2, 0.2))
        flat = np.cos(elevation)
        sun = np.array([flat * np.cos(azimuth), flat * np.sin(azimuth), np.sin(elevation)])
        air = rng.uniform(279, 287) if night else rng.uniform(284, 297)
        clear = 1.0 - cloud
        return cls(
            night=night,
            sun=sun.astype(np.float32),
            cloud=cloud,
            cloud_shift=rng.random(2, np.float32),
            fog_per_m=fog * 0.11,
            glare=glare,
            air_k=float(air),
            zero_k=float(rng.normal(0, 0.6)),
            sky_drop_k=float(5.0 + 24.0 * clear + rng.uniform(-2, 2)) * (1 - 0.8 * fog),
            heat_share=0.15 + 0.85 * clear,
            wet=float(rng.uniform(0.3, 1.0)),
            dry=float(rng.beta(1.0, 1.5)),
            bands={
                name: _band(name, rng, night=night, cloud=cloud, low_sun=elevation < 0.38)
                for name in ("rgb", "nir", "pan")
            },
        )


def _band(
    name: str, rng: np.random.Generator, *, night: bool, cloud: float, low_sun: bool
) -> Band:
    """Light of the sun, the sky and the lamps as the channels of one camera see it."""
    clear, day, dark = 1.0 - cloud, float(not night), float(night)
    rgb = np.array
    sun = rgb([1.0, 0.80, 0.55]) if low_sun else rgb([1.0, 0.96, 0.88])
    overcast = rgb([0.68, 0.69, 0.71])
    moon = 0.0006 * dark
    light = {
        "sun": day * (0.1 + 1.1 * clear) * sun,
        "fill": day * (clear * rgb([0.19, 0.23, 0.30]) + 0.52 * cloud) + moon,
        "zenith": day * (clear * rgb([0.16, 0.30, 0.62]) + cloud * overcast)
        + moon * rgb([0.5, 0.7, 1.2]),
        "horizon": day * (clear * rgb([0.62, 0.68, 0.75]) + 0.95 * cloud * overcast)
        + moon * rgb([8, 6, 4]),
        "cloud": day * (0.92 - 0.35 * cloud) * np.ones(3) + moon * rgb([6, 5, 4]),
        "surroundings": day * rgb([0.12, 0.125, 0.115]) + moon * 10,
        "lamp": dark * rgb([2.4, 1.7, 0.85]),
        "headlight": dark * rgb([12.0, 11.5, 10.5]),
        "glow": rgb([1.0, 0.86, 0.60]),
    }
    if name == "rgb":
        balance = np.exp(rng.normal(0, 0.03, 3))
        light = {key: value * balance for key, value in light.items()}
    else:
        light = {key: value @ rgb([[0.3], [0.5], [0.2]]) for key, value in light.items()}
    if name == "nir":
        # Rayleigh scattering hardly reaches the near infrared: a dark sky, bright clouds.
        light["zenith"] *= 0.35 + 0.55 * cloud
        light["fill"] *= 0.5 + 0.4 * cloud
        light["horizon"] *= 0.65 + 0.3 * cloud
        light["lamp"] *= 0.6
        light["glow"] *= 0.7
        light["headlight"] = dark * np.array([17.0])
    return Band(
        flood=name == "nir",
        fog_share={"rgb": 1.0, "pan": 0.95, "nir": 0.65}[name],
        **{key: value.astype(np.float32) for key, value in light.items()},
    )
