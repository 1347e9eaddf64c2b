"""What is changed while images come: rates, encodings, the size of the outputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from live_node import talking
from scenes import HEIGHT, WIDTH
from sensor_msgs.msg import CameraInfo, Image, RegionOfInterest
from std_msgs.msg import Header

from unim2_core.sensing.calibration import Intrinsics
from unim2_ros.messages import camera_info_message

pytestmark = pytest.mark.ros
DOMAIN = 76


def test_rates_and_encodings(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}") as talker:
        masks = talker.listen("/segment/segmentation", Image)
        assert talker.until(lambda: len(masks) >= 3, talker.send)

        def send(thermal: str, **changes: object) -> None:
            stamp = talker.node.get_clock().now().to_msg()
            talker.publish("thermal", stamp, encoding=thermal, **changes)
            talker.publish("rgb", stamp)

        talker.says("receiving", "segment: thermal", lambda: send("16UC1"))
        assert "thermal/not decodable" not in talker.counts()
        masks.clear()
        said = talker.says("left out: ", "segment: thermal", lambda: send("mono8", width=96))
        assert "eight bits are a picture of temperatures" in said.message
        assert talker.counts()["thermal/not decodable"] > 0
        assert masks, "the others go on"

        assert talker.set_parameter("thermal.max_rate_hz", 2.0).successful
        assert talker.until(
            lambda: talker.counts().get("thermal/over max_rate_hz", 0) > 5, talker.send
        )
        refused = talker.set_parameter("thermal.max_rate_hz", -2.0)
        assert not refused.successful
        assert "greater than or equal to 0" in refused.reason


def test_the_stride_of_the_outputs(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}", "stride:=2") as talker:
        topics = ("segmentation", "confidence", "overlay")
        heard = [talker.listen(f"/segment/{topic}", Image) for topic in topics]
        infos = talker.listen("/segment/camera_info", CameraInfo)
        publisher = talker.node.create_publisher(CameraInfo, "/rgb/camera_info", 5)
        info = CameraInfo(height=HEIGHT, width=WIDTH, k=[90.0, 0, 47.5, 0, 90.0, 31.5, 0, 0, 1])

        def send() -> None:
            publisher.publish(info)
            talker.send()

        for stride in (2, 4):
            assert talker.set_parameter("stride", stride).successful
            size = HEIGHT // stride, WIDTH // stride
            assert talker.until(
                lambda size=size: all(
                    found and (found[-1].height, found[-1].width) == size
                    for found in (*heard, infos)
                ),
                send,
            )
            scaled = Intrinsics.from_camera_info(info).scaled(size)
            np.testing.assert_allclose(
                Intrinsics.from_camera_info(infos[-1]).matrix, scaled.matrix
            )
        assert not talker.set_parameter("stride", 0).successful


def test_the_calibration_of_a_part_of_an_image_is_scaled_as_a_whole() -> None:
    info = CameraInfo(height=480, width=640, binning_x=2, binning_y=2)
    info.k = [500.0, 0.0, 320.0, 0.0, 510.0, 240.0, 0.0, 0.0, 1.0]
    info.p = [500.0, 0.0, 320.0, -50.0, 0.0, 510.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.roi = RegionOfInterest(x_offset=100, y_offset=80, width=320, height=240)
    found = camera_info_message(info, Header(frame_id="a"), (0.5, 0.5))
    assert found is not None
    assert (found.width, found.height, found.header.frame_id) == (320, 240, "a")
    assert found.p[3] == -25.0, "the baseline stays"
    before = Intrinsics.from_camera_info(info)
    after = Intrinsics.from_camera_info(found)
    wanted = before.scaled((before.height // 2, before.width // 2))
    np.testing.assert_allclose(after.matrix, wanted.matrix, atol=1e-9)
    assert (info.width, info.roi.x_offset) == (640, 100), "as it came"
