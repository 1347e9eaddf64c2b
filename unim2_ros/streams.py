"""The sensors of a rig as they arrive: subscriptions, synchronisation, calibrations and tf."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from rclpy.clock import Clock, ClockType, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.intake import Intake, Matching, Parts
from unim2_core.sensing.rig import Rig
from unim2_core.sensing.synchronizer import MatchedSet
from unim2_ros.inputs import ImageInput
from unim2_ros.policies import OVERRIDABLE
from unim2_ros.transforms import Transforms

TICK_S = 0.005
"""How late a passed deadline may be noticed."""
_BACK = JumpThreshold(
    min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=False
)

HandOver = Callable[[list[MatchedSet[Parts]]], None]
Note = Callable[[str, str, Any, int], None]
"""Topic, sensor (empty for camera_info), message, and the node's clock in nanoseconds."""


def _unnoted(topic: str, sensor: str, message: Any, now_ns: int) -> None:
    pass


class Streams:
    """What a node subscribes to for a rig.

    Callbacks and all methods but ``decode`` belong to the node's thread; ``decode``,
    ``camera_info`` and ``transforms.found`` may be used by another.

    Attributes:
        inputs: the image subscriptions.
        transforms: poses of the sensors that the rig gives none for.
    """

    def __init__(
        self,
        node: Node,
        rig: Rig,
        hand_over: HandOver,
        matching: Matching | None = None,
        note: Note = _unnoted,
    ) -> None:
        """Subscribe.

        Args:
            node: the node.
            rig: its sensors.
            hand_over: called with the sets that are complete; has to return soon.
            matching: see ``Intake``.
            note: called with each message first.

        Raises:
            Exception: rclpy's own, where a QoS override cannot be used.
        """
        self._node, self._take, self._note = node, hand_over, note
        self._intake = Intake(rig, matching)
        self._lock = threading.Lock()  # of the intake
        self._infos: dict[str, CameraInfo] = {}
        self.transforms = Transforms(node, rig)
        self.inputs: list[ImageInput] = []
        self._info_inputs: list[Any] = []
        try:
            self._subscribe()
        except Exception:  # a QoS override that cannot be used, for example
            self._unsubscribe()
            raise
        # By the wall: with use_sim_time a bag that pauses, or no /clock at all, is to be noticed.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(TICK_S, self._tick, clock=steady)
        self._jumps = node.get_clock().create_jump_callback(_BACK, post_callback=self._jumped)

    @property
    def rig(self) -> Rig:
        """The sensors, as they are read now."""
        return self._intake.rig

    @property
    def counters(self) -> dict[str, int]:
        """Everything that was emitted or dropped since the start, by reason."""
        with self._lock:
            return self._intake.counters

    def camera_info(self, sensor: str) -> CameraInfo | None:
        """The last calibration of a sensor; None: none came."""
        return self._infos.get(self.rig.sensors[sensor].info_topic)

    def decode(self, matched: MatchedSet[Parts]) -> FrameSet:
        """Decode the images of a set.

        Raises:
            DecodeError: the reference image, or one of a required sensor, cannot be decoded.
        """
        return self._intake.decode(matched)

    def retune(self, rig: Rig) -> None:
        """Go on with other times, rates and required sensors."""
        with self._lock:
            self._take(self._intake.flush())
            self._intake.retune(rig)

    def close(self) -> None:
        """Unsubscribe, and hand over what waits."""
        self._node.destroy_timer(self._timer)
        self._unsubscribe()
        self._jumps.unregister()
        with self._lock:
            self._take(self._intake.flush())  # what waits for its set is to be counted too

    def _subscribe(self) -> None:
        for topic, sensor in self._intake.topics.items():
            several = bool(self.rig.sensors[sensor].topics)
            self.inputs.append(
                ImageInput(self._node, topic, sensor, self._arrived, one_of_several=several)
            )
        for topic in self._intake.info_topics:
            self._info_inputs.append(
                self._node.create_subscription(
                    CameraInfo,
                    topic,
                    partial(self._calibrated, topic),
                    qos_profile_sensor_data,
                    qos_overriding_options=OVERRIDABLE,
                )
            )

    def _unsubscribe(self) -> None:
        for source in self.inputs:
            source.close()
        for source in self._info_inputs:
            self._node.destroy_subscription(source)
        self.transforms.close()

    def _arrived(self, topic: str, sensor: str, message: Image | CompressedImage) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        self._note(topic, sensor, message, now_ns)
        self.transforms.note(sensor, message.header.frame_id)
        with self._lock:
            self._take(self._intake.add(topic, message, now_ns))

    def _calibrated(self, topic: str, message: CameraInfo) -> None:
        self._note(topic, "", message, self._node.get_clock().now().nanoseconds)
        self._infos[topic] = message
        with self._lock:
            self._intake.add_camera_info(topic, message)

    def _tick(self) -> None:
        with self._lock:
            self._take(self._intake.advance(self._node.get_clock().now().nanoseconds))

    def _jumped(self, jump: TimeJump) -> None:
        self._node.get_logger().info(
            f"time went back by {-jump.delta.nanoseconds / 1e9:.1f} s: what waited is forgotten"
        )
        with self._lock:
            self._take(self._intake.flush())
            self._intake.reset()
