"""Where cameras are on a robot, from the transforms in a bag."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.rig import Extrinsics

Pose = NDArray[np.float64]
"""(4, 4) p_parent = pose p_child, metres."""


class TransformTree:
    """Frames and their poses in their parents."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, Pose]] = {}

    @classmethod
    def from_bag(cls, reader: BagReader) -> TransformTree:
        """Read all messages on ``/tf_static``; chunks without them are not read."""
        tree = cls()
        topics = [
            topic.name
            for topic in reader.topics.values()
            if topic.type == "tf2_msgs/msg/TFMessage" and topic.name.endswith("tf_static")
        ]
        for message in reader.messages(topics) if topics else ():
            tree.add(message.decode().transforms)
        return tree

    def copy(self) -> TransformTree:
        """The same, for another thread: it does not change any more."""
        made = TransformTree()
        made._parents = dict(self._parents)
        return made

    def add(self, transforms: Iterable[Any]) -> None:
        """Take in geometry_msgs/TransformStamped; a later one of the same child replaces."""
        for stamped in transforms:
            pose = np.eye(4)
            turn, shift = stamped.transform.rotation, stamped.transform.translation
            pose[:3, :3] = _rotation(np.array([turn.x, turn.y, turn.z, turn.w]))
            pose[:3, 3] = shift.x, shift.y, shift.z
            # ROS 1 allowed a slash in front.
            child = stamped.child_frame_id.lstrip("/")
            self._parents[child] = stamped.header.frame_id.lstrip("/"), pose

    def extrinsics(self, camera: str, reference: str) -> Extrinsics | None:
        """Pose of a camera in the reference camera's frame; None where no chain connects them."""
        camera_root, camera_pose = self.in_root(camera.lstrip("/"))
        reference_root, reference_pose = self.in_root(reference.lstrip("/"))
        if camera_root != reference_root:
            return None
        pose = np.linalg.inv(reference_pose) @ camera_pose
        x, y, z = (round(float(value), 6) for value in pose[:3, 3])
        turn = [round(float(value), 9) for value in _quaternion(pose[:3, :3])]
        return Extrinsics(
            translation_m=(x, y, z), rotation_xyzw=(turn[0], turn[1], turn[2], turn[3])
        )

    @property
    def frames(self) -> tuple[str, ...]:
        """Names of all frames that have a parent."""
        return tuple(self._parents)

    def in_root(self, frame: str) -> tuple[str, Pose]:
        """The root above a frame, and the frame's pose in it; its own root where it has none."""
        pose = np.eye(4)
        seen = set()
        while frame in self._parents and frame not in seen:
            seen.add(frame)
            frame, step = self._parents[frame]
            pose = step @ pose
        return frame, pose


def _rotation(xyzw: NDArray[np.float64]) -> NDArray[np.float64]:
    """(3, 3) rotation of a quaternion; of length zero, as some drivers send it, the identity."""
    length = np.linalg.norm(xyzw)
    if not length:
        return np.eye(3)
    x, y, z, w = xyzw / length
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + 2 * w * cross + 2 * cross @ cross, np.float64)


def _quaternion(rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit quaternion x y z w of a (3, 3) rotation, w >= 0.

    It is the eigenvector of the largest eigenvalue of Bar-Itzhack's symmetric matrix, which has
    no singular case.
    """
    r = rotation
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
            [r[1, 0] + r[0, 1], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
            [r[2, 0] + r[0, 2], r[2, 1] + r[1, 2], r[2, 2] - r[0, 0] - r[1, 1], 0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], np.trace(r)],
        ]
    )
    # eigh reads the lower triangle, and sorts by eigenvalue.
    xyzw: NDArray[np.float64] = np.linalg.eigh(k)[1][:, -1]
    return xyzw if xyzw[3] >= 0 else -xyzw
