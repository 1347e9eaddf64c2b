"""The launch file: what it asks for, and what it starts the node with."""

from __future__ import annotations

import ast

import pytest

from unim2_core.sensing.rig import SENSORS
from unim2_core.shares import share

pytestmark = pytest.mark.ros

BUILT_IN = {"use_sim_time"}


@pytest.fixture
def description():
    sources = pytest.importorskip(
        "launch.launch_description_sources", reason="launch comes with a ROS workspace only"
    )
    pytest.importorskip("launch_ros", reason="launch_ros comes with a ROS workspace only")
    return sources.get_launch_description_from_any_launch_file(
        str(share("launch/segment.launch.py"))
    )


def test_parameters_are_parameters_of_the_node():
    parameters = pytest.importorskip("unim2_ros.parameters", reason="needs rclpy")
    tree = ast.parse(share("launch/segment.launch.py").read_text(encoding="utf-8"))
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PARAMETERS"
    )
    names = {ast.literal_eval(key) for key in table.keys}
    assert names - BUILT_IN
    assert names - BUILT_IN <= set(parameters.SegmentParameters.model_fields)


def test_every_argument_is_described_and_only_the_model_is_required(description):
    arguments = {argument.name: argument for argument in description.get_launch_arguments()}
    assert all(argument.description for argument in arguments.values())
    assert [name for name, argument in arguments.items() if argument.default_value is None] == [
        "model"
    ]
    assert {name for sensor in SENSORS for name in (sensor, f"{sensor}_info")} <= set(arguments)
