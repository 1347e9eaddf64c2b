"""The launch files: what they ask for, and what they start with it."""

from __future__ import annotations

import ast
import importlib
import importlib.util

import pytest
import yaml

from unim2_core.sensing.rig import SENSORS
from unim2_core.shares import share

pytestmark = pytest.mark.ros

BUILT_IN = {"use_sim_time"}


def _launch():
    launch = pytest.importorskip("launch", reason="launch comes with a ROS workspace only")
    pytest.importorskip("launch_ros", reason="launch_ros comes with a ROS workspace only")
    return launch


def _description(name: str):
    _launch()
    sources = importlib.import_module("launch.launch_description_sources")
    return sources.get_launch_description_from_any_launch_file(
        str(share(f"launch/{name}.launch.py"))
    )


def _entities(name: str, **given: str):
    """What a launch file starts when it is given these arguments."""
    context = _launch().LaunchContext()
    description = _description(name)
    for argument in description.get_launch_arguments():
        default = "".join(part.perform(context) for part in argument.default_value or ())
        context.launch_configurations[argument.name] = given.get(argument.name, default)
    action = description.entities[-1]
    return action.execute(context), context


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


@pytest.mark.parametrize(
    ("name", "required"), [("segment", ["model"]), ("replay", ["bag", "model"])]
)
def test_every_argument_is_described_and_few_are_required(name, required):
    arguments = {a.name: a for a in _description(name).get_launch_arguments()}
    assert all(argument.description for argument in arguments.values())
    assert [key for key, argument in arguments.items() if argument.default_value is None] == (
        required
    )
    if name == "segment":
        inputs = {key for sensor in SENSORS for key in (sensor, f"{sensor}_info")}
        asked_for = {"namespace", "rig", "params_file", "backend", "precision", "use_sim_time"}
        assert inputs | asked_for | {"log_level", "autostart", "rviz"} <= set(arguments)


def test_rviz_looks_where_the_node_of_a_namespace_publishes(tmp_path):
    rig = tmp_path / "rig.yaml"
    rig.write_text("sensors: {rgb: {topic: /cam/image_raw}, thermal: {topic: ir/image}}")
    nodes, context = _entities(
        "segment", model="m.unim2", namespace="front", rviz="true", rig=str(rig)
    )
    assert len(nodes) == 2
    perform = importlib.import_module("launch.utilities").perform_substitutions
    moved = {
        perform(context, old): perform(context, new) for old, new in nodes[1]._Node__remappings
    }
    assert moved["/segment/points"] == "/front/segment/points"
    assert moved["/rgb/image"] == "/cam/image_raw"
    assert moved["/thermal/image"] == "/front/ir/image"
    shown = yaml.safe_load(share("config/rviz/segment.rviz").read_text())
    topics = {display["Topic"]["Value"] for display in shown["Visualization Manager"]["Displays"]}
    assert topics <= set(moved), "every topic that RViz shows is moved"
    [alone], _ = _entities("segment", model="m.unim2")
    assert alone._Node__remappings


def test_replay_plays_the_bag_and_adapts_where_it_can():
    entities, _ = _entities("replay", bag="drive", model="m.unim2", rate="2.0", loop="true")
    words = [part[0].text for part in entities[-1].cmd]
    assert words == ["ros2", "bag", "play", "drive", "--clock", "--rate", "2.0", "--loop"]
    assert len(entities) == 2
    entities, _ = _entities("replay", bag="drive", model="m.unim2", adapt="true")
    known = importlib.util.find_spec("unim2_core.cli.adapt") is not None
    kinds = [type(entity).__name__ for entity in entities]
    assert kinds[0] == ("RegisterEventHandler" if known else "LogInfo")
    assert len(kinds) == 3
