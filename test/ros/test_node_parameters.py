"""The table of parameters: what ROS is told, and what is refused with which reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from rclpy.node import Node
from rclpy.parameter import Parameter

from unim2_core.errors import Unim2Error
from unim2_core.inference.backends import Backend
from unim2_core.sensing.rig import Rig
from unim2_ros.parameters import Parameters, SegmentParameters

pytestmark = pytest.mark.ros
RIG = Rig.parse({"sensors": {"rgb": {"topic": "a"}, "thermal": {"topic": "b", "max_age_s": 0.2}}})


@pytest.fixture
def node() -> Iterator[Node]:
    os.environ["ROS_DOMAIN_ID"] = "67"
    rclpy.init()
    try:
        made = rclpy.create_node(
            "parameters",
            parameter_overrides=[Parameter("thermal.offset_s", value=-0.5)],
        )
        yield made
        made.destroy_node()
    finally:
        rclpy.try_shutdown()


def _set(node: Node, name: str, value: Any) -> tuple[bool, str]:
    [result] = node.set_parameters([Parameter(name, value=value)])
    return result.successful, result.reason


@pytest.fixture
def changes() -> list[tuple[Any, Any]]:
    return []


@pytest.fixture
def parameters(node: Node, changes: list[tuple[Any, Any]], model_path: Path) -> Parameters:
    made = Parameters(node, lambda *change: changes.append(change))
    assert _set(node, "model", str(model_path))[0]
    made.validate()
    made.adopt(RIG)
    return made


def test_descriptors_say_type_range_words_and_when(node: Node, parameters: Parameters) -> None:
    alpha = node.describe_parameter("overlay_alpha")
    assert (alpha.floating_point_range[0].from_value, alpha.floating_point_range[0].to_value) == (
        0.0,
        1.0,
    )
    assert alpha.description == "share of class colour in overlay"
    threads = node.describe_parameter("threads")
    assert (threads.integer_range[0].from_value, threads.integer_range[0].to_value) == (0, 256)
    backend = node.describe_parameter("backend").additional_constraints
    known = ", ".join(get_args(Backend))
    assert backend == f"one of {known}; can be changed while unconfigured"
    assert node.describe_parameter("autostart").read_only
    age = node.describe_parameter("thermal.max_age_s")
    assert age.description == "largest skew to the reference that is used"
    assert age.additional_constraints == "0 or more; can be changed at any time"


def test_the_rig_gives_the_defaults_and_the_user_wins(node: Node, parameters: Parameters) -> None:
    assert node.get_parameter("thermal.max_age_s").value == 0.2
    assert node.get_parameter("deadline_s").value == RIG.deadline_s
    assert parameters.rig is not None
    assert parameters.rig.sensors["thermal"].offset_s == -0.5


def test_changes_at_run_time(
    node: Node, parameters: Parameters, changes: list[tuple[Any, Any]]
) -> None:
    for name, value in {
        "overlay_alpha": 0.25,
        "lazy": False,
        "deadline_s": 0.1,
        "thermal.max_age_s": 0.4,
        "thermal.required": True,
    }.items():
        assert _set(node, name, value) == (True, "")
    table, rig = changes[-1]
    assert (table.overlay_alpha, table.lazy) == (0.25, False)
    assert (rig.deadline_s, rig.sensors["thermal"].max_age_s) == (0.1, 0.4)
    assert rig.sensors["thermal"].required
    assert not rig.sensors["rgb"].required


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("overlay_alpha", 1.5, "out of range"),
        ("overlay_alpha", "much", "type"),
        ("backend", "openvino", "takes effect when the node is configured: clean it up first"),
        ("model", "/nowhere/no.unim2", "no model bundle at '/nowhere/no.unim2'"),
        ("autostart", False, "read-only"),
        ("thermal.max_age_s", -1.0, "greater than or equal to 0"),
        ("deadline_s", float("nan"), "finite"),
        ("deadline_s", float("inf"), "finite"),
    ],
)
def test_refusals_say_why_and_change_nothing(
    node: Node,
    parameters: Parameters,
    changes: list[tuple[Any, Any]],
    name: str,
    value: Any,
    reason: str,
) -> None:
    before = node.get_parameter(name).value, parameters.table, parameters.rig
    successful, said = _set(node, name, value)
    assert not successful
    assert reason in said
    assert (node.get_parameter(name).value, parameters.table, parameters.rig) == before
    assert not changes


def test_while_unconfigured_everything_but_autostart_may_be_changed(
    node: Node, parameters: Parameters, changes: list[tuple[Any, Any]]
) -> None:
    parameters.forget()
    assert not node.has_parameter("thermal.max_age_s")
    assert _set(node, "backend", "openvino") == (True, "")
    assert parameters.validate().backend == "openvino"
    assert not changes


def test_sensors_to_fall_back_to() -> None:
    assert SegmentParameters(model="m").matching is None
    settings = SegmentParameters(model="m", fallback_references=" thermal,")
    settings.check_fallbacks(RIG)
    assert settings.matching is not None
    settings = SegmentParameters(model="m", fallback_references="thermal, nir")
    with pytest.raises(Unim2Error, match="no nir to fall back to"):
        settings.check_fallbacks(RIG)


def test_approximate_and_fallback_exclude_each_other(
    node: Node, parameters: Parameters, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters.forget()
    monkeypatch.setattr("unim2_ros.parameters.message_filters", lambda: None)  # as if installed
    assert _set(node, "fallback_references", "thermal")[0]
    parameters.validate()
    assert _set(node, "sync", "approximate")[0]
    with pytest.raises(Unim2Error, match="cannot do without a sensor"):
        parameters.validate()
