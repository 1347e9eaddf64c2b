"""The robot's cameras: where they sit, which way they look, how often and how well they see."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world.street import rotation_rpy

OPTICAL = np.array([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
"""Columns: axes of an optical frame (x right, y down, z forward) in a body frame (REP 103)."""


@dataclass(frozen=True)
class Mount:
    """One camera of the robot.

    Attributes:
        encoding: encoding of its images.
        size: width and height as a share of the reference camera's.
        hfov_deg: horizontal field of view, degrees.
        rate_share: images per image of the reference camera.
        phase_s: time of the first image, seconds.
        latency_s: mean time from the exposure to the message.
        translation_m: position in base_link.
        rpy_deg: roll, pitch, yaw of its body frame (x forward) in base_link, degrees.
    """

    encoding: str
    size: tuple[float, float]
    hfov_deg: float
    rate_share: float
    phase_s: float
    latency_s: float
    translation_m: tuple[float, float, float]
    rpy_deg: tuple[float, float, float]

    @property
    def body(self) -> NDArray[np.float64]:
        """(3, 3) the camera's body frame to base_link."""
        roll, pitch, yaw = np.deg2rad(self.rpy_deg)
        return rotation_rpy(roll, pitch, yaw)

    @property
    def rotation(self) -> NDArray[np.float64]:
        """(3, 3) optical frame to base_link."""
        return np.asarray(self.body @ OPTICAL)

    @property
    def translation(self) -> NDArray[np.float64]:
        """(3,) position in base_link, metres."""
        return np.array(self.translation_m)


REFERENCE = "rgb"
MOUNTS: dict[str, Mount] = {
    "rgb": Mount(
        "rgb8", (1.0, 1.0), 80.0, 1.0, 0.0, 0.020, (1.20, 0.0, 1.30), (0.0, 2.0, 0.0)
    ),
    "depth": Mount(
        "16UC1", (0.8, 0.8), 84.0, 1.0, 0.004, 0.028, (1.21, -0.06, 1.29), (0.3, 2.4, -0.6)
    ),
    "thermal": Mount(
        "mono16", (0.5, 8 / 15), 72.0, 0.9, 0.013, 0.035, (1.17, 0.13, 1.25), (-0.8, 1.2, 1.1)
    ),
    "nir": Mount(
        "mono8", (1.0, 5 / 6), 82.0, 1.0, 0.009, 0.022, (1.20, -0.16, 1.32), (0.6, 2.5, -1.3)
    ),
    "polarization": Mount(
        "mono8", (0.9, 1.0), 76.0, 0.5, 0.075, 0.030, (1.19, 0.06, 1.42), (0.4, 3.1, 0.8)
    ),
}  # fmt: skip
"""The cameras by name, in the order in which they are written."""


def relative_pose(sensor: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pose of a camera in the reference camera's optical frame: p_ref = R p + t."""
    reference, mount = MOUNTS[REFERENCE], MOUNTS[sensor]
    back = reference.rotation.T
    return back @ mount.rotation, back @ (mount.translation - reference.translation)


def quaternion(rotation: NDArray[np.float64]) -> tuple[float, float, float, float]:
    """A rotation matrix as a unit quaternion x, y, z, w."""
    vector = cv2.Rodrigues(rotation)[0].ravel()
    angle = float(np.linalg.norm(vector))
    axis = vector / max(angle, 1e-12)
    x, y, z = (axis * np.sin(angle / 2)).round(12).tolist()
    return x, y, z, round(float(np.cos(angle / 2)), 12)
