"""Playing a drive as if it happened now, with stamps that no clock gives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from scenes import PERIOD_NS, SECOND, START_NS, rgb_image

from unim2_core.sensing.bag_messages import image_message
from unim2_core.sensing.bag_writer import BagWriter

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")
pytestmark = pytest.mark.ros


def test_stamps_that_name_no_moment_are_left_as_they_are(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "drive") as writer:
        for index, stamp in enumerate([START_NS, 0, -5 * SECOND, (2**31 - 2) * SECOND]):
            image = image_message(rgb_image(index), "rgb8", stamp, "c")
            writer.write("/rgb/image", image, START_NS + index * PERIOD_NS)
    result = subprocess.run(
        [sys.executable, "-m", "unim2_ros.play_node", str(tmp_path / "drive"), "--now"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "ROS_DOMAIN_ID": "65"},
    )
    assert result.returncode == 0, result.stderr
    assert "published {'/rgb/image': 4}" in result.stdout + result.stderr
