"""The reference page of the node, from the tables that the node itself runs on.

python -m unim2_ros.reference > docs/reference/node.md
"""

from __future__ import annotations

import ast
import json
from typing import Any

import typer
from pydantic.fields import FieldInfo

from unim2_core.cli.reference import section
from unim2_core.sensing.rig import SENSORS, Rig, Sensor
from unim2_core.shares import share
from unim2_ros import adapt_node, play_node, view_node
from unim2_ros.descriptors import constraints, value_type
from unim2_ros.outputs import OUTPUTS
from unim2_ros.parameters import (
    RIG_FIELDS,
    RUNNING,
    SENSOR_FIELDS,
    SegmentParameters,
    changes,
)
from unim2_ros.services import OFFERS

PAGE = "docs/reference/node.md"

_TYPES = {bool: "bool", int: "integer", float: "double", str: "string"}

_HEAD = """# The node `segment`

Made by `python -m unim2_ros.reference`, from the tables that the node runs on: do not edit.

A lifecycle node. With `autostart`, the default, it configures and activates itself and ends with
exit status 1 and the reason where it cannot; else it waits for `ros2 lifecycle set` or a lifecycle
manager, and a configuration that fails leaves it unconfigured, to be mended and tried again.

| transition | what it does |
|---|---|
| configure | check parameters, load model and engine and run them once, publish, offer services |
| activate | subscribe and segment |
| deactivate | unsubscribe; the model stays loaded, counts go on |
| cleanup | free the model; every parameter but `autostart` may be changed |
"""
_TOPICS_IN = """
Names are relative and meant to be remapped. A rig file names them otherwise. An image topic that
ends in `/compressed` or `/compressedDepth` takes `sensor_msgs/CompressedImage`.
QoS: sensor data, depth 5, reliable where every publisher is. History, depth, reliability and
durability can be overridden by `qos_overrides.<topic>.subscription.<policy>`, topic by topic.

"""
_TOPICS_OUT = """
The header is the reference image's, or that of the sensor in its place
(`fallback_references`), unchanged. What nobody subscribes to is not computed (`lazy`).
QoS: reliable, depth 1. History, depth, reliability and durability can be overridden by
`qos_overrides.<topic>.publisher.<policy>`, topic by topic.

"""
_SETTING = """
## Setting parameters

While it runs: `ros2 param set /segment stride 2`, where that column says that it can be changed
then. At the start: `unim2 ros segment --model site.unim2 -p stride:=2`, or in a file, given with
`params_file:=node.yaml` or `--params-file node.yaml`:

```yaml
/**:
  ros__parameters:
    stride: 2
    snapshot_s: 10.0
    thermal.max_rate_hz: 10.0
```
"""
_BESIDE = """
## Beside the node

`unim2 ros adapt` is a node `adapt`. It says how far it is under `adapt` in `/diagnostics`, once a
second, and on `/adapt/status` (`unim2_ros/AdaptationStatus`) where our messages are built.

"""


def reference() -> str:
    """The page, Markdown."""
    topics_in = [
        row
        for sensor in SENSORS
        for row in (
            (f"`{sensor}/image`", "sensor_msgs/Image", f"images of the sensor {sensor}"),
            (f"`{sensor}/camera_info`", "sensor_msgs/CameraInfo", "its calibration"),
        )
    ]
    topics_out = [
        (f"`~/{output.name}`", output.type, output.says + (", latched" if output.latched else ""))
        for output in OUTPUTS
    ]
    topics_out.append(
        (
            "`/diagnostics`",
            "diagnostic_msgs/DiagnosticArray",
            "once a second: how the node, its counts, its latencies and each sensor are",
        )
    )
    parameters = [
        _parameter(name, field, _yaml(field.default), changes(name))
        for name, field in SegmentParameters.model_fields.items()
    ]
    of_rig = [
        *(_parameter(name, Rig.model_fields[name], "of the rig", RUNNING) for name in RIG_FIELDS),
        *(
            _parameter(f"<sensor>.{name}", Sensor.model_fields[name], "of the rig", RUNNING)
            for name in SENSOR_FIELDS
        ),
    ]
    columns = ("parameter", "type", "default", "values", "can be changed", "meaning")
    parts = [
        _HEAD,
        "\n## Subscribed topics\n",
        _TOPICS_IN,
        _table(("topic", "type", "what"), topics_in),
        "\n## Published topics\n",
        _TOPICS_OUT,
        _table(("topic", "type", "what"), topics_out),
        "\n## Services\n\n",
        _table(
            ("service", "type", "what"),
            [(f"`~/{offer.name}`", offer.type, offer.says) for offer in OFFERS],
        ),
        "\n## Parameters\n\n",
        _table(columns, parameters),
        "\nOf the rig, for each of its sensors; declared when the node is configured, with the "
        "rig's values as defaults:\n\n",
        _table(columns, of_rig),
        _SETTING,
        "\n## Launch arguments\n\nAn argument of another name is passed over without a word.\n",
        *(
            f"\n`ros2 launch unim2_ros {name}`:\n\n"
            + _table(("argument", "default", "meaning"), _launch_arguments(name))
            for name in ("segment.launch.py", "replay.launch.py")
        ),
        _BESIDE,
        section("unim2 ros adapt", typer.main.get_command(adapt_node.app)),
        "\n",
        section("unim2 ros view", typer.main.get_command(view_node.app)),
        "\n## unim2 ros play\n\n",
        _table(("option", "meaning"), _play_options()),
    ]
    return "".join(parts)


def _play_options() -> list[tuple[str, ...]]:
    actions = play_node.arguments()._actions
    return [
        (f"`{' '.join(action.option_strings) or action.dest.upper()}`", action.help or "")
        for action in actions
    ]


def _launch_arguments(name: str) -> list[tuple[str, ...]]:
    """Name, default and meaning of each argument of a launch file, which is read and not run."""
    tree = ast.parse(share(f"launch/{name}").read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    rows = []
    for call in sorted(calls, key=lambda call: call.lineno):
        if ast.unparse(call.func) == "DeclareLaunchArgument":
            given = {word.arg: _text(word.value) for word in call.keywords}
            default = given.get("default_value", "has to be given")
            meaning = given["description"].replace("<", "&lt;")
            rows.append((f"`{_text(call.args[0])}`", default.replace("<", "&lt;"), meaning))
    return rows


def _text(node: ast.expr) -> str:
    """A text as it is written; what is filled in later in angle brackets."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return _text(node.value)
    return str(node.value) if isinstance(node, ast.Constant) else f"<{ast.unparse(node)}>"


def _parameter(name: str, field: FieldInfo, default: str, when: str) -> tuple[str, ...]:
    words = (field.description or "").replace("<", "&lt;")
    kind = _TYPES[value_type(field)]
    return (f"`{name}`", kind, default, constraints(field) or "any", when, words)


def _yaml(default: Any) -> str:
    return f"`{json.dumps(default)}`"


def _table(columns: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [columns, tuple("---" for _ in columns), *rows]
    return "".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines
    )


if __name__ == "__main__":
    print(reference(), end="")
