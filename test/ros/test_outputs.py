"""Everything that the node publishes, each only when somebody subscribes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from live_node import RIG, talking
from rclpy.qos import DurabilityPolicy, QoSProfile
from scenes import HEIGHT, WIDTH
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header

from unim2_core.sensing.rig import Extrinsics, Rig, Sensor
from unim2_ros.messages import image_message
from unim2_ros.outputs import OUTPUTS
from unim2_ros.point_cloud import LAYOUT

pytestmark = pytest.mark.ros
DOMAIN = 69
FX, DEPTH_M = 90.0, 2.5
PLACED, SAME = (
    Extrinsics(translation_m=(x, 0.0, 0.0), rotation_xyzw=(0.0, 0.0, 0.0, 1.0)) for x in (0.1, 0.0)
)
# Depth is needed because the thermal camera is registered through it.
WITH_DEPTH = Rig.model_validate(
    {
        **RIG.model_dump(),
        "sensors": {
            "rgb": RIG.sensors["rgb"],
            "thermal": RIG.sensors["thermal"].model_copy(update={"extrinsics": PLACED}),
            "depth": Sensor(topic="/depth/image", extrinsics=SAME),
        },
    }
)


def _info(frame: str, width: int, height: int) -> CameraInfo:
    focal = FX * width / WIDTH
    return CameraInfo(
        header=Header(frame_id=frame),
        width=width,
        height=height,
        k=[focal, 0.0, (width - 1) / 2, 0.0, focal, (height - 1) / 2, 0.0, 0.0, 1.0],
    )


def test_points_and_camera_info(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}", rig=WITH_DEPTH) as talker:
        depth = talker.node.create_publisher(Image, "/depth/image", 5)
        infos = {
            name: talker.node.create_publisher(CameraInfo, f"/{name}/camera_info", 5)
            for name in ("rgb", "thermal", "depth")
        }
        pixels = np.full((HEIGHT, WIDTH), DEPTH_M, np.float32)

        def send() -> None:
            for name, publisher in infos.items():
                size = (WIDTH // 2, HEIGHT // 2) if name == "thermal" else (WIDTH, HEIGHT)
                publisher.publish(_info(name, *size))
            stamp = talker.node.get_clock().now().to_msg()
            message = image_message(pixels.view(np.uint8), "32FC1", Header(stamp=stamp))
            message.width = WIDTH
            depth.publish(message)
            for sensor in ("rgb", "thermal"):
                talker.publish(sensor, stamp)

        clouds = talker.listen("/segment/points", PointCloud2)
        cameras = talker.listen("/segment/camera_info", CameraInfo)
        assert talker.until(lambda: len(clouds) >= 2 and len(cameras) >= 2, send)
        cloud, camera = clouds[-1], cameras[-1]
        assert (cloud.height, cloud.width) == (camera.height, camera.width) == (HEIGHT, WIDTH)
        assert cloud.header.frame_id == camera.header.frame_id == "rgb_optical_frame"
        assert cloud.header.stamp.sec > 0
        assert camera.k[0] == FX
        points = np.frombuffer(cloud.data, LAYOUT).reshape(HEIGHT, WIDTH)
        np.testing.assert_allclose(points["z"], DEPTH_M, rtol=1e-6)
        across = (np.arange(WIDTH) - (WIDTH - 1) / 2) / FX * DEPTH_M
        np.testing.assert_allclose(points["x"][5], across, rtol=1e-4, atol=1e-5)
        assert set(np.unique(points["label"])) <= {*range(4), 255}
        values = {item.key: item.value for item in talker.says("segmenting").values}
        assert values["registration of thermal"].startswith("registered through depth")


def test_nothing_is_computed_for_nobody(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}") as talker:
        talker.says("idle: nobody subscribes", step=talker.send)
        assert talker.until(
            lambda: talker.counts().get("idle, nobody subscribes", 0) >= 3, talker.send
        )
        assert talker.counts()["published"] == 0
        assert talker.set_parameter("lazy", False).successful
        assert talker.until(lambda: talker.counts()["published"] >= 3, talker.send)


def test_a_subscriber_that_asks_for_more_is_named(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}", "lazy:=false") as talker:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        masks = talker.listen("/segment/segmentation", Image, latched)
        entry = talker.says("QoS mismatch on /segment/segmentation", step=talker.send)
        assert "durability" in entry.message
        assert not masks


def test_classes_are_named_for_late_comers(model_path: Path, tmp_path: Path) -> None:
    vision = pytest.importorskip(
        "vision_msgs.msg", reason="vision_msgs comes with a ROS workspace only"
    )
    with talking(tmp_path, DOMAIN, f"model:={model_path}") as talker:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        found: list[Any] = talker.listen("/segment/label_info", vision.LabelInfo, latched)
        assert talker.until(lambda: bool(found))
        ids = [entry.class_id for entry in found[0].class_map]
        assert ids == [0, 1, 2, 3, 255]


def test_names_of_outputs_are_those_of_their_classes() -> None:
    for output in OUTPUTS:
        if output.kind is not None:
            package, name = output.type.split("/")
            assert (output.kind.__module__.split(".")[0], output.kind.__name__) == (package, name)
