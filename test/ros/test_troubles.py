"""What goes wrong on robots: the node lives, says what it is in words, and recovers by itself."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from live_node import Talker, talking
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

pytestmark = pytest.mark.ros
DOMAIN = 70
THERMAL = "segment: thermal"


def _until_segmenting(talker: Talker) -> list[Image]:
    masks = talker.listen("/segment/segmentation", Image)
    assert talker.until(lambda: len(masks) >= 3, talker.send)
    return masks


def _goes_on(talker: Talker, masks: list[Image], sensors: tuple[str, ...]) -> bool:
    masks.clear()
    return talker.until(lambda: len(masks) >= 3, lambda: talker.send(sensors))


def test_a_sensor_that_dies_and_comes_back(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}") as talker:
        masks = _until_segmenting(talker)
        assert talker.says("receiving", THERMAL, talker.send).level == b"\0"
        assert _goes_on(talker, masks, ("rgb",))
        entry = talker.says("nothing arrives", THERMAL, lambda: talker.send(("rgb",)))
        assert entry.level == b"\1"
        values = {item.key: item.value for item in entry.values}
        assert "down" in values["images without it"]
        assert talker.says("receiving", THERMAL, talker.send).level == b"\0"


def test_a_reference_that_dies_and_comes_back(model_path: Path, tmp_path: Path) -> None:
    settings = (f"model:={model_path}", "fallback_references:=thermal", "rgb.required:=true")
    with talking(tmp_path, DOMAIN, *settings) as talker:
        masks = _until_segmenting(talker)
        overlays = talker.listen("/segment/overlay", Image)
        assert _goes_on(talker, masks, ("thermal",))
        said = talker.says("rgb is silent", step=lambda: talker.send(("thermal",)))
        assert said.level == b"\1"
        assert "outputs are for thermal images" in said.message
        assert talker.says("receiving", THERMAL, lambda: talker.send(("thermal",)))
        assert masks[-1].header.frame_id == "thermal_optical_frame"
        assert (masks[-1].height, masks[-1].width) == (32, 48)
        assert len({*bytes(masks[-1].data)} - {255}) >= 1, "thermal alone is segmented"
        assert (overlays[-1].height, overlays[-1].width) == (32, 48)
        assert talker.says("segmenting", step=talker.send).level == b"\0"
        assert masks[-1].header.frame_id == "rgb_optical_frame"


def test_what_cannot_be_fallen_back_to_is_refused(model_path: Path, tmp_path: Path) -> None:
    given = (f"model:={model_path}", "fallback_references:=nir", "autostart:=false")
    with talking(tmp_path, DOMAIN, *given) as talker:
        assert not talker.change_state("configure")
        entry = talker.says("there is no nir to fall back to")
        assert "some of rgb, thermal" in entry.message
        assert talker.set_parameter("fallback_references", "thermal").successful
        assert talker.change_state("configure")


def test_a_required_sensor_is_named_and_may_be_let_go(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}", "thermal.required:=true") as talker:
        masks = talker.listen("/segment/segmentation", Image)
        words = "no output: required thermal missing"
        talker.says(words, step=lambda: talker.send(("rgb",)))
        assert not masks
        assert talker.set_parameter("thermal.required", False).successful
        assert _goes_on(talker, masks, ("rgb",))


def test_what_cannot_be_synchronised_is_measured(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}") as talker:
        masks = _until_segmenting(talker)

        def late() -> None:
            stamp = talker.node.get_clock().now()
            talker.publish("rgb", stamp.to_msg())
            past = type(stamp)(nanoseconds=stamp.nanoseconds - 400_000_000)
            talker.publish("thermal", past.to_msg())

        entry = talker.says("not synchronisable", THERMAL, late)
        assert "behind the reference's, and max_age_s is 0.1" in entry.message
        values = {item.key: item.value for item in entry.values}
        assert abs(float(values["newest stamp minus the reference's s"]) + 0.4) < 0.1
        assert talker.set_parameter("thermal.offset_s", 0.4).successful
        masks.clear()
        talker.says("receiving", THERMAL, late)
        assert masks


def test_two_publishers_and_another_resolution(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}") as talker:
        masks = _until_segmenting(talker)
        other = talker.node.create_publisher(Image, "/thermal/image", 5)
        entry = talker.says("2 publishers on /thermal/image", THERMAL, talker.send)
        assert "talker, talker" in entry.message
        talker.node.destroy_publisher(other)
        talker.says("receiving", THERMAL, talker.send)

        def halved() -> None:
            stamp = talker.node.get_clock().now().to_msg()
            talker.publish("rgb", stamp)
            talker.publish("thermal", stamp, height=16)  # half of its data are left over

        talker.says("its images changed from 48x32 to 48x16", THERMAL, halved)
        said = talker.says("left out: thermal image on /thermal/image", THERMAL, halved).message
        assert "expected 16 rows x step 96 = 1536 bytes, found 3072 bytes" in said
        assert _goes_on(talker, masks, ("rgb", "thermal"))


def test_stamps_from_the_future_are_named(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}") as talker:
        _until_segmenting(talker)

        def ahead() -> None:
            now = talker.node.get_clock().now()
            stamp = type(now)(nanoseconds=now.nanoseconds + 5_000_000_000).to_msg()
            talker.publish("rgb", stamp)
            talker.publish("thermal", stamp)

        entry = talker.says("in the future", "segment: rgb", ahead)
        assert "synchronise the clocks" in entry.message


def test_a_publisher_that_offers_too_little_is_named(model_path: Path, tmp_path: Path) -> None:
    settings = "qos_overrides./thermal/image.subscription.reliability:=reliable"
    with talking(tmp_path, DOMAIN, f"model:={model_path}", settings) as talker:
        quiet = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
        talker.node.create_publisher(Image, "/thermal/image", quiet)
        entry = talker.says("QoS mismatch on /thermal/image", THERMAL)
        assert "less reliability than is asked for" in entry.message


def test_garbage_is_counted_and_what_follows_is_segmented(
    model_path: Path, tmp_path: Path
) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}") as talker:
        masks = _until_segmenting(talker)
        for change in (
            {"encoding": "sonar9"},
            {"height": 0, "width": 0},
            {"step": 1},
            {"height": 4_000_000_000},
            {"data": b""},
        ):
            talker.says(
                "rgb image on /rgb/image",
                step=lambda change=change: talker.send(("rgb",), **change),
            )
        failed = talker.counts()["failed"]
        assert failed >= 5
        assert _goes_on(talker, masks, ("rgb", "thermal"))


@pytest.mark.parametrize("sim_time", ["true", "false"], ids=["with /clock", "without"])
def test_a_bag_that_is_played_again_goes_on(
    model_path: Path, tmp_path: Path, sim_time: str
) -> None:
    settings = (f"model:={model_path}", f"use_sim_time:={sim_time}")
    with talking(tmp_path, DOMAIN, *settings) as talker:
        masks = talker.listen("/segment/segmentation", Image)
        clock = talker.node.create_publisher(Clock, "/clock", 10)
        now = [1_700_000_000.0]

        def tick() -> None:
            now[0] += 0.05
            message = Clock()
            message.clock.sec = int(now[0])
            message.clock.nanosec = int(1e9 * (now[0] % 1))
            clock.publish(message)
            time.sleep(0.005)
            for sensor in ("rgb", "thermal"):
                talker.publish(sensor, message.clock)

        assert talker.until(lambda: len(masks) >= 5, tick)
        first = masks[-1].header.stamp.sec
        masks.clear()
        now[0] -= 1000.0
        assert talker.until(lambda: len(masks) >= 5, tick)
        assert masks[-1].header.stamp.sec <= first - 990
        talker.says("segmenting", step=tick)
        assert talker.counts()["resets"] >= 1
