#!/usr/bin/env python3
"""Plays a bag over DDS at its own pace: ``ros2 bag play`` for where there is no ROS workspace."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from unim2_core.sensing.bags import BagMessage, BagReader

from unim2_core.errors import Unim2Error
from unim2_ros.dds import profile_environment

LATCHED = ("/tf_static",)
POLL_S = 0.05


class PlayNode(Node):
    """Publishes the messages of a bag as they were recorded, byte for byte."""

    def __init__(self, reader: BagReader) -> None:
        super().__init__("play")
        self._reader = reader
        self._outputs: dict[str, Publisher] = {}
        for name, topic in reader.topics.items():
            message_type = _message_type(topic.type)
            if message_type is None:
                self.get_logger().warning(
                    f"{name} is left out: its type {topic.type} is not installed here"
                )
                continue
            self._outputs[name] = self.create_publisher(message_type, name, _qos(name))

    def wait_for(self, topic: str, timeout_s: float) -> bool:
        """Wait until somebody subscribes to a topic."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._outputs[topic].get_subscription_count():
                return True
            time.sleep(POLL_S)
        return False

    def play(self, rate: float) -> int:
        """Publish every message once, ``rate`` times as fast as it was recorded.

        Returns:
            How many messages were published.
        """
        count = 0
        for message in self._paced(rate):
            self._outputs[message.topic].publish(bytes(message.raw))
            count += 1
        return count

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


def main(args: list[str] | None = None) -> int:
    """Play a bag; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path, help="a rosbag2 directory, .mcap, .db3 or ROS 1 .bag")
    parser.add_argument("--rate", type=float, default=1.0, help="times as fast as recorded")
    parser.add_argument("--wait-for", default="", help="topic that must have a subscriber first")
    parser.add_argument("--wait", type=float, default=30.0, help="seconds to wait for it")
    os.environ.update(profile_environment(os.environ))
    options = parser.parse_args(
        rclpy.utilities.remove_ros_args([sys.argv[0], *(args or sys.argv[1:])])[1:]
    )
    rclpy.init(args=args)
    try:
        with BagReader(options.bag) as reader:
            node = PlayNode(reader)
            if options.wait_for and not node.wait_for(options.wait_for, options.wait):
                raise Unim2Error(
                    f"nobody subscribes to {options.wait_for}",
                    expected=f"a subscriber within {options.wait:g} s",
                    found="none",
                    remedy="start the node first, or play without --wait-for",
                )
            count = node.play(options.rate)
            node.get_logger().info(f"published {count} messages of {options.bag}")
            node.destroy_node()
    except Unim2Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
