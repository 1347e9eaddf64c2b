"""What colcon, pip and rosdep read: package.xml, CMakeLists.txt, CHANGELOG.rst, msg/, config/."""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path

import pytest
import yaml
from catkin_pkg.changelog import get_changelog_from_path
from catkin_pkg.package import InvalidPackage, Package, parse_package, parse_package_string
from checkout import ROOT, needs_checkout
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from unim2_core import __version__
from unim2_core.errors import Unim2Error
from unim2_core.sensing.rig import Rig
from unim2_core.shares import share

pytestmark = needs_checkout
NODES = sorted((ROOT / "unim2_ros").glob("*_node.py"))
RIGS = sorted((ROOT / "config" / "rigs").glob("*.yaml"))
FROM_PIP = {"cv2", "numpy", "pydantic", "torch", "typer", "yaml"}
USED_WHERE_IT_IMPORTS = {"message_filters", "tf2_msgs", "tf2_ros", "vision_msgs"}
COMPARED_WITH = {"cv_bridge", "sensor_msgs_py"}


@pytest.fixture(scope="module")
def package() -> Package:
    return parse_package(ROOT / "package.xml")


def imported(source: Path) -> set[str]:
    """Top-level names that a Python file imports."""
    names = set()
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


def test_package_xml_is_valid_without_a_warning():
    warnings: list[str] = []
    package = parse_package(ROOT / "package.xml", warnings=warnings)
    assert warnings == []
    assert package.package_format == 3
    assert package.name == "unim2_ros"
    assert package.get_build_type() == "ament_cmake"
    assert [group.name for group in package.member_of_groups] == ["rosidl_interface_packages"]
    assert (ROOT / package.licenses[0].file).is_file()


def test_validation_would_notice_a_malformed_email():
    text = (ROOT / "package.xml").read_text(encoding="utf-8")
    with pytest.raises(InvalidPackage, match=r"[Ee]mail"):
        parse_package_string(re.sub(r'email="[^"]+"', 'email="nobody"', text))


def test_one_version_everywhere(package):
    assert package.version == __version__
    newest, _, _ = next(get_changelog_from_path(ROOT / "CHANGELOG.rst").foreach_version())
    assert newest == __version__


def test_every_ros_package_that_is_imported_is_declared(package):
    sources = [*(ROOT / "unim2_ros").glob("*.py"), *(ROOT / "launch").glob("*.py")]
    names = set().union(*map(imported, sources)) - set(sys.stdlib_module_names)
    used = {name for name in names if not name.startswith("unim2_")} - FROM_PIP
    assert {"rclpy", "launch_ros"} <= used
    declared = {dependency.name for dependency in package.exec_depends}
    assert used <= declared, f"not in package.xml: {sorted(used - declared)}"


def test_what_is_only_used_where_it_imports_is_declared_too(package):
    assert {dependency.name for dependency in package.exec_depends} >= USED_WHERE_IT_IMPORTS
    assert {dependency.name for dependency in package.test_depends} >= COMPARED_WITH


@pytest.mark.parametrize("node", NODES, ids=lambda path: path.name)
def test_a_node_can_be_started_by_ros2_run(node):
    assert node.read_text(encoding="utf-8").startswith("#!/usr/bin/env python3\n")
    assert os.access(node, os.X_OK), "a symlink install runs the file itself: chmod +x"
    installed = re.search(
        r"install\(PROGRAMS([^)]*)\)", (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    )
    assert installed is not None
    assert f"unim2_ros/{node.name}" in installed[1].split()


def test_python_package_leaves_room_for_the_generated_one():
    assert (ROOT / "unim2_ros" / "__init__.py").read_text(encoding="utf-8") == ""
    assert not (ROOT / "unim2_ros" / "msg").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "msg").glob("*.msg")), ids=lambda path: path.name)
def test_messages_parse_and_their_dependencies_are_declared(path, package):
    text = path.read_text(encoding="utf-8")
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg(text, f"unim2_ros/msg/{path.stem}"))
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    generated = re.search(r"rosidl_generate_interfaces\(([^)]*)\)", cmake)
    assert generated is not None
    assert f'"msg/{path.name}"' in generated[1]
    built_with = {dependency.name for dependency in package.build_depends}
    for other in set(re.findall(r"^(\w+)/", text, flags=re.MULTILINE)):
        assert other in generated[1].split()
        assert other in built_with


@pytest.mark.parametrize("path", RIGS, ids=lambda path: path.name)
def test_rigs_load_and_survive_a_round_trip(path):
    rig = Rig.load(path)
    assert Rig.parse(yaml.safe_load(rig.dump())) == rig


def test_example_rig_has_a_sensor_of_each_kind_of_physics():
    rig = Rig.load(share("config/rigs/example.yaml"))
    assert set(rig.sensors) == {"rgb", "depth", "thermal", "polarization"}


def test_share_finds_files_of_the_checkout():
    assert share("config/dds/fastdds_shm.xml") == ROOT / "config" / "dds" / "fastdds_shm.xml"
    assert share("launch/segment.launch.py").is_file()


def test_share_says_what_is_missing():
    with pytest.raises(Unim2Error, match=r"config/rigs/none\.yaml"):
        share("config/rigs/none.yaml")
