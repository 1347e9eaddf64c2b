"""The course of the street and how the robot drives along it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

BLOCK_M = 48.0
"""Length of a block; every texture period divides it."""
SIDEWALK_M = 2.2
LANE_MIDDLE_M = 1.5
"""Distance of the middle of a lane from the centre line."""
PARKING_M = 2.1
CYCLE_LANE_M = 0.9
ROBOT_TO_KERB_M = 0.75


@dataclass(frozen=True, eq=False)
class Street:
    """A street that winds along +x for ever; y is to the left.

    Attributes:
        swings: (3, 3) amplitude in metres, wavelength in metres and phase of each bend.
        kerbs_m: distance of the left and the right kerb from the centre line.
        verges_m: width of the strip between kerb and sidewalk, left and right.
    """

    swings: NDArray[np.float64]
    kerbs_m: tuple[float, float]
    verges_m: tuple[float, float]

    @classmethod
    def draw(cls, seed: tuple[int, ...]) -> Street:
        """Draw the street of a drive."""
        rng = np.random.default_rng([*seed, 21])
        amplitude = rng.uniform((4.0, 1.0, 0.2), (8.5, 2.2, 0.6))
        wavelength = rng.uniform((170, 85, 50), (230, 120, 70))
        phase = rng.uniform(0, 2 * np.pi, 3)
        lane = float(rng.uniform(2.9, 3.3))
        parking = PARKING_M * float(rng.random() < 0.6)
        verges = rng.uniform(1.0, 3.0, 2) * (rng.random(2) < 0.7)
        return cls(
            np.stack([amplitude, wavelength, phase]),
            (lane + parking, lane + CYCLE_LANE_M),
            (float(verges[0]), float(verges[1])),
        )

    def kerb(self, side: int) -> float:
        """Distance from the centre line to the kerb, on the left (+1) or right (-1)."""
        return self.kerbs_m[0 if side > 0 else 1]

    def walk(self, side: int) -> float:
        """Distance from the centre line to the near edge of the sidewalk."""
        return self.kerb(side) + self.verges_m[0 if side > 0 else 1]

    def edge(self, side: int) -> float:
        """Distance from the centre line to the far edge of the sidewalk."""
        return self.walk(side) + SIDEWALK_M

    def centre(self, x: ArrayLike) -> NDArray[np.float64]:
        """Lateral position of the centre line at ``x``, metres."""
        a, wavelength, phase = self.swings
        angle = np.asarray(x, np.float64)[..., None] * (2 * np.pi / wavelength) + phase
        return np.asarray(np.sum(a * np.sin(angle), -1))

    def heading(self, x: ArrayLike) -> NDArray[np.float64]:
        """Direction of the street at ``x``, radians from +x."""
        a, wavelength, phase = self.swings
        k = 2 * np.pi / wavelength
        angle = np.asarray(x, np.float64)[..., None] * k + phase
        return np.asarray(np.arctan(np.sum(a * k * np.cos(angle), -1)))


@dataclass(frozen=True, eq=False)
class Pose:
    """Where the robot is: p_world = rotation @ p_base + position.

    Attributes:
        rotation: (3, 3) base_link to world.
        position: (3,) metres, float64.
    """

    rotation: NDArray[np.float64]
    position: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Smooth driving along the right kerb, with the sway of a suspension.

    Attributes:
        street: what it follows.
        start_m: x at time zero.
        speed_mps: mean speed.
        sway: (6, 2, 3) amplitude, frequency in hertz and phase of two waves for each of
            along (m), across (m), height (m), roll, pitch, yaw (rad).
    """

    street: Street
    start_m: float
    speed_mps: float
    sway: NDArray[np.float64]

    @classmethod
    def draw(cls, seed: tuple[int, ...], street: Street) -> Trajectory:
        """Draw how the robot drives."""
        rng = np.random.default_rng([*seed, 31])
        amplitude = np.array([1.2, 0.18, 0.012, 0.008, 0.009, 0.012])[:, None]
        amplitude = amplitude * rng.uniform(0.4, 1.0, (6, 2))
        low = np.array([0.04, 0.07, 0.7, 0.5, 0.6, 0.12])[:, None]
        frequency = low * np.stack([rng.uniform(0.8, 1.2, 6), rng.uniform(1.7, 2.6, 6)], 1)
        phase = rng.uniform(0, 2 * np.pi, (6, 2))
        return cls(
            street,
            float(rng.uniform(0, 40)),
            float(rng.uniform(4.0, 7.0)),
            np.stack([amplitude, frequency, phase], -1),
        )

    def along(self, time_s: float) -> float:
        """Position x at a time, metres."""
        return self.start_m + self.speed_mps * time_s + float(self._sway(time_s)[0])

    def pose(self, time_s: float) -> Pose:
        """Pose of base_link (on the ground below the rear axle, x forward, z up)."""
        x = self.along(time_s)
        _, across, height, roll, pitch, yaw = self._sway(time_s)
        heading = float(self.street.heading(x)) + yaw
        y = float(self.street.centre(x)) + ROBOT_TO_KERB_M - self.street.kerb(-1) + across
        return Pose(rotation_rpy(roll, pitch, heading), np.array([x, y, height]))

    def _sway(self, time_s: float) -> NDArray[np.float64]:
        amplitude, frequency, phase = np.moveaxis(self.sway, -1, 0)
        wave = amplitude * np.sin(2 * np.pi * frequency * time_s + phase)
        return np.asarray(wave.sum(1))


def rotation_rpy(roll: float, pitch: float, yaw: float) -> NDArray[np.float64]:
    """Rotation about the fixed axes x, y, z in this order, radians, (3, 3)."""
    (cr, cp, cy), (sr, sp, sy) = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )
