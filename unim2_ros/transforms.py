"""Where cameras are, from tf: what has come so far is looked up, nothing ever waits for more."""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from unim2_core.sensing.rig import Extrinsics, Rig
from unim2_core.sensing.static_transforms import TransformTree

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # it has no wheel
    TFMessage = None

DEPTH = 100


class Transforms:
    """Poses of the sensors that the rig gives no extrinsics for.

    Of a pose that moves the newest is taken. Callbacks and ``note`` come from one thread;
    ``found`` may be read by another.

    Attributes:
        found: sensor -> its pose in the reference camera's frame; replaced, never changed.
    """

    def __init__(self, node: Node, rig: Rig) -> None:
        """Listen to ``/tf`` and ``/tf_static``, where tf2_msgs is installed.

        Args:
            node: that listens.
            rig: the sensors.
        """
        self.found: dict[str, Extrinsics] = {}
        self._reference = rig.reference
        self._wanted = {
            name
            for name, sensor in rig.sensors.items()
            if sensor.extrinsics is None and name != rig.reference
        }
        self._overrides = {name: sensor.frame_id for name, sensor in rig.sensors.items()}
        self._frames: dict[str, str] = {}
        self._tree = TransformTree()
        self._bad: dict[str, str] = {}  # child frame -> parent, of poses that are no numbers
        self._node = node
        self._subscriptions = []
        if TFMessage is not None and self._wanted:
            latched = QoSProfile(depth=DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._subscriptions = [
                node.create_subscription(TFMessage, "/tf", self.receive, DEPTH),
                node.create_subscription(TFMessage, "/tf_static", self.receive, latched),
            ]

    def receive(self, message: Any) -> None:
        """Take poses in; those that are not finite are kept out and named."""
        usable = []
        for stamped in message.transforms:
            turn, shift = stamped.transform.rotation, stamped.transform.translation
            numbers = (turn.x, turn.y, turn.z, turn.w, shift.x, shift.y, shift.z)
            if np.isfinite(numbers).all():
                usable.append(stamped)
                self._bad.pop(stamped.child_frame_id, None)
            else:
                self._bad[stamped.child_frame_id] = stamped.header.frame_id
        self._tree.add(usable)
        self._look_up()

    @property
    def tree(self) -> TransformTree | None:
        """All that has come so far; None where there is no tf here."""
        return self._tree.copy() if self._subscriptions else None

    def note(self, sensor: str, frame_id: str) -> None:
        """Take note of the frame that a sensor's images name."""
        frame_id = self._overrides.get(sensor) or frame_id
        if self._frames.get(sensor) != frame_id:
            self._frames[sensor] = frame_id
            self._look_up()

    def missing(self, sensor: str) -> str:
        """What is not to be had for a sensor, in words; empty: nothing, or there is no tf here."""
        here, reference = self._frames.get(sensor), self._frames.get(self._reference)
        if not self._subscriptions or sensor in self.found or sensor not in self._wanted:
            return ""
        if not here or not reference:
            return ""
        if here in self._bad:
            return f"tf from {self._bad[here]} to {here} is not finite: mend whoever publishes it"
        return (
            f"no tf from {reference} to {here}, it is taken as aligned: publish the transform, "
            "or give the sensor's extrinsics in the rig"
        )

    def close(self) -> None:
        """Stop listening."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())

    def _look_up(self) -> None:
        reference = self._overrides[self._reference] or self._frames.get(self._reference)
        if not reference:
            return
        found = {
            sensor: self._tree.extrinsics(frame, reference)
            for sensor, frame in self._frames.items()
            if sensor in self._wanted and frame
        }
        self.found = {name: pose for name, pose in found.items() if pose is not None}
