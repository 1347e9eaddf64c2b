"""Light: what surfaces and the sky send to a camera, in its bands, and how it is polarized."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world import textures
from unim2_core.data.world.blocks import LAMP_PITCH_M
from unim2_core.data.world.environment import Band, Environment
from unim2_core.data.world.materials import TABLE
from unim2_core.data.world.scene import Sight
from unim2_core.data.world.surfaces import Surface

REFRACTIVE_INDEX = 1.5
_SKYLINE = 0.28
"""Sine of the elevation below which reflections show houses and trees instead of the sky."""
_SMOOTH = 0.15
"""Gloss above which a surface shows what it mirrors."""
SKY_M = 250.0
"""Distance at which the sky lies behind fog."""
_SUN_RADIANCE = 60.0
_SUN_COSINE = float(np.cos(np.deg2rad(0.9)))

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Light:
    """What reaches a camera.

    Attributes:
        diffuse: (C, H, W) scattered by the body of the surface, or given off by it.
        direct: (C, H, W) mirrored at the surface, or from the sky where there is none.
        veil: (C, H, W) scattered into the line of sight by fog; of the other two, what the fog
            holds back is already gone.
    """

    diffuse: Floats
    direct: Floats
    veil: Floats

    @property
    def total(self) -> Floats:
        """(C, H, W) all of it."""
        total = self.diffuse + self.direct
        total += self.veil
        return total


@dataclass(frozen=True, eq=False)
class Fresnel:
    """Reflection at a dielectric surface.

    Attributes:
        s: (H, W) reflectance of light polarized across the plane of incidence.
        p: (H, W) reflectance of light polarized in it.
    """

    s: Floats
    p: Floats

    @classmethod
    def at(cls, cosine: Floats, index: float = REFRACTIVE_INDEX) -> Fresnel:
        """Fresnel's equations for an angle of incidence given by its cosine, in [0, 1]."""
        refracted = np.sqrt(1 - (1 - cosine * cosine) / index**2)
        s = (cosine - index * refracted) / (cosine + index * refracted)
        p = (index * cosine - refracted) / (index * cosine + refracted)
        return cls(s * s, p * p)

    @property
    def mean(self) -> Floats:
        """(H, W) reflectance of unpolarized light."""
        return (self.s + self.p) * np.float32(0.5)


def albedo_rgb(surface: Surface) -> Floats:
    """(3, H, W) linear reflectance in red, green and blue."""
    base, mixed = surface.of(TABLE.rgb), surface.of(TABLE.rgb_mix)
    albedo = (base + (mixed - base) * surface.mix) * surface.tint * _relief(surface)
    return np.asarray(np.clip(albedo, 0, 0.95))


def albedo_nir(surface: Surface) -> Floats:
    """(1, H, W) reflectance in the near infrared, where dyes and paints differ less."""
    base, mixed = surface.of(TABLE.nir), surface.of(TABLE.nir_mix)
    grey = surface.tint.mean(0)
    tint = 0.55 + 0.45 * np.minimum(grey, 1.3)
    albedo = (base + (mixed - base) * surface.mix) * tint * _relief(surface)
    return np.asarray(np.clip(albedo, 0, 0.95)[None])


def _relief(surface: Surface) -> Floats:
    contrast = surface.of(TABLE.contrast)
    return 1 + contrast * surface.shade + np.float32(0.16) * surface.stain


def light(
    sight: Sight, albedo: Floats, band: Band, environment: Environment, fresnel: Fresnel
) -> Light:
    """Light a surface with sun, sky, lamps and the robot's own light.

    Args:
        sight: what the camera sees.
        albedo: (C, H, W) diffuse reflectance; 0 in the sky.
        band: the camera's bands.
        environment: weather.
        fresnel: reflection of the surface, from :meth:`Fresnel.at`.
    """
    surface = sight.surface
    fresnel_share = surface.of(TABLE.gloss) * fresnel.mean
    diffuse = _irradiance(sight, band, environment)
    diffuse *= albedo
    diffuse += band.glow[:, None, None] * (surface.of(TABLE.glow) * surface.power)
    diffuse *= 1 - fresnel_share
    direct = fresnel_share * _blurred_surroundings(band)
    # Only what is smooth needs a look at what it mirrors.
    smooth = np.flatnonzero(surface.of(TABLE.gloss) > _SMOOTH)
    mirrored = fresnel_share.ravel()[smooth] * _mirrored(surface, smooth, band, environment)
    _flat(direct)[:, smooth] = mirrored
    above = np.flatnonzero(surface.sky)
    _flat(direct)[:, above] = sky_radiance(
        _flat(surface.ray)[:, above], band, environment, sun_disc=True
    )
    extinction = environment.fog_per_m * band.fog_share + 0.0012  # clear air is hazy, too
    clear = np.exp(-extinction * np.where(surface.sky, np.float32(SKY_M), surface.depth_m))
    fog = band.horizon[:, None, None] * (1 - clear)
    if environment.night:
        fog += _backscatter(band, extinction, clear)
    direct *= clear
    diffuse *= clear
    return Light(diffuse, direct, fog)


def _blurred_surroundings(band: Band) -> Floats:
    """(C, 1, 1) what a rough surface mirrors: the lower sky and the street in one."""
    return np.asarray((band.horizon + band.surroundings) * np.float32(0.5))[:, None, None]


def _irradiance(sight: Sight, band: Band, environment: Environment) -> Floats:
    """(C, H, W) light that falls on the surface."""
    surface = sight.surface
    up = surface.normal[2]
    # A corner between wall and ground sees less of the sky.
    near_ground = 1 - 0.35 * np.exp(-np.maximum(surface.position[2], 0) * 1.5) * (up < 0.5)
    result: Floats = band.fill[:, None, None] * ((0.55 + 0.45 * up) * near_ground)
    if environment.night:
        result += band.lamp[:, None, None] * _lamp_light(surface, sight.lamps)
        result += band.headlight[:, None, None] * _own_light(surface, sight.beam, band.flood)
        return result
    towards = dot(environment.sun, surface.normal)
    result += band.sun[:, None, None] * (np.maximum(towards, 0) * surface.lit)
    return result


def _lamp_light(surface: Surface, lamps: Floats) -> Floats:
    """(H, W) light of the two street lamps next to each point, for unit intensity."""
    result = np.zeros_like(surface.facing)
    nearest = np.floor(surface.position[0] / LAMP_PITCH_M).astype(np.intp)
    for neighbour in (0, 1):
        number = np.clip(nearest + neighbour, 0, len(lamps) - 1)
        way = [lamps[:, c].take(number) - surface.position[c] for c in range(3)]
        square = way[0] ** 2 + way[1] ** 2 + way[2] ** 2 + 0.3
        towards = sum(way[c] * surface.normal[c] for c in range(3))
        # Fades out where the next lamp takes over.
        fade = np.maximum(1 - (way[0] / LAMP_PITCH_M) ** 2, 0)
        result += np.maximum(towards, 0) * fade / (square * np.sqrt(square))
    return result


def _own_light(surface: Surface, beam: Floats, flood: bool) -> Floats:
    """(H, W) light of the robot's lamp, which sits at the camera, for unit intensity."""
    square = np.sum((surface.position - surface.view.position[:, None, None]) ** 2, 0) + 1
    falloff: Floats = surface.facing / square
    aim = dot(beam, surface.ray)
    if flood:
        return np.asarray(falloff * np.maximum(aim, 0) ** 8)
    return np.asarray(falloff * np.clip((aim - 0.80) / 0.18, 0, 1) ** 2)


def _backscatter(band: Band, extinction: float, clear: Floats) -> Floats:
    """(C, H, W) the robot's own light, scattered back by fog in front of it."""
    scattered = 0.004 * extinction / 0.05 * (1 - clear)
    return (band.headlight + band.lamp)[:, None, None] * scattered.astype(np.float32)


def _flat(image: Floats) -> Floats:
    return image.reshape(len(image), -1)


def sky_radiance(
    direction: Floats, band: Band, environment: Environment, *, sun_disc: bool
) -> Floats:
    """(C, N) light of the sky from unit directions (3, N)."""
    up = np.maximum(direction[2], 0)
    share = np.sqrt(up)
    zenith, horizon = band.zenith[:, None], band.horizon[:, None]
    result: Floats = horizon + (zenith - horizon) * share
    cover = cloud_cover(direction, environment) * np.minimum(up * 8, 1)
    result += (band.cloud[:, None] - result) * cover
    if not environment.night:
        towards = dot(environment.sun, direction)
        clear = 1 - 0.9 * environment.cloud
        halo = np.exp((towards - 1) * 22) * (0.35 * clear)
        if sun_disc:
            halo += (towards > _SUN_COSINE) * np.float32(_SUN_RADIANCE * clear**2)
        result += band.sun[:, None] * halo
    return result


def cloud_cover(direction: Floats, environment: Environment) -> Floats:
    """How much cloud hides the sky in unit directions (3, ...), in [0, 1]."""
    scale = np.float32(0.16) / (np.maximum(direction[2], 0) + np.float32(0.12))
    u, v = (direction[k] * scale + environment.cloud_shift[k] for k in (0, 1))
    _, puff = textures.sample(textures.TILE_IDS["clouds"], u, v)
    return np.asarray(np.clip(puff * (0.25 + 1.5 * environment.cloud), 0, 1))


def _mirrored(
    surface: Surface, pixels: NDArray[np.intp], band: Band, environment: Environment
) -> Floats:
    """(C, N) what a mirror in the street shows: the sky, below it houses and trees."""
    facing, shade = surface.facing.ravel()[pixels], surface.shade.ravel()[pixels]
    direction = _flat(surface.ray)[:, pixels] + 2 * facing * _flat(surface.normal)[:, pixels]
    # Nothing in the street is smooth enough to mirror the sun's disc.
    sky = sky_radiance(direction, band, environment, sun_disc=False)
    height = direction[2] + np.float32(0.12) * shade
    share = np.clip((height - (_SKYLINE - 0.14)) * np.float32(1 / 0.2), 0, 1)
    low = band.surroundings[:, None]
    return np.asarray(low + (sky - low) * share)


def polarization(
    surface: Surface, light_: Light, fresnel: Fresnel, environment: Environment
) -> tuple[Floats, Floats, Floats]:
    """Stokes parameters of the light of a one-band camera, (H, W) each.

    The angle of polarization is counted in the image from +x (right) towards up.
    Mirrored light is polarized across the plane of incidence, light from within the body of
    the surface in that plane (Atkinson and Hancock 2006, eq. 1 and 2), the clear sky across
    the direction to the sun (Rayleigh).

    Returns:
        S0, S1, S2; S1 = I(0) - I(90), S2 = I(45) - I(135).
    """
    rotation = surface.view.rotation
    # The plane of incidence as it appears in the image.
    across = surface.normal + surface.facing * surface.ray
    cos2, sin2 = _double_angle(across, rotation)
    mirrored = (fresnel.s - fresnel.p) / (fresnel.s + fresnel.p)
    body = _body_polarization(surface.facing) * surface.of(TABLE.polarizing)
    strength = body * light_.diffuse[0] - mirrored * light_.direct[0]
    if environment.night:
        strength *= ~surface.sky
        return light_.total[0], strength * cos2, strength * sin2
    s1, s2 = strength * cos2, strength * sin2
    above = np.flatnonzero(surface.sky)
    ray = _flat(surface.ray)[:, above]
    gamma = dot(environment.sun, ray)
    degree = (0.75 * (1 - environment.cloud)) * (1 - gamma**2) / (1 + gamma**2)
    cos2, sin2 = _double_angle(environment.sun[:, None] - gamma * ray, rotation)
    polarized = -degree * light_.direct[0].ravel()[above]
    s1.ravel()[above] = polarized * cos2
    s2.ravel()[above] = polarized * sin2
    return light_.total[0], s1, s2


def dot(vector: Floats, field: Floats) -> Floats:
    """(...) product of a vector with (3, ...); without BLAS, see ``solids.py``."""
    return np.asarray(vector[0] * field[0] + vector[1] * field[1] + vector[2] * field[2])


def _double_angle(vector: Floats, rotation: Floats) -> tuple[Floats, Floats]:
    """Cosine and sine of twice the angle of a world vector in the image (right, up)."""
    right = dot(rotation[:, 0], vector)
    up = -dot(rotation[:, 1], vector)
    square = right * right + up * up + np.float32(1e-9)
    return np.asarray((right * right - up * up) / square), np.asarray(2 * right * up / square)


def _body_polarization(cosine: Floats) -> Floats:
    """(H, W) degree of polarization of light that comes out of a dielectric body."""
    n = REFRACTIVE_INDEX
    sine2 = 1 - cosine * cosine
    top = (n - 1 / n) ** 2 * sine2
    bottom = 2 + 2 * n * n - (n + 1 / n) ** 2 * sine2 + 4 * cosine * np.sqrt(n * n - sine2)
    return np.asarray(top / bottom)
