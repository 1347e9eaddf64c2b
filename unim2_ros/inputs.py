"""The image subscriptions, each as reliable as its publishers offer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from unim2_ros.policies import OVERRIDABLE, policy_name

DEPTH = 5

_BEST = getattr(ReliabilityPolicy, "BEST_AVAILABLE", ReliabilityPolicy.BEST_EFFORT)


class ImageInput:
    """One subscription to an image topic.

    Where every publisher is reliable, so is the subscription: a sender without a large enough
    shared-memory segment loses nearly every best-effort image. The middleware decides that when a
    subscription is made, so it is made anew when what the publishers offer has changed.

    Attributes:
        sensor: the sensor that the topic belongs to.
        label: the sensor, with the topic where it is one of several; unique in a node.
        received: messages since the last ``take_received``.
        refused: the QoS policy of which a publisher offers less than is asked for; empty: none.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        sensor: str,
        arrived: Callable[[str, str, Any], None],
        *,
        one_of_several: bool = False,
    ) -> None:
        """Subscribe.

        Args:
            node: the node that subscribes.
            topic: name before remapping; ``.../compressed`` takes CompressedImage.
            sensor: the sensor that it belongs to.
            arrived: called with topic, sensor and message.
            one_of_several: the sensor's image comes in several topics.
        """
        self.sensor = sensor
        self.label = f"{sensor} {topic}" if one_of_several else sensor
        self.received = 0
        self.refused = ""
        self._node = node
        self._topic = topic
        self._arrived = arrived
        self._reliable = True  # what the middleware settles on while nobody publishes
        self._subscription = self._subscribe()

    @property
    def topic(self) -> str:
        """The topic's name after remapping."""
        return str(self._subscription.topic_name)

    @property
    def publishers(self) -> int:
        """How many publish there now."""
        return int(self._node.count_publishers(self.topic))

    @property
    def publisher_names(self) -> list[str]:
        """The nodes that publish there, sorted."""
        endpoints = self._node.get_publishers_info_by_topic(self.topic)
        return sorted(endpoint.node_name for endpoint in endpoints)

    def take_received(self) -> int:
        """Messages since the last call."""
        count, self.received = self.received, 0
        return count

    def follow_publishers(self) -> None:
        """Subscribe anew where the reliability in force is not the best that is offered."""
        offers = [
            endpoint.qos_profile.reliability == ReliabilityPolicy.RELIABLE
            for endpoint in self._node.get_publishers_info_by_topic(self.topic)
        ]
        if offers and all(offers) != self._reliable:
            self._reliable = all(offers)
            self.close()
            self._subscription = self._subscribe()

    def close(self) -> None:
        """Unsubscribe."""
        self._node.destroy_subscription(self._subscription)

    def _subscribe(self) -> Any:
        self.refused = ""
        compressed = self._topic.endswith(("/compressed", "/compressedDepth"))
        return self._node.create_subscription(
            CompressedImage if compressed else Image,
            self._topic,
            self._receive,
            QoSProfile(
                depth=DEPTH,
                reliability=_BEST,
                history=qos_profile_sensor_data.history,
                durability=qos_profile_sensor_data.durability,
            ),
            event_callbacks=SubscriptionEventCallbacks(incompatible_qos=self._refuse),
            qos_overriding_options=OVERRIDABLE,
        )

    def _refuse(self, event: Any) -> None:
        self.refused = policy_name(event.last_policy_kind)
        self._node.get_logger().warning(
            f"a publisher on {self.topic} offers less {self.refused} than is asked for"
        )

    def _receive(self, message: Image | CompressedImage) -> None:
        self.received += 1
        self._arrived(self._topic, self.sensor, message)
