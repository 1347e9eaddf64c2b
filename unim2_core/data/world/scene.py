"""One drive's world: what it looks like from anywhere along the street at any time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world.blocks import Block, BlockBuilder
from unim2_core.data.world.cameras import Camera, View
from unim2_core.data.world.environment import Environment
from unim2_core.data.world.rasterizer import rasterize
from unim2_core.data.world.solids import Solid
from unim2_core.data.world.stage import Stage, build_stage, cast_shadows, first_block
from unim2_core.data.world.street import Street, Trajectory
from unim2_core.data.world.surfaces import Resolver, Surface
from unim2_core.data.world.traffic import Traffic

WORLD_VERSION = 1
"""Raised by every change that alters what a seed looks like; figures measured on one version do
not compare with those of another."""
BAND_ROWS = 64
"""Rows that are shaded at once, see :class:`Resolver`."""
HEADLIGHT = np.array([0.996, 0.0, -0.087])
"""Direction of the headlights in base_link: ahead, five degrees down."""


@dataclass(frozen=True, eq=False)
class Sight:
    """What one camera sees, and the lamps that light it.

    Attributes:
        surface: what each pixel shows.
        lamps: (N, 3) street lamps, see :class:`Stage`.
        beam: (3,) unit vector along the robot's headlights.
    """

    surface: Surface
    lamps: NDArray[np.float32]
    beam: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Look:
    """What one camera takes in.

    Attributes:
        field: (C, H, W) what was measured of each pixel.
        label: (H, W) uint8 class ids.
        depth_m: (H, W) float32 along the optical axis; infinite in the sky.
    """

    field: NDArray[np.float32]
    label: NDArray[np.uint8]
    depth_m: NDArray[np.float32]


Measure = Callable[[Sight, Environment], NDArray[np.float32]]
"""What a camera's optics make of a sight: (C, H, W)."""


class World:
    """The street, its weather and its traffic, all drawn from one seed; safe to share by threads.

    Args:
        seed: number of the drive.
        night: by night instead of by day.
        fog: density of the fog in [0, 1].
        glare: strength of the glare in [0, 1].
    """

    def __init__(self, seed: int, *, night: bool, fog: float, glare: float) -> None:
        key = (WORLD_VERSION, seed)
        self.environment = Environment.draw(key, night=night, fog=fog, glare=glare)
        self.street = Street.draw(key)
        self.trajectory = Trajectory.draw(key, self.street)
        self._traffic = Traffic(key, self.street, self.trajectory, self.environment)
        self._key = key
        self._lock = threading.Lock()
        self._block = lru_cache(maxsize=8)(self._build_block)
        self._stage = lru_cache(maxsize=2)(self._build_stage)

    def _build_block(self, number: int) -> Block:
        return BlockBuilder(self._key, number, self.street, self.environment).build()

    def _build_stage(self, first: int) -> Stage:
        return build_stage(first, self._block, self.street, self.environment)

    def stage(self, time_s: float) -> Stage:
        """What stands around the robot at a time."""
        with self._lock:
            return self._stage(first_block(self.trajectory.along(time_s)))

    def look(
        self,
        camera: Camera,
        time_s: float,
        rotation: NDArray[np.float64],
        translation: NDArray[np.float64],
        measure: Measure,
    ) -> Look:
        """Look through a camera on the robot.

        Args:
            camera: its intrinsics.
            time_s: time since the start of the drive, seconds.
            rotation: (3, 3) optical frame to base_link.
            translation: (3,) of the optical frame in base_link, metres.
            measure: what to make of each part of the image.
        """
        stage = self.stage(time_s)
        pose = self.trajectory.pose(time_s)
        position = pose.position + pose.rotation @ translation
        position[0] -= stage.start_m
        view = View(
            camera, (pose.rotation @ rotation).astype(np.float32), position.astype(np.float32)
        )
        movers = self._traffic.solids(time_s, stage.start_m)
        shadows = stage.shadows
        if not self.environment.night:
            shadows = shadows.copy()
            cast_shadows(shadows, movers, self.environment.sun)
        solid = Solid.join([stage.solid, *movers])
        beam = (pose.rotation @ HEADLIGHT).astype(np.float32)
        visibility = rasterize(solid, view)
        resolver = Resolver(solid, view.position, stage, shadows)
        parts = []
        for first in range(0, camera.height, BAND_ROWS):
            rows = slice(first, min(first + BAND_ROWS, camera.height))
            surface = resolver.surface(visibility.band(rows), view.band(rows))
            field = measure(Sight(surface, stage.lamps, beam), self.environment)
            parts.append((field, surface.label, surface.depth_m))
        fields, labels, depths = zip(*parts, strict=True)
        return Look(np.concatenate(fields, 1), np.concatenate(labels), np.concatenate(depths))
