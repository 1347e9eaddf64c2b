"""A node that is sent what no driver should send: it lives, counts each, and goes on."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from live_node import RIG, Talker, talking
from rclpy.qos import QoSProfile, ReliabilityPolicy
from scenes import rgb_image, thermal_image
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from unim2_core.sensing.rig import Rig

pytestmark = pytest.mark.ros
DOMAIN = 79
COUNT = 50
FATES = ("published", "failed", "superseded by a newer set", "idle, nobody subscribes")
COMPRESSED = {"rgb": "/rgb/image/compressed", "thermal": "/thermal/image/compressedDepth"}


def _images(rng: random.Random) -> dict[str, Any]:
    encodings = ("rgb8", "bgr16", "mono8", "16UC1", "32FC1", "yuv422", "bayer_rggb8", "", "sonar9")
    return {
        sensor: Image(
            height=rng.choice([0, 1, 32, 64, 2**31]),
            width=rng.choice([0, 1, 48, 96, 2**32 - 1]),
            step=rng.choice([0, 1, 96, 288, 2**20]),
            encoding=rng.choice(encodings),
            is_bigendian=rng.randrange(256),
            data=rng.randbytes(rng.choice([0, 1, 3072, 18432])),
        )
        for sensor in COMPRESSED
    }


def _compressed(rng: random.Random) -> dict[str, Any]:
    png = cv2.imencode(".png", thermal_image(0))[1].tobytes()
    jpeg = cv2.imencode(".jpg", rgb_image(0))[1].tobytes()
    found = {}
    for sensor in COMPRESSED:
        data = bytearray(rng.choice([png, jpeg, bytes(12) + png, bytes(8), b""]))
        for _ in range(rng.randrange(4)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        formats = ("jpeg", "png", "16UC1; compressedDepth", "32FC1; compressedDepth rvl", "", "x")
        kept = data[: rng.randrange(len(data) + 1)] if rng.random() < 0.5 else data
        found[sensor] = CompressedImage(format=rng.choice(formats), data=bytes(kept))
    return found


def _sending(talker: Talker, topics: dict[str, str], kind: type, make: Any) -> int:
    """Send random messages of each sensor, and calibrations; returns the images of rgb."""
    rng = random.Random(0)
    qos = QoSProfile(depth=COUNT, reliability=ReliabilityPolicy.RELIABLE)
    publishers = {name: talker.node.create_publisher(kind, t, qos) for name, t in topics.items()}
    infos = talker.node.create_publisher(CameraInfo, "/rgb/camera_info", 5)
    assert talker.until(lambda: all(p.get_subscription_count() for p in publishers.values()))
    talker.until(lambda: False, wait_s=1.0)  # the other side may discover a little later
    for _ in range(COUNT):
        stamp = talker.node.get_clock().now().to_msg()
        for name, message in make(rng).items():
            message.header.stamp = stamp
            publishers[name].publish(message)
        numbers = [rng.choice([0.0, np.nan, np.inf, -1.0, 1e300]) for _ in range(9)]
        infos.publish(CameraInfo(height=rng.randrange(99), k=numbers, distortion_model="?"))
        talker.until(lambda: False, wait_s=0.02)
    return COUNT


@pytest.mark.parametrize("compressed", [False, True], ids=["images", "compressed"])
def test_random_messages(model_path: Path, tmp_path: Path, compressed: bool) -> None:
    topics = COMPRESSED if compressed else {n: s.topic for n, s in RIG.sensors.items()}
    sensors = {n: s.model_copy(update={"topic": topics[n]}) for n, s in RIG.sensors.items()}
    rig: Rig = RIG.model_copy(update={"sensors": sensors})
    with talking(tmp_path, DOMAIN, f"model:={model_path}", "lazy:=false", rig=rig) as talker:
        kind, make = (CompressedImage, _compressed) if compressed else (Image, _images)
        sent = _sending(talker, topics, kind, make)

        def counted() -> int:
            counts = talker.counts() if talker.reports else {}
            return sum(counts.get(fate, 0) for fate in FATES)

        assert talker.until(lambda: counted() == sent), (counted(), talker.counts())
        counts = talker.counts()
        assert counts["failed"] > sent // 4
        assert counts["rgb/camera_info without calibration"] > 0
        assert counts["rgb/not decodable"] == counts["failed"]
        assert counts["thermal/not decodable"] > 0
        if not compressed:
            masks = talker.listen("/segment/segmentation", Image)
            assert talker.until(lambda: len(masks) >= 3, talker.send)
