"""What ``unim2 doctor`` looks at of a model: its files, and the engines that pass the gate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unim2_core.cli.doctor_findings import Check, Finding, error, ok, warning
from unim2_core.errors import ModelError, RigError
from unim2_core.inference.backends import LIBRARIES
from unim2_core.inference.engine import Engine
from unim2_core.inference.pipeline import check_reference
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.rig import Rig


def model_checks(model: Path, rig: Rig | None) -> dict[str, Check]:
    """Checks of a bundle.

    Args:
        model: the bundle.
        rig: of the robot that it is for; None = not known.
    """
    return {
        "model": lambda: _bundle(model),
        "gate": lambda: _gate(model),
        **({} if rig is None else {"model and rig": lambda: _fits(model, rig)}),
    }


def _bundle(model: Path) -> Iterator[Finding]:
    bundle = Bundle(model)
    manifest = bundle.manifest
    text = f"{manifest.summary}; version {bundle.version}; every file is whole"
    if manifest.backbone.baseline:
        remedy = "train on DINOv3: unim2 train --backbone dinov3_vits16 ..."
        yield warning("model", text, remedy)
    else:
        yield ok("model", text)


def _gate(model: Path) -> Iterator[Finding]:
    bundle = Bundle(model)
    passed = False
    for name, library in LIBRARIES.items():
        usable = library.installed and library.device_there()
        for precision in library.precisions if usable else ():
            try:
                engine = Engine(bundle, name, precision=precision)
            except ModelError as refusal:
                text = f"{name} {precision} is not used: {refusal.what}; found {refusal.found}"
                # What this machine cannot compute in is nothing to mend.
                whole = precision == library.precisions[0]
                yield warning("gate", text, refusal.remedy) if whole else ok("gate", text)
                continue
            passed = True
            yield ok("gate", f"{precision} passes: {engine.summary}")
    if not passed:
        remedy = "pip install --upgrade onnxruntime, or train the model again with this version"
        yield error("gate", "no backend passes: the model cannot run here", remedy)


def _fits(model: Path, rig: Rig) -> Iterator[Finding]:
    bundle = Bundle(model)
    try:
        check_reference(bundle, rig)
    except (ModelError, RigError) as problem:
        yield error("model and rig", f"{problem.what}; found {problem.found}", problem.remedy)
        return
    sensors = {entry.sensor for entry in bundle.manifest.modalities}
    absent = sorted(sensors - set(rig.sensors))
    if absent:
        found = f"the model looks at {', '.join(absent)}, which the rig does not have"
        yield warning("model and rig", found, "add it to the rig; without it the model goes on")
    else:
        yield ok(
            "model and rig", f"the rig has every sensor of the model: {', '.join(sorted(sensors))}"
        )
