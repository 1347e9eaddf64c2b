"""The RViz and Foxglove files show topics that there are, in displays that exist."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from live_node import talking
from sensor_msgs.msg import Image, PointCloud2

from unim2_core.sensing.rig import SENSORS
from unim2_core.shares import share
from unim2_ros.outputs import OUTPUTS

pytestmark = pytest.mark.ros
DOMAIN = 85
KINDS = {f"/segment/{output.name}": output.kind for output in OUTPUTS}
INPUTS = {f"/{sensor}/image": Image for sensor in SENSORS}
SHOWS = {"Image": Image, "PointCloud2": PointCloud2}


def _rviz() -> dict[str, Any]:
    return yaml.safe_load(share("config/rviz/segment.rviz").read_text(encoding="utf-8"))


def _foxglove() -> dict[str, Any]:
    return json.loads(share("config/foxglove/segment.json").read_text(encoding="utf-8"))


def _panels(layout: Any) -> Iterator[str]:
    if isinstance(layout, str):
        yield layout
    else:
        yield from _panels(layout["first"])
        yield from _panels(layout["second"])


def test_rviz_shows_each_topic_with_a_display_for_its_type() -> None:
    shown = {}
    for display in _rviz()["Visualization Manager"]["Displays"]:
        topic, kind = display["Topic"]["Value"], SHOWS[display["Class"].rpartition("/")[2]]
        assert ({**KINDS, **INPUTS})[topic] is kind, topic
        shown[topic] = display
    wanted = {"/segment/overlay", "/segment/segmentation", "/segment/points", *INPUTS}
    assert wanted <= set(shown)
    channel = shown["/segment/points"]["Channel Name"]
    from unim2_ros.point_cloud import LAYOUT

    assert channel in LAYOUT.names


def test_rviz_takes_outputs_as_they_are_offered() -> None:
    for display in _rviz()["Visualization Manager"]["Displays"]:
        topic = display["Topic"]
        expected = "Reliable" if topic["Value"] in KINDS else "Best Effort"
        assert topic["Reliability Policy"] == expected, "else it gets nothing from some drivers"
        assert topic["Durability Policy"] == "Volatile"


def test_foxglove_shows_topics_that_there_are_and_every_panel_is_set_up() -> None:
    content = _foxglove()
    panels = content["configById"]
    assert sorted(_panels(content["layout"])) == sorted(panels)
    topics = set()
    for name, panel in panels.items():
        kind = name.partition("!")[0]
        if kind == "Image":
            mode = panel["imageMode"]
            assert ({**KINDS, **INPUTS})[mode["imageTopic"]] is Image
            topics |= {mode["imageTopic"], mode.get("calibrationTopic", mode["imageTopic"])}
        elif kind == "3D":
            topics |= set(panel["topics"])
        else:
            assert panel["topicToRender"] == "/diagnostics"
    assert topics <= {*KINDS, *INPUTS}
    assert {"/segment/overlay", "/segment/points", "/segment/segmentation"} <= topics


def _shown() -> set[str]:
    """Every topic of both files."""
    rviz = {d["Topic"]["Value"] for d in _rviz()["Visualization Manager"]["Displays"]}
    text = json.dumps(_foxglove()["configById"])
    return rviz | set(re.findall(r'"(/[a-z_]+(?:/[a-z_]+)*)"', text))


def test_a_node_that_runs_publishes_what_is_shown(model_path: Path, tmp_path: Path) -> None:
    shown = _shown()
    assert {"/segment/camera_info", "/diagnostics"} <= shown, "calibrations and reports too"
    with talking(tmp_path, DOMAIN, f"model:={model_path}") as talker:
        talker.says("idle", step=talker.send)
        node = talker.node
        published = dict(node.get_publisher_names_and_types_by_node("segment", "/"))
        heard = dict(node.get_subscriber_names_and_types_by_node("segment", "/"))
    assert shown - set(INPUTS) <= set(published), "of inputs the node has those of its model"
    assert {"/rgb/image", "/thermal/image"} <= set(heard) & set(INPUTS)
    here = {topic: [kind] for topic, kind in _types().items() if topic in published}
    assert here and all(published[topic] == kinds for topic, kinds in here.items())


def _types() -> dict[str, str]:
    return {
        f"/segment/{output.name}": output.type.replace("/", "/msg/")
        for output in OUTPUTS
        if output.kind is not None
    }
