"""``unim2 doctor``: is everything here that is needed, and what mends it where not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from unim2_core.cli.console import console, progress, write_json
from unim2_core.cli.doctor_bag import bag_checks, rig_checks
from unim2_core.cli.doctor_findings import Check, Finding, State, error, run_checks
from unim2_core.cli.doctor_machine import machine_checks
from unim2_core.cli.doctor_model import model_checks
from unim2_core.cli.doctor_ros import ros_checks
from unim2_core.cli.options import JsonFile, RigFile
from unim2_core.errors import Unim2Error
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.rig import Rig

COLORS: dict[State, str] = {"ok": "green", "warning": "yellow", "error": "bold red"}


def command(
    rig: RigFile = None,
    bag: Annotated[
        Path | None, typer.Option(help="A drive: its topics, QoS, rates, tf, synchronisation.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model: its files, and which backends pass the gate.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Look at the machine, ROS, a model, a rig and a drive; say what mends what is wrong.

    Exit status 1 where a line is an error; warnings are for people to judge.

    Example: unim2 doctor --bag drive --rig rig.yaml --model site.unim2
    """
    found = [*run_checks(machine_checks()), *run_checks(ros_checks())]
    loaded, problems = _loaded(rig)
    found += problems
    if loaded is not None:
        found += run_checks(rig_checks(loaded))
    if model is not None:
        found += run_checks(model_checks(model, loaded))
    if bag is not None and not problems:
        found += _of_bag(bag, loaded)
    for finding in found:
        _print(finding)
    counts = Counter(finding.state for finding in found)
    console.print(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['error']} errors")
    if json_file:
        content = {"counts": dict(counts), "findings": [vars(finding) for finding in found]}
        write_json(json_file, content)
    if counts["error"]:
        raise typer.Exit(1)


def _loaded(rig: Path | None) -> tuple[Rig | None, list[Finding]]:
    if rig is None:
        return None, []
    try:
        return Rig.load(rig), []
    except Unim2Error as problem:
        return None, [error("rig", f"{problem.what}; found {problem.found}", problem.remedy)]


def _of_bag(bag: Path, rig: Rig | None) -> list[Finding]:
    try:
        with BagReader(bag) as reader:
            count: int | None = reader.message_count
    except Unim2Error:
        count = None  # the check says so
    with progress(f"reading {bag.name}", count) as advance:
        checks: dict[str, Check] = bag_checks(bag, rig, advance)
        return run_checks(checks)


def _print(finding: Finding) -> None:
    mark = f"[{COLORS[finding.state]}]{finding.state:7}[/]"
    console.print(f"{mark} [bold]{escape(finding.subject)}[/]: {escape(finding.found)}")
    if finding.remedy:
        console.print(f"        to do: {escape(finding.remedy)}")
