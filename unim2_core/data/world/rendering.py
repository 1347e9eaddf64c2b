"""Images of one camera at one time, with the truth about every pixel."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world import imaging, infrared, ranging
from unim2_core.data.world.config import DriveConfig
from unim2_core.data.world.mounts import MOUNTS
from unim2_core.data.world.scene import WORLD_VERSION, Measure, World

_SENSORS: dict[str, tuple[Measure, Callable[..., NDArray[Any]]]] = {
    "rgb": (imaging.color_light, imaging.rgb_image),
    "depth": (ranging.range_cues, ranging.depth_image),
    "thermal": (infrared.apparent_temperature, infrared.thermal_image),
    "nir": (imaging.infrared_light, imaging.nir_image),
    "polarization": (imaging.stokes, imaging.polarization_mosaic),
}
"""What each camera's optics measure of the world, and the image that it makes of it."""


class Rendering(NamedTuple):
    """What one camera recorded, and the truth about it.

    Attributes:
        image: the array of the image message, see ``Mount.encoding``.
        label: (H, W) uint8 class ids.
        depth_m: (H, W) float32 true depth along the optical axis; infinite in the sky.
    """

    image: NDArray[Any]
    label: NDArray[np.uint8]
    depth_m: NDArray[np.float32]


@lru_cache(maxsize=4)
def _world(seed: int, night: bool, fog: float, glare: float) -> World:
    return World(seed, night=night, fog=fog, glare=glare)


def world_of(config: DriveConfig) -> World:
    """The world that a configuration describes."""
    return _world(config.seed, config.condition == "night", config.fog, config.glare)


def render(config: DriveConfig, time_s: float, sensor: str) -> Rendering:
    """Let one camera of the robot take an image.

    Args:
        config: the drive.
        time_s: time of exposure since the start of the drive, seconds, 0 or more.
        sensor: name of the camera; it need not be among ``config.sensors``.

    Raises:
        ValueError: there is no such camera, or no such time.
    """
    if sensor not in MOUNTS:
        raise ValueError(f"sensor: expected one of {list(MOUNTS)}, got {sensor!r}")
    if not 0 <= time_s < np.inf:
        raise ValueError(f"time_s: expected 0 or more seconds, got {time_s!r}")
    world, mount = world_of(config), MOUNTS[sensor]
    measure, record = _SENSORS[sensor]
    look = world.look(config.camera(sensor), time_s, mount.rotation, mount.translation, measure)
    number = list(MOUNTS).index(sensor)
    rng = np.random.Generator(
        np.random.SFC64([WORLD_VERSION, config.seed, 61, number, round(time_s * 1e9)])
    )
    image = np.ascontiguousarray(record(look.field, world.environment, rng))
    return Rendering(image, look.label, look.depth_m)
