from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from unim2_ros.diagnostics import sensor_status
from unim2_ros.inputs import ImageInput

pytestmark = pytest.mark.ros
WAIT_S = 10.0


@pytest.fixture
def node() -> Iterator[Node]:
    os.environ["ROS_DOMAIN_ID"] = "62"
    rclpy.init()
    try:
        made = rclpy.create_node("inputs")
        yield made
        made.destroy_node()
    finally:
        rclpy.try_shutdown()


def _spin_until(node: Node, done: Callable[[], bool], step: Callable[[], None]) -> bool:
    deadline = time.monotonic() + WAIT_S
    while not done() and time.monotonic() < deadline:
        step()
        rclpy.spin_once(node, timeout_sec=0.05)
    return done()


def _qos(policy: ReliabilityPolicy) -> QoSProfile:
    return QoSProfile(depth=5, reliability=policy)


def test_follows_publishers_of_either_reliability(node: Node) -> None:
    arrived: list[str] = []
    source = ImageInput(node, "cam/image", "rgb", lambda topic, sensor, _: arrived.append(sensor))
    for policy in (
        ReliabilityPolicy.RELIABLE,
        ReliabilityPolicy.BEST_EFFORT,
        ReliabilityPolicy.RELIABLE,
    ):
        publisher = node.create_publisher(Image, "cam/image", _qos(policy))

        def step(publisher=publisher) -> None:
            source.follow_publishers()
            publisher.publish(Image())

        before = len(arrived)
        assert _spin_until(node, lambda before=before: len(arrived) > before, step), policy
        infos = node.get_subscriptions_info_by_topic(source.topic)
        assert [info.qos_profile.reliability for info in infos] == [policy]
        node.destroy_publisher(publisher)
    assert set(arrived) == {"rgb"}
    assert source.take_received() == len(arrived)
    assert source.take_received() == 0


def test_counts_publishers_under_the_remapped_name(node: Node) -> None:
    source = ImageInput(node, "thermal/image", "thermal", lambda *_: None)
    assert source.topic == "/thermal/image"
    assert source.publishers == 0
    publisher = node.create_publisher(Image, "/thermal/image", 1)
    assert _spin_until(node, lambda: source.publishers == 1, lambda: None)
    node.destroy_publisher(publisher)


def test_the_topics_of_one_sensor_are_told_apart_in_diagnostics(node: Node) -> None:
    sources = [
        ImageInput(node, topic, "polarization", lambda *_: None, one_of_several=True)
        for topic in ("/p/a0", "/p/a45")
    ]
    names = [sensor_status("segment", source, {}).name for source in sources]
    assert names == ["segment: polarization /p/a0", "segment: polarization /p/a45"]
    alone = ImageInput(node, "/rgb/image", "rgb", lambda *_: None)
    assert sensor_status("segment", alone, {}).name == "segment: rgb"
