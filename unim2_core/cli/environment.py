"""What a command runs on: versions, processor, memory. Nothing heavy is imported."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from unim2_core import __version__
from unim2_core.inference.fastest import processor

PACKAGES = (
    *("numpy", "opencv-python-headless", "onnxruntime", "openvino", "torch", "rosbags"),
    *("ros-rclpy", "rerun-sdk"),
)
MEMINFO = Path("/proc/meminfo")


def environment() -> dict[str, str]:
    """What there is, in words; what the system does not tell is left out."""
    found = {
        "unim2": __version__,
        "Python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
        "processor": processor(),
        "cores": str(cores()),
    }
    memory = memory_gib()
    if memory is not None:
        found["memory"] = f"{memory:.1f} GiB"
    return found | {name: text for name in PACKAGES if (text := installed(name))}


def installed(package: str) -> str | None:
    """The version of a distribution, or None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def memory_gib() -> float | None:
    """Memory of the machine."""
    try:
        lines = MEMINFO.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) / 2**20
    return None
