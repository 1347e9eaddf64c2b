"""What the node publishes: each output is made only when somebody subscribes to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2

from unim2_core.inference.pipeline import Segmentation
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.frames import FrameSet
from unim2_core.showing.overlay import overlay
from unim2_ros.label_info import LabelInfo, label_info_message
from unim2_ros.messages import camera_info_message, image_message
from unim2_ros.point_cloud import CloudMaker
from unim2_ros.policies import OVERRIDABLE, override, policy_name
from unim2_ros.status import SegmentationStatus, status_message


@dataclass(frozen=True)
class Output:
    """One topic that the node publishes.

    Attributes:
        name: below the node's own name.
        kind: class of the message; None where it is not to be had here.
        type: name of that class.
        says: what is in it.
        latched: late subscribers get the last one.
    """

    name: str
    kind: type | None
    type: str
    says: str
    latched: bool = False


OUTPUTS = (
    Output(
        "segmentation", Image, "sensor_msgs/Image", "mono8: class of each pixel, 255 unlabelled"
    ),
    Output("confidence", Image, "sensor_msgs/Image", "mono8: 0 unsure to 255 sure"),
    Output("overlay", Image, "sensor_msgs/Image", "rgb8: the image under the class colours"),
    Output(
        "camera_info",
        CameraInfo,
        "sensor_msgs/CameraInfo",
        "the reference camera's, with the header of the segmentation",
    ),
    Output(
        "points",
        PointCloud2,
        "sensor_msgs/PointCloud2",
        "organized: x y z rgb label confidence of each pixel, NaN where no depth was measured; "
        "needs depth and the camera_info of the reference",
    ),
    Output(
        "label_info",
        LabelInfo,
        "vision_msgs/LabelInfo",
        "names of the classes; where vision_msgs is installed",
        latched=True,
    ),
    Output(
        "status",
        SegmentationStatus,
        "unim2_ros/SegmentationStatus",
        "what one segmentation was made from; where our messages are built",
    ),
)


@dataclass(frozen=True, eq=False)
class Made:
    """All that the outputs of one reference image are made from.

    Attributes:
        header: the reference image's; used unchanged.
        frames: the set that was segmented.
        result: what came of it.
        bundle: the model that it came from.
        colors: (256, 3) uint8 colour of each class.
        backend: what ran it.
        camera_info: last one of the reference camera; None: none came.
    """

    header: Any
    frames: FrameSet
    result: Segmentation
    bundle: Bundle
    colors: NDArray[np.uint8]
    backend: str
    camera_info: CameraInfo | None

    @property
    def scale(self) -> tuple[float, float]:
        """Rows and columns of the classes, of those of the reference image."""
        reference = self.frames.frames[self.frames.reference]
        height, width = self.result.classes.shape
        return height / reference.height, width / reference.width


class Outputs:
    """The publishers of one node.

    Attributes:
        alpha: share of class colour in the overlay.
        stride: what is published has one pixel in so many of the reference image.
        lazy: whether what nobody subscribes to is left out.
        cloud: makes the labelled points.
    """

    def __init__(
        self, node: Node, cloud: CloudMaker, *, alpha: float, lazy: bool, stride: int = 1
    ) -> None:
        self.alpha, self.lazy, self.stride, self.cloud = alpha, lazy, stride, cloud
        self._node = node
        self._refused: dict[str, str] = {}  # name -> QoS policy that a subscriber asks more of
        self._named = ""  # version whose labels were published
        self._publishers: dict[str, Publisher[Any]] = {}
        for output in OUTPUTS:
            if output.kind is None:
                node.get_logger().info(
                    f"~/{output.name} is not published: {output.type} is not installed here"
                )
            else:
                self._publishers[output.name] = self._publisher(output)

    @property
    def wanted(self) -> bool:
        """Whether anybody subscribes to what has to be computed."""
        return any(
            publisher.get_subscription_count()
            for name, publisher in self._publishers.items()
            if name != "label_info"
        )

    def publish_labels(self, bundle: Bundle) -> None:
        """Publish the names of the classes, once for each version of the model."""
        if "label_info" in self._publishers and self._named != bundle.sha256:
            self._named = bundle.sha256
            stamp = self._node.get_clock().now().to_msg()
            self._publishers["label_info"].publish(label_info_message(bundle, stamp))

    def publish(self, made: Made, drops: Callable[[], Mapping[str, int]]) -> dict[str, Any]:
        """Publish what is wanted of one result.

        Args:
            made: the result.
            drops: gives reason -> count since the start, for the status.

        Returns:
            Name -> message that was published.
        """
        result, header = made.result, made.header
        makers: dict[str, Callable[[], Any]] = {
            "segmentation": lambda: image_message(result.classes, "mono8", header),
            "confidence": lambda: image_message(result.confidence, "mono8", header),
            "overlay": lambda: image_message(self._overlay(made), "rgb8", header),
            "camera_info": lambda: camera_info_message(made.camera_info, header, made.scale),
            "points": lambda: self.cloud(made.frames, result, header),
            "status": lambda: status_message(
                *(header, self._node.get_clock().now(), made.frames, result),
                *(made.bundle, made.backend, drops()),
            ),
        }
        self.publish_labels(made.bundle)
        published = {}
        for name, make in makers.items():
            publisher = self._publishers.get(name)
            if publisher is None or (self.lazy and not publisher.get_subscription_count()):
                continue
            message = make()
            if message is not None:
                publisher.publish(message)
                published[name] = message
        return published

    def complaints(self) -> list[str]:
        """A sentence for each topic with a subscriber that gets nothing because of its QoS."""
        found = []
        for name, policy in self._refused.items():
            publisher = self._publishers[name]
            topic = publisher.topic_name
            if self._node.count_subscribers(topic) > publisher.get_subscription_count():
                parameter = override(topic, "publisher", policy)
                found.append(
                    f"QoS mismatch on {topic}: a subscriber asks for more {policy} than is "
                    "offered and gets nothing: change its QoS"
                    + (f", or set {parameter}" if parameter else "")
                )
        return found

    def close(self) -> None:
        """Take the publishers off the graph."""
        while self._publishers:
            self._node.destroy_publisher(self._publishers.popitem()[1])

    def _publisher(self, output: Output) -> Publisher[Any]:
        latched = DurabilityPolicy.TRANSIENT_LOCAL if output.latched else DurabilityPolicy.VOLATILE

        def refused(event: Any) -> None:
            policy = self._refused[output.name] = policy_name(event.last_policy_kind)
            self._node.get_logger().warning(
                f"a subscriber of ~/{output.name} asks for more {policy} than is offered"
            )

        return self._node.create_publisher(
            output.kind,
            f"~/{output.name}",
            QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=latched),
            event_callbacks=PublisherEventCallbacks(incompatible_qos=refused),
            qos_overriding_options=OVERRIDABLE,
        )

    def _overlay(self, made: Made) -> NDArray[np.uint8]:
        picture = made.result.picture(made.frames)
        return overlay(picture, made.result.classes, made.colors, self.alpha)
