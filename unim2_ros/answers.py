"""What a node answers, put together again from its topics."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from unim2_core.errors import DecodeError
from unim2_core.sensing.bag_messages import stamp_ns
from unim2_core.sensing.images import decode_image
from unim2_core.showing.viewer import Answer

KEPT = 32
DEPTH = 5
PARTS = ("segmentation", "confidence")
ARRIVAL = "arrival"


class Answers:
    """The last answers of a node, by the stamp of the reference image.

    Attributes:
        unusable: why the last image could not be used; empty: it could.

    Args:
        node: that listens.
        name: of the node that answers, relative or with its namespace.
    """

    def __init__(self, node: Node, name: str) -> None:
        self.unusable = ""
        self._node, self._name = node, name
        self._lock = threading.Lock()
        self._found: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._version = ""
        qos = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        self._inputs = [
            node.create_subscription(
                Image, f"{name}/{part}", lambda message, part=part: self._take(part, message), qos
            )
            for part in PARTS
        ]
        node.create_subscription(DiagnosticArray, "/diagnostics", self._reported, 10)

    @property
    def expected(self) -> bool:
        """Whether the node is there."""
        return all(self._node.count_publishers(one.topic_name) for one in self._inputs)

    def at(self, header_ns: int, size: tuple[int, int]) -> Answer | None:
        """The answer to the reference image of a stamp; None where it is not there (yet).

        Args:
            header_ns: stamp in the image's header, nanoseconds.
            size: (height, width) of the reference image.
        """
        with self._lock:
            found = dict(self._found.get(header_ns, {}))
        if not all(part in found for part in PARTS):
            return None
        classes, confidence = (_resized(found[part], size) for part in PARTS)
        return Answer(classes, confidence, {ARRIVAL: found[ARRIVAL]}, self._version)

    def _take(self, part: str, message: Image) -> None:
        now_ns = self._node.get_clock().now().nanoseconds
        at_ns = stamp_ns(message.header)
        try:
            pixels = decode_image(message)
        except DecodeError as error:
            self.unusable = str(error)
            return
        if message.encoding != "mono8":
            self.unusable = f"{part} is {message.encoding}: only 255 classes, mono8, can be shown"
            return
        self.unusable = ""
        with self._lock:
            entry = self._found.setdefault(at_ns, {})
            entry[part], entry[ARRIVAL] = pixels, (now_ns - at_ns) / 1e6
            while len(self._found) > KEPT:
                self._found.popitem(last=False)

    def _reported(self, message: DiagnosticArray) -> None:
        own = self._name.rpartition("/")[2]
        for entry in message.status:
            if entry.name == own:
                versions = [one.value for one in entry.values if one.key == "model version"]
                self._version = next(iter(versions), self._version)


def _resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if pixels.shape == size:
        return pixels
    return np.asarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
