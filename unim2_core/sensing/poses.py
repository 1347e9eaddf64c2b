"""Where one camera is in the frame of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import RigError
from unim2_core.sensing.rig import Extrinsics, Rig

_NEARLY_UNIT = 0.05  # a quaternion typed with two digits is off by less
_NEARLY_ROTATION = 1e-3


@dataclass(frozen=True, eq=False)
class Pose:
    """A rigid motion: p_parent = rotation p + translation.

    Attributes:
        rotation: (3, 3) float64.
        translation: (3,) float64, metres.

    Raises:
        RigError: the matrix is not a rotation, or a number is not finite.
    """

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]

    def __post_init__(self) -> None:
        r, t = self.rotation, self.translation
        if not (
            r.shape == (3, 3)
            and t.shape == (3,)
            and np.isfinite(t).all()
            and np.allclose(r @ r.T, np.eye(3), atol=_NEARLY_ROTATION)
            and np.linalg.det(r) > 0
        ):
            raise RigError(
                "the pose of a camera is not a rigid motion",
                expected="a (3, 3) rotation matrix and three finite metres",
                found=f"{r.tolist()}, {t.tolist()}",
                remedy="mend the extrinsics in the rig file, or the transforms on tf",
            )

    @classmethod
    def identity(cls) -> Pose:
        """The pose of a camera in its own frame."""
        return cls(np.eye(3), np.zeros(3))

    @classmethod
    def of(cls, extrinsics: Extrinsics) -> Pose:
        """Pose of a sensor's camera in the reference camera's optical frame.

        Raises:
            RigError: the quaternion is far from unit length, or a number is not finite.
        """
        xyzw = np.array(extrinsics.rotation_xyzw, np.float64)
        length = float(np.linalg.norm(xyzw))
        if not abs(length - 1) < _NEARLY_UNIT:
            raise RigError(
                "the rotation of a camera is not a unit quaternion",
                expected="rotation_xyzw of length 1",
                found=f"{extrinsics.rotation_xyzw}, of length {length:.3g}",
                remedy="write x, y, z, w of the rotation, not angles; no rotation is 0, 0, 0, 1",
            )
        x, y, z, w = xyzw / length
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        rotation = np.eye(3) + 2 * w * cross + 2 * cross @ cross
        return cls(rotation, np.array(extrinsics.translation_m, np.float64))

    @property
    def inverse(self) -> Pose:
        """The parent in the frame of this."""
        return Pose(self.rotation.T, -self.rotation.T @ self.translation)

    def __matmul__(self, other: Pose) -> Pose:
        """The pose of ``other``, which is given in this frame, in the parent's frame."""
        return Pose(
            self.rotation @ other.rotation, self.rotation @ other.translation + self.translation
        )


class SensorPoses:
    """Where the sensors of a rig are, seen from any of them.

    Args:
        rig: its sensors' extrinsics are used until :meth:`place` gives others.

    Raises:
        RigError: the extrinsics of a sensor are not a rigid motion.
    """

    def __init__(self, rig: Rig) -> None:
        self._reference = rig.reference
        self._placed: dict[str, Extrinsics | None] = {}
        self._poses = {rig.reference: Pose.identity()}  # in the reference
        self._seen: dict[tuple[str, str], Pose] = {}  # in other sensors
        for name, sensor in rig.sensors.items():
            if name != rig.reference:
                self.place(name, sensor.extrinsics)

    def place(self, sensor: str, extrinsics: Extrinsics | None) -> None:
        """Take in where a sensor other than the reference is, for example from tf.

        Args:
            sensor: its name.
            extrinsics: of the sensor; None = not known.

        Raises:
            RigError: that is not a rigid motion. The sensor stays where it was.
        """
        if sensor in self._placed and self._placed[sensor] == extrinsics:
            return  # what was prepared for it still holds
        if extrinsics is None:
            self._poses.pop(sensor, None)
        else:
            self._poses[sensor] = Pose.of(extrinsics)
        self._placed[sensor] = extrinsics
        self._seen.clear()

    def unknown(self, *sensors: str) -> tuple[str, ...]:
        """Those of the sensors whose place is not known."""
        return tuple(name for name in sensors if name not in self._poses)

    def seen_from(self, home: str, sensor: str) -> Pose | None:
        """Pose of a sensor's camera in another's optical frame; None: one is not known.

        The same object comes until a sensor is placed elsewhere.
        """
        if self.unknown(home, sensor):
            return None
        if home == self._reference:
            return self._poses[sensor]
        key = (home, sensor)
        if key not in self._seen:
            self._seen[key] = self._poses[home].inverse @ self._poses[sensor]
        return self._seen[key]
