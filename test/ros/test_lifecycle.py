"""The node's transitions, driven from outside as a lifecycle manager does."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from live_node import talking
from sensor_msgs.msg import Image

pytestmark = pytest.mark.ros
DOMAIN = 66
MASK = "/segment/segmentation"


def test_every_transition_and_a_configuration_that_fails_and_is_mended(
    model_path: Path, tmp_path: Path
) -> None:
    with talking(tmp_path, DOMAIN, "autostart:=false", "model:=/nowhere/no.unim2") as talker:
        masks = talker.listen(MASK, Image)
        assert talker.state() == "unconfigured"
        talker.says("unconfigured: waits")
        assert not talker.change_state("configure")
        assert talker.state() == "unconfigured"
        talker.says("not configured: cannot open the model /nowhere/no.unim2")

        assert talker.set_parameter("model", str(model_path)).successful
        assert talker.change_state("configure")
        assert talker.state() == "inactive"
        talker.says("inactive: ready")
        node = talker.node
        assert node.count_subscribers("/rgb/image") == 0

        assert talker.change_state("activate")
        assert talker.until(lambda: node.count_subscribers("/rgb/image") == 1)
        assert talker.until(lambda: len(masks) >= 3, talker.send)

        assert talker.change_state("deactivate")
        assert talker.until(lambda: node.count_subscribers("/rgb/image") == 0)
        talker.says("inactive: ready")
        published = talker.counts()["published"]
        assert published >= 3

        assert talker.change_state("cleanup")
        assert talker.until(lambda: node.count_publishers(MASK) == 0)
        talker.says("unconfigured: waits")

        masks.clear()
        assert talker.change_state("configure")
        assert talker.change_state("activate")
        assert talker.until(lambda: len(masks) >= 3, talker.send)
        talker.says("segmenting", step=talker.send)
        assert talker.counts()["published"] >= published, "counts go on over activations"
        assert talker.change_state("shutdown")
        assert talker.state() == "finalized"


def test_a_node_that_starts_itself_ends_up_active(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}") as talker:
        assert talker.until(lambda: talker.state() == "active")
