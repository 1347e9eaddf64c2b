"""What ``unim2 doctor`` looks at of ROS: where it is from, its middleware, what images need.

Nothing of ROS is imported here: a child process is asked.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from unim2_core.cli.doctor_findings import Check, Finding, error, ok, warning
from unim2_core.cli.environment import installed
from unim2_core.shares import share

PROFILE = "config/dds/fastdds_shm.xml"
NEW, OLD = "FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"
TRANSPORTS = "FASTDDS_BUILTIN_TRANSPORTS"
FAST_DDS_2 = ("humble", "iron", "jazzy")
LARGE_IMAGE = 8 << 20
"""Bytes that a segment or a socket's buffer should hold: one image of 1920x1440 rgb8."""
SHM, SHM_NEEDED = Path("/dev/shm"), 256 << 20
RMEM = Path("/proc/sys/net/core/rmem_max")
ASK_S = 60.0
ASK = """
import json, rclpy, sensor_msgs.msg, diagnostic_msgs.msg
from importlib.util import find_spec
found = {"rmw": rclpy.get_rmw_implementation_identifier(), "path": rclpy.__file__}
try:
    from unim2_ros.msg import SegmentationStatus
    found["messages"] = True
except ImportError:
    found["messages"] = False
found["more"] = [name for name in ("tf2_ros", "message_filters", "vision_msgs") if find_spec(name)]
print("\\n" + json.dumps(found))
"""


def ros_checks(environment: Mapping[str, str] | None = None) -> dict[str, Check]:
    """Checks of ROS and of what lies between its processes.

    Args:
        environment: variables of the shell.
    """
    variables = dict(os.environ if environment is None else environment)
    if find_spec("rclpy") is None:
        return {"ros": lambda: _no_ros(variables)}
    return {
        "ros": lambda: _ros(variables),
        "dds profile": lambda: _profile(variables),
        "shared memory": _shared_memory,
        "rmem": _rmem,
    }


def _no_ros(variables: Mapping[str, str]) -> Iterator[Finding]:
    if distribution := variables.get("ROS_DISTRO"):
        found = f"{distribution} is sourced, but {sys.executable} does not see its rclpy"
        yield error(
            "ros", found, "make the environment with: python3 -m venv --system-site-packages"
        )
        return
    found = "no rclpy: bags can be segmented, the live node cannot run"
    yield warning("ros", found, "pip install 'unim2[ros]', or source /opt/ros/<distro>/setup.bash")


def _ros(variables: Mapping[str, str]) -> Iterator[Finding]:
    done = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, timeout=ASK_S, check=False
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        found = f"rclpy does not start: {said[-1].strip() if said else 'it says nothing'}"
        yield error("ros", found, "source the workspace again, or pip install 'unim2[ros]'")
        return
    found = json.loads(done.stdout.splitlines()[-1])
    wheel = installed("ros-rclpy")
    sourced = variables.get("AMENT_PREFIX_PATH")
    distribution = variables.get("ROS_DISTRO", "")
    if wheel and sourced:
        yield warning(
            "ros",
            f"wheels (rclpy {wheel}) and a sourced workspace ({distribution}) are mixed",
            "use one: a shell without the workspace, or pip uninstall ros-rclpy",
        )
    elif wheel:
        yield ok("ros", f"rclpy {wheel} from wheels")
    else:
        yield ok("ros", f"{distribution or 'a workspace'}, rclpy at {found['path']}")
    rest = ", ".join(found["more"]) or "no tf2_ros, message_filters or vision_msgs"
    messages = "our messages are built" if found["messages"] else "our messages are not built"
    yield ok("ros", f"{messages}; {rest}: what is not here is done without")
    yield from _middleware(found["rmw"])


def _middleware(rmw: str) -> Iterator[Finding]:
    if "fastrtps" in rmw:
        yield ok("rmw", rmw)
        return
    yield warning(
        "rmw",
        f"{rmw}: the node was measured over Fast DDS alone",
        "measure with: unim2 ros play drive --now; or export RMW_IMPLEMENTATION=rmw_fastrtps_cpp",
    )


def _profile(variables: Mapping[str, str]) -> Iterator[Finding]:
    name = OLD if variables.get("ROS_DISTRO") in FAST_DDS_2 else NEW
    command = f"export {name}={share(PROFILE)}"
    given = variables.get(NEW) or variables.get(OLD)
    if not given:
        if variables.get(TRANSPORTS):
            yield ok("dds profile", f"{TRANSPORTS}={variables[TRANSPORTS]}")
            return
        yield warning(
            "dds profile",
            "none in this shell: our own processes set theirs, but a camera driver started from "
            "here loses images larger than 512 KiB without a word",
            f"in the shell of each camera driver: {command}",
        )
        return
    if name == NEW and not variables.get(NEW):
        yield warning("dds profile", f"{OLD} is the name before Kilted", command)
    elif name == OLD and not variables.get(OLD):
        found = f"{NEW} is not read before Kilted"
        yield error("dds profile", found, command)
        return
    if not Path(given).is_file():
        yield error("dds profile", f"{given} is no file", command)
        return
    try:
        sizes = [
            int(element.text or 0)
            for element in ElementTree.parse(given).iter()
            if element.tag.rpartition("}")[2] == "segment_size"
        ]
    except (ElementTree.ParseError, ValueError) as problem:
        yield error("dds profile", f"{given} cannot be read: {problem}", command)
        return
    if not sizes:
        found = f"{given} sets no segment_size: 512 KiB, less than one image"
        yield warning("dds profile", found, command)
    elif max(sizes) < LARGE_IMAGE:
        found = f"{given}: a segment of {max(sizes) >> 10} KiB holds no large image"
        yield warning("dds profile", found, command)
    else:
        yield ok("dds profile", f"{given}, a segment of {max(sizes) >> 20} MiB")


def _shared_memory() -> Iterator[Finding]:
    if not SHM.is_dir():
        yield warning("shared memory", f"no {SHM}: images go over UDP", "mount a tmpfs there")
        return
    free = shutil.disk_usage(SHM).free
    text = f"{free >> 20} MiB free in {SHM}"
    if free < SHM_NEEDED:
        remedy = (
            "start the container with --ipc=host or --shm-size=1g; else: rm /dev/shm/fastrtps_*"
        )
        yield warning("shared memory", f"{text}; each process takes 64 MiB", remedy)
    else:
        yield ok("shared memory", text)


def _rmem() -> Iterator[Finding]:
    try:
        size = int(RMEM.read_text())
    except (OSError, ValueError):
        yield ok("rmem", "this system does not tell; it matters for images from other machines")
        return
    if size < LARGE_IMAGE:
        yield warning(
            "rmem",
            f"net.core.rmem_max is {size >> 10} KiB: large images from another machine get lost",
            f"sudo sysctl -w net.core.rmem_max={64 << 20}",
        )
    else:
        yield ok("rmem", f"net.core.rmem_max is {size >> 10} KiB")
