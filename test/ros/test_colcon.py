"""A colcon workspace: messages are generated, our modules import beside them, launch starts."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from unim2_core.inference.backends import Backend

pytestmark = [pytest.mark.ros, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
BUILD_PACKAGES = ("ament_cmake", "ament_cmake_python", "rosidl_default_generators")
IMPORTS = """
import unim2_core, unim2_ros.msg, unim2_ros.dds
from unim2_core.shares import share
print(unim2_core.__file__, unim2_ros.dds.__file__, share("config/dds/fastdds_shm.xml"))
status = unim2_ros.msg.SegmentationStatus(modalities=["rgb"], skew_s=[0.0], drop_counts=[1])
print(status.modalities)
assert unim2_ros.msg.AdaptationStatus(state=unim2_ros.msg.AdaptationStatus.REVIEW).state == 5
"""
SHOW = 'import os, sys; print(os.environ.get("FASTDDS_DEFAULT_PROFILES_FILE"), sys.argv)'


@pytest.fixture(scope="module", autouse=True)
def _workspace_tools() -> None:
    prefixes = [Path(prefix) for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(":")]
    missing = [tool for tool in ("colcon", "ros2", "cmake") if shutil.which(tool) is None]
    missing += [
        name
        for name in BUILD_PACKAGES
        if not any((prefix / "share" / name / "package.xml").is_file() for prefix in prefixes)
    ]
    if missing:
        pytest.skip(f"not a sourced ROS workspace with build tools, missing: {missing}")


def shell(workspace: Path, command: str, check: bool = True) -> str:
    """Run a command in a shell that sourced the workspace where it is built."""
    setup = workspace / "install" / "local_setup.bash"
    environment = {name: value for name, value in os.environ.items() if "FAST" not in name}
    done = subprocess.run(
        ["bash", "-c", f"test ! -f {setup} || . {setup}; {command}"],
        cwd=workspace,
        env={**environment, "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0 or not check, done.stdout
    return done.stdout


@pytest.fixture(scope="module", params=["", "--symlink-install"], ids=["copied", "symlinked"])
def workspace(request, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("workspace")
    (folder / "src").mkdir()
    (folder / "src" / "unim2").symlink_to(ROOT, target_is_directory=True)
    built = shell(folder, f"colcon build {request.param} --cmake-args -DBUILD_TESTING=OFF")
    assert "1 package finished" in built
    return folder


def test_our_modules_import_beside_the_generated_messages(workspace):
    places, modalities = shell(workspace, f"python3 -c '{IMPORTS}'").splitlines()
    assert all(Path(place).is_relative_to(workspace / "install") for place in places.split())
    assert modalities == "['rgb']"


def test_the_command_is_there(workspace):
    assert shell(workspace, "command -v unim2").strip().startswith(f"{workspace / 'install'}/")
    assert "unim2 " in shell(workspace, "unim2 --version")
    assert "No such command" in shell(workspace, "unim2 nonsense", False)


def test_launch_describes_its_arguments(workspace):
    said = shell(workspace, "ros2 launch unim2_ros segment.launch.py --show-args")
    for argument in ("model", "rig", "params_file", "namespace", "use_sim_time", "log_level"):
        assert f"'{argument}':" in said
    assert ", ".join(map(repr, get_args(Backend))) in said


def test_launch_starts_the_node_which_says_what_is_wrong(workspace):
    said = shell(workspace, "ros2 launch unim2_ros segment.launch.py model:=absent.unim2", False)
    assert "error: " in said
    assert "absent.unim2" in said
    assert "Traceback" not in said
    assert "exit code 1" in said


def test_launch_remaps_the_inputs_and_sets_the_profile(workspace):
    prefix = f"python3 -c {shlex.quote(SHOW)}"  # runs instead of the node
    said = shell(
        workspace,
        f"ros2 launch --launch-prefix {shlex.quote(prefix)} unim2_ros segment.launch.py "
        "model:=a.unim2 namespace:=front rgb:=/camera/color/image_raw thermal_info:=/ir/info",
    )
    installed = workspace / "install" / "unim2_ros" / "share" / "unim2_ros"
    assert f"] {installed / 'config/dds/fastdds_shm.xml'} [" in said
    for word in (
        "__ns:=/front",
        "rgb/image:=/camera/color/image_raw",
        "rgb/camera_info:=/camera/color/camera_info",
        "thermal/image:=thermal/image",
        "thermal/camera_info:=/ir/info",
    ):
        assert f"'-r', '{word}'" in said
