#!/usr/bin/env python3
"""Plays a bag over DDS at its own pace: ``ros2 bag play`` for where there is no ROS workspace."""

from __future__ import annotations

import argparse
import importlib
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from unim2_core.errors import Unim2Error
from unim2_core.sensing.bags import BagMessage, BagReader
from unim2_ros.cdr import LATEST_NS, read_stamp, with_stamp
from unim2_ros.lifetime import ros

LATCHED = ("/tf_static",)
POLL_S = 0.05
SETTLE_S = 1.0
"""What this process has discovered, the publisher of that topic may discover a little later."""


class PlayNode(Node):
    """Publishes the messages of a bag as they were recorded, byte for byte but for the stamps.

    Attributes:
        published: topic -> messages so far.
    """

    def __init__(self, reader: BagReader, *, now: bool) -> None:
        """Make a publisher for each topic whose type is installed.

        Args:
            reader: the open bag.
            now: move the stamps so that the drive happens now.
        """
        super().__init__("play")
        self.published: dict[str, int] = {}
        self._reader = reader
        self._now = now
        self._outputs: dict[str, Publisher] = {}
        self._stamped: set[str] = set()
        for name, topic in reader.topics.items():
            message_type = _message_type(topic.type)
            if message_type is None:
                self.get_logger().warning(
                    f"{name} is left out: its type {topic.type} is not installed here"
                )
                continue
            self._outputs[name] = self.create_publisher(message_type, name, _qos(name))
            self.published[name] = 0
            if next(iter(message_type.get_fields_and_field_types()), "") == "header":
                self._stamped.add(name)

    def wait_for(self, topic: str, timeout_s: float) -> None:
        """Wait until somebody subscribes to a topic, of this bag or of whoever works on it.

        Raises:
            Unim2Error: nobody came in time.
        """
        output = self._outputs.get(topic)
        deadline = time.monotonic() + timeout_s
        while not (output.get_subscription_count() if output else self.count_subscribers(topic)):
            if time.monotonic() > deadline:
                raise Unim2Error(
                    f"nobody subscribes to {topic}",
                    expected=f"a subscriber within {timeout_s:g} s",
                    found="none",
                    remedy="start the node first, or play without --wait-for",
                )
            time.sleep(POLL_S)

    def play(self, rate: float) -> None:
        """Publish every message once, ``rate`` times as fast as it was recorded."""
        shift_ns = 0
        for message in self._paced(rate):
            raw = bytes(message.raw)
            if self._now and message.topic in self._stamped:
                if not shift_ns:
                    shift_ns = self.get_clock().now().nanoseconds - message.log_ns
                recorded_ns = read_stamp(raw)
                moved_ns = recorded_ns + shift_ns
                if recorded_ns > 0 and 0 <= moved_ns <= LATEST_NS:  # else it names no moment
                    raw = with_stamp(raw, moved_ns)
            self._outputs[message.topic].publish(raw)
            self.published[message.topic] += 1

    def _paced(self, rate: float) -> Iterator[BagMessage]:
        start, first = time.monotonic(), None
        for message in self._reader.messages(tuple(self._outputs)):
            first = message.log_ns if first is None else first
            wait = start + (message.log_ns - first) * 1e-9 / rate - time.monotonic()
            if wait > 0:
                time.sleep(wait)
            yield message


def _message_type(name: str) -> Any | None:
    package, _, kind = name.split("/")
    try:
        return getattr(importlib.import_module(f"{package}.msg"), kind)
    except (ImportError, AttributeError):
        return None


def _qos(topic: str) -> QoSProfile:
    if topic in LATCHED:
        return QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    return QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)


def arguments() -> argparse.ArgumentParser:
    """What the command takes."""
    example = "Example: unim2 ros play drive --now"
    parser = argparse.ArgumentParser(prog="unim2 ros play", description=__doc__, epilog=example)
    parser.add_argument("bag", type=Path, help="a rosbag2 directory, .mcap, .db3 or ROS 1 .bag")
    parser.add_argument("--rate", type=float, default=1.0, help="times as fast as recorded")
    parser.add_argument("--loops", type=int, default=1, help="how often to play it")
    parser.add_argument("--now", action="store_true", help="move the stamps to the present")
    parser.add_argument(
        "--wait-for",
        action="append",
        default=[],
        help="topic that must have a subscriber first; repeatable",
    )
    parser.add_argument("--wait", type=float, default=30.0, help="seconds to wait for it")
    return parser


def main(args: list[str] | None = None) -> int:
    """Play a bag; returns the exit status."""
    parser = arguments()
    options = parser.parse_args(args)
    if not 0 < options.rate < math.inf or options.loops < 1:
        parser.error("expected a rate above 0 and at least one loop")
    try:
        with ros([]), BagReader(options.bag) as reader:
            node = PlayNode(reader, now=options.now)
            for topic in options.wait_for:
                node.wait_for(topic, options.wait)
            if options.wait_for:
                time.sleep(SETTLE_S)
            for _ in range(options.loops):
                node.play(options.rate)
            node.get_logger().info(f"published {node.published}")
            node.destroy_node()
            if reader.stopped:
                raise Unim2Error(
                    f"{options.bag} is damaged; it was played up to there",
                    expected="a whole bag",
                    found=reader.stopped,
                    remedy="copy it again from the robot, or: mcap recover, ros2 bag reindex",
                )
    except Unim2Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
