"""Where one camera is in the frame of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import RigError
from unim2_core.sensing.rig import Extrinsics

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
