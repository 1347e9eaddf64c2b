"""``unim2 ros``: the live node and its tools, without a ROS workspace."""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from unim2_core.cli.console import fail
from unim2_core.cli.options import (
    BackendOption,
    DeviceOption,
    HalfAuxiliaries,
    PrecisionOption,
    RigFile,
)
from unim2_core.errors import Unim2Error

app = typer.Typer(help="The live node and its tools.", no_args_is_help=True)

_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(context_settings=_PASS_ON)
def segment(
    context: typer.Context,
    model: Annotated[Path | None, typer.Option("--model", help="Model bundle.")] = None,
    rig: RigFile = None,
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    device: DeviceOption = None,
    half_auxiliaries: HalfAuxiliaries = False,
    params_file: Annotated[
        Path | None, typer.Option("--params-file", help="ROS parameters, YAML.", dir_okay=False)
    ] = None,
) -> None:
    """Run the live node: images in, classes out. Other arguments go to ROS.

    Example: unim2 ros segment --model site.unim2 -r rgb/image:=/camera/color/image_raw
    """
    arguments = ["--ros-args"]
    if params_file:
        arguments += ["--params-file", str(params_file)]
    given = {
        "model": model,
        "rig": rig,
        "backend": backend,
        "precision": precision,
        "device": device,
    }
    for name, value in given.items():
        if value is not None:
            arguments += parameter(name, value)
    if half_auxiliaries:
        arguments += ["-p", "half_auxiliaries:=true"]
    extra = [argument for argument in context.args if argument != "--ros-args"]
    _become("segment_node", arguments + extra)


@app.command(context_settings={**_PASS_ON, "help_option_names": []})
def play(context: typer.Context) -> None:
    """Play a bag over DDS, for where there is no ros2 bag; ``--now`` moves the stamps.

    Example: unim2 ros play drive --now
    """
    _become("play_node", context.args)


@app.command(context_settings={**_PASS_ON, "help_option_names": []})
def adapt(context: typer.Context) -> None:
    """Learn from the topics as they come, beside the node; serve only what is no worse.

    Example: unim2 ros adapt site.unim2 --rig rig.yaml --frames 200 --max-rate 1
    """
    _become("adapt_node", context.args)


@app.command(context_settings={**_PASS_ON, "help_option_names": []})
def view(context: typer.Context) -> None:
    """Look at the sensors and the node's answers as they come, in the rerun viewer.

    Example: unim2 ros view --rig rig.yaml --model site.unim2
    """
    _become("view_node", context.args)


def parameter(name: str, value: object) -> list[str]:
    """ROS arguments that set a text parameter: ROS reads YAML, where a path may mean anything."""
    return ["-p", f"{name}:={json.dumps(str(value), ensure_ascii=False)}"]


def _become(module: str, arguments: list[str]) -> None:
    """Replace this process by a node, so that signals and exit status are the node's own."""
    if find_spec("rclpy") is None:
        fail(
            Unim2Error(
                "this command needs ROS 2",
                expected="rclpy, from a sourced workspace or from PyPI",
                found="no module rclpy",
                remedy="pip install 'unim2[ros]', or source a workspace with the same Python",
            )
        )
        raise typer.Exit(1)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", f"unim2_ros.{module}", *arguments])
