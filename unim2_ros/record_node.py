#!/usr/bin/env python3
"""Records a node's outputs into a bag, as they were sent: ``ros2 bag record`` for the wheels."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from functools import partial
from pathlib import Path

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from unim2_core.errors import Unim2Error
from unim2_core.files import write_atomically
from unim2_core.sensing.bag_writer import BagWriter
from unim2_core.sensing.bags import BagMessage
from unim2_ros.cdr import read_stamp
from unim2_ros.lifetime import ros, spin

DEPTH = 20


class RecordNode(Node):
    """Subscribes to topics and writes what arrives, without deserialising it.

    Attributes:
        latencies_ms: topic -> stamp to arrival of each message that begins with a header.
    """

    def __init__(self, topics: dict[str, str], writer: BagWriter) -> None:
        super().__init__("record")
        self.latencies_ms: dict[str, list[float]] = {topic: [] for topic in topics}
        self._writer = writer
        qos = QoSProfile(depth=DEPTH, reliability=ReliabilityPolicy.RELIABLE)
        for topic, type_name in topics.items():
            package, _, kind = type_name.split("/")
            message_type = getattr(importlib.import_module(f"{package}.msg"), kind)
            self.create_subscription(
                message_type, topic, partial(self._arrived, topic, type_name), qos, raw=True
            )

    def _arrived(self, topic: str, type_name: str, raw: bytes) -> None:
        now = self.get_clock().now().nanoseconds
        self.latencies_ms[topic].append((now - read_stamp(raw)) / 1e6)
        self._writer.write_raw(BagMessage(topic, type_name, now, raw))


def main(args: list[str] | None = None) -> int:
    """Record until told to stop; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path, help="bag to write")
    parser.add_argument("topics", nargs="+", help="TOPIC=package/msg/Type")
    parser.add_argument("--latencies", type=Path, help="JSON file for stamp-to-arrival, ms")
    options = parser.parse_args(args)
    topics = dict(item.split("=", 1) for item in options.topics)
    try:
        with ros([]), BagWriter(options.bag) as writer:
            node = RecordNode(topics, writer)
            spin(node)
            node.destroy_node()
            if options.latencies:
                write_atomically(options.latencies, json.dumps(node.latencies_ms).encode())
    except Unim2Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
