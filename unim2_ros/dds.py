"""The Fast DDS profile without which large images are lost; the user's own choice wins."""

from __future__ import annotations

import os
from collections.abc import Mapping

from unim2_core.shares import share

PROFILE = "config/dds/fastdds_shm.xml"

_CHOICES = (
    "FASTDDS_DEFAULT_PROFILES_FILE",
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "FASTDDS_BUILTIN_TRANSPORTS",
)
_FAST_DDS_2 = ("humble", "iron", "jazzy")


def profile_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that make a process use our profile.

    Args:
        environment: the variables that are set so far.

    Returns:
        Variable -> value; empty where the user configured Fast DDS transports himself.
    """
    if any(environment.get(name) for name in _CHOICES):
        return {}
    # Fast DDS 2 knows only the older name, and rmw_fastrtps of Kilted warns of that one.
    old = environment.get("ROS_DISTRO") in _FAST_DDS_2
    return {_CHOICES[1 if old else 0]: str(share(PROFILE))}


def use_shipped_profile() -> None:
    """Set our profile for this process and its children; call it before ``rclpy.init``."""
    os.environ.update(profile_environment(os.environ))
