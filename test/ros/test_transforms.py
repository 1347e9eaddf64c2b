"""Extrinsics from tf messages, and what is said where there are none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from geometry_msgs.msg import TransformStamped
from live_node import talking
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from unim2_core.sensing.rig import Rig
from unim2_ros.transforms import Transforms

pytestmark = pytest.mark.ros
RIG = Rig.parse(
    {"sensors": {"rgb": {"topic": "a"}, "thermal": {"topic": "b"}, "nir": {"topic": "c"}}}
)


@pytest.fixture
def node() -> Iterator[Node]:
    os.environ["ROS_DOMAIN_ID"] = "72"
    rclpy.init()
    try:
        made = rclpy.create_node("transforms")
        yield made
        made.destroy_node()
    finally:
        rclpy.try_shutdown()


def _stamped(parent: str, child: str, x: float) -> TransformStamped:
    made = TransformStamped(child_frame_id=child)
    made.header.frame_id = parent
    made.transform.translation.x = x
    made.transform.rotation.w = 1.0
    return made


def _message(*transforms: TransformStamped) -> SimpleNamespace:
    return SimpleNamespace(transforms=transforms)  # as tf2_msgs/TFMessage


def test_a_chain_over_the_robot_gives_the_pose_and_follows_it(node: Node) -> None:
    transforms = Transforms(node, RIG)
    transforms.receive(_message(_stamped("base", "rgb_frame", 0.5)))
    transforms.note("rgb", "rgb_frame")
    transforms.note("thermal", "ir_frame")
    assert transforms.found == {}
    transforms.receive(_message(_stamped("base", "ir_frame", 0.7)))
    before = transforms.found
    assert before["thermal"].translation_m == pytest.approx((0.2, 0, 0))
    assert set(before) == {"thermal"}, "the frame of nir is not known"
    transforms.receive(_message(_stamped("base", "ir_frame", 0.9)))
    assert transforms.found["thermal"].translation_m == pytest.approx((0.4, 0, 0))
    assert before["thermal"].translation_m == pytest.approx((0.2, 0, 0)), "replaced, not changed"


def test_poses_that_are_no_numbers_are_kept_out(node: Node) -> None:
    transforms = Transforms(node, RIG)
    transforms.note("rgb", "rgb_frame")
    transforms.note("thermal", "ir_frame")
    transforms.receive(_message(_stamped("rgb_frame", "ir_frame", 0.2)))
    transforms.receive(_message(_stamped("rgb_frame", "ir_frame", float("nan"))))
    assert transforms.found["thermal"].translation_m == pytest.approx((0.2, 0, 0))


def test_what_the_rig_says_wins(node: Node) -> None:
    placed = {"translation_m": [1, 0, 0], "rotation_xyzw": [0, 0, 0, 1]}
    rig = Rig.parse(
        {"sensors": {"rgb": {"topic": "a"}, "thermal": {"topic": "b", "extrinsics": placed}}}
    )
    transforms = Transforms(node, rig)
    transforms.note("rgb", "rgb_frame")
    transforms.note("thermal", "ir_frame")
    transforms.receive(_message(_stamped("rgb_frame", "ir_frame", 0.2)))
    assert transforms.found == {}


def test_the_node_names_the_transform_that_is_not_there(model_path: Path, tmp_path: Path) -> None:
    tf = pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs comes with a ROS workspace only")
    with talking(tmp_path, 72, f"model:={model_path}", "lazy:=false") as talker:
        words = "no tf from rgb_optical_frame to thermal_optical_frame"
        talker.says(words, "segment: thermal", talker.send)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        publisher = talker.node.create_publisher(tf.TFMessage, "/tf_static", latched)
        pose = _stamped("rgb_optical_frame", "thermal_optical_frame", 0.1)
        publisher.publish(tf.TFMessage(transforms=[pose]))
        talker.says("receiving", "segment: thermal", talker.send)
