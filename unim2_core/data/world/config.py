"""What a synthetic drive is made from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from unim2_core.data.world.cameras import Camera
from unim2_core.data.world.mounts import MOUNTS, REFERENCE

Condition = Literal["day", "night"]
GroundTruth = Literal["reference", "all"]


@dataclass(frozen=True)
class DriveConfig:
    """One synthetic drive.

    Attributes:
        seed: number of the world, its weather and its traffic.
        duration_s: length, seconds.
        condition: ``day`` or ``night``.
        fog: 0 none to 1, about 30 m of sight.
        glare: 0 none to 1, a low sun ahead that washes half the image out.
        width: columns of the reference (rgb) camera, pixels; the others scale with it.
        height: rows of the reference camera.
        rate_hz: images per second of the reference camera; the others scale with it.
        jitter_s: standard deviation of the moment of exposure, seconds.
        dropout: share of images that never arrive, of each camera.
        sensors: cameras that the robot has; ``rgb`` is always one of them.
        uniform_size: give every camera the reference's size, for measuring speed.
        ground_truth: label images of the reference camera only or of ``all`` cameras.
    """

    seed: int = 0
    duration_s: float = 10.0
    condition: Condition = "day"
    fog: float = 0.0
    glare: float = 0.0
    width: int = 640
    height: int = 480
    rate_hz: float = 10.0
    jitter_s: float = 0.003
    dropout: float = 0.02
    sensors: tuple[str, ...] = tuple(MOUNTS)
    uniform_size: bool = False
    ground_truth: GroundTruth = "reference"

    def __post_init__(self) -> None:
        known = set(MOUNTS)
        checks = {
            "seed": (self.seed >= 0, "0 or more"),
            "duration_s": (0 < self.duration_s <= 86400, "above 0, at most 86400"),
            "condition": (self.condition in get_args(Condition), "day or night"),
            "fog": (0 <= self.fog <= 1, "0 to 1"),
            "glare": (0 <= self.glare <= 1, "0 to 1"),
            "width": (32 <= self.width <= 4096, "32 to 4096 pixels"),
            "height": (32 <= self.height <= 4096, "32 to 4096 pixels"),
            "rate_hz": (0 < self.rate_hz <= 120, "above 0, at most 120"),
            "jitter_s": (0 <= self.jitter_s < np.inf, "0 or more"),
            "dropout": (0 <= self.dropout < 1, "0 to below 1"),
            "sensors": (
                REFERENCE in self.sensors
                and set(self.sensors) <= known
                and len(set(self.sensors)) == len(self.sensors),
                f"{REFERENCE} and any others of {sorted(known)}, each once",
            ),
            "ground_truth": (self.ground_truth in get_args(GroundTruth), "reference or all"),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ValueError(f"{name}: expected {expected}, got {getattr(self, name)!r}")

    def camera(self, sensor: str) -> Camera:
        """Size and intrinsics of one camera."""
        mount = MOUNTS[sensor]
        if sensor == REFERENCE or self.uniform_size:
            return Camera.of_view(self.width, self.height, mount.hfov_deg)
        # Even, so that polarizer mosaics are whole.
        width, height = (
            max(2 * round(full * part / 2), 16)
            for full, part in zip((self.width, self.height), mount.size, strict=True)
        )
        return Camera.of_view(width, height, mount.hfov_deg)
