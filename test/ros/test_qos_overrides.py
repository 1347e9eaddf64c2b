"""QoS by parameters: what is overridden is in force, on every topic, and nonsense is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from live_node import talking
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image

from unim2_ros.outputs import OUTPUTS

pytestmark = pytest.mark.ros
DOMAIN = 84
OVERRIDES = (
    *(
        f"qos_overrides./segment/{output.name}.publisher.reliability:=best_effort"
        for output in OUTPUTS
    ),
    "qos_overrides./segment/segmentation.publisher.durability:=transient_local",
    "qos_overrides./segment/segmentation.publisher.depth:=3",
    "qos_overrides./rgb/image.subscription.reliability:=best_effort",
    "qos_overrides./rgb/camera_info.subscription.reliability:=reliable",
)


def test_overrides_are_in_force(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}", "lazy:=false", *OVERRIDES) as talker:
        node, asked = talker.node, QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
        for kind, topic in ((Image, "/rgb/image"), (CameraInfo, "/rgb/camera_info")):
            node.create_publisher(kind, topic, asked)
        talker.says("segmenting", step=talker.send)
        for output in OUTPUTS:
            found = node.get_publishers_info_by_topic(f"/segment/{output.name}")
            assert len(found) == (output.kind is not None)
            for endpoint in found:
                assert endpoint.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        [mask] = node.get_publishers_info_by_topic("/segment/segmentation")
        assert mask.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
        [image] = node.get_subscriptions_info_by_topic("/rgb/image")
        assert image.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT, "though reliable"
        [info] = node.get_subscriptions_info_by_topic("/rgb/camera_info")
        assert info.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        kept: list[Image] = []
        node.create_subscription(
            Image,
            "/segment/segmentation",
            kept.append,
            QoSProfile(
                depth=9,
                durability=DurabilityPolicy.TRANSIENT_LOCAL,
                reliability=ReliabilityPolicy.BEST_EFFORT,
            ),
        )
        read = node.get_publishers_info_by_topic("/segment/segmentation")
        assert read and talker.until(lambda: bool(kept), talker.send)


@pytest.mark.parametrize(
    "override",
    [
        "qos_overrides./segment/segmentation.publisher.reliability:=sometimes",
        "qos_overrides./rgb/image.subscription.history:=forever",
        "qos_overrides./rgb/image.subscription.depth:=deep",
    ],
)
def test_nonsense_ends_the_start_with_its_name(model_path: Path, override: str) -> None:
    given = [word for one in (f"model:={model_path}", override) for word in ("-p", one)]
    done = subprocess.run(
        [sys.executable, "-m", "unim2_ros.segment_node", "--ros-args", *given],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)},
    )
    assert done.returncode == 1
    assert override.partition(":=")[2] in done.stderr or override.partition(":=")[0] in done.stderr
    assert "to do:" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_activation_that_fails_is_named_and_can_be_tried_again(
    model_path: Path, tmp_path: Path
) -> None:
    wrong = "qos_overrides./rgb/image.subscription.history:=forever"
    with talking(tmp_path, DOMAIN, f"model:={model_path}", "autostart:=false", wrong) as talker:
        assert talker.change_state("configure")
        for _ in range(2):
            assert not talker.change_state("activate")
            assert talker.state() == "inactive"
        talker.says("not active: cannot activate the node")
        assert talker.node.count_subscribers("/rgb/image") == 0
