"""The DDS profile that we ship lets images through, and never overrides the user's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unim2_core.shares import share
from unim2_ros.dds import PROFILE, profile_environment

STREAM = Path(__file__).with_name("image_stream.py")
SHARED_MEMORY = Path("/dev/shm")
IMAGES = 90
NEEDED_BYTES = 256 * 2**20


@pytest.mark.parametrize(
    ("distro", "variable"),
    [
        ("", "FASTDDS_DEFAULT_PROFILES_FILE"),
        ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE"),
        ("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("humble", "FASTRTPS_DEFAULT_PROFILES_FILE"),
    ],
)
def test_variable_of_the_distribution_names_our_profile(distro, variable):
    assert profile_environment({"ROS_DISTRO": distro}) == {variable: str(share(PROFILE))}


@pytest.mark.parametrize(
    "variable",
    [
        "FASTDDS_DEFAULT_PROFILES_FILE",
        "FASTRTPS_DEFAULT_PROFILES_FILE",
        "FASTDDS_BUILTIN_TRANSPORTS",
    ],
)
def test_choice_of_the_user_stands(variable):
    assert profile_environment({variable: "mine"}) == {}


@pytest.mark.ros
def test_best_effort_images_arrive():
    pytest.importorskip("rclpy")
    if not SHARED_MEMORY.is_dir() or shutil.disk_usage(SHARED_MEMORY).free < NEEDED_BYTES:
        pytest.skip(f"needs {NEEDED_BYTES >> 20} MiB of shared memory in {SHARED_MEMORY}")
    environment = {
        **os.environ,
        **profile_environment({}),
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    ends = {
        end: subprocess.Popen(
            [sys.executable, str(STREAM), end, f"images_{os.getpid()}", str(IMAGES)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for end in ("receive", "send")
    }
    said = {end: process.communicate(timeout=60) for end, process in ends.items()}
    assert all(process.returncode == 0 for process in ends.values()), said
    assert int(said["receive"][0]) >= 0.95 * IMAGES
