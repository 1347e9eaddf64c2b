"""What a fleet does with each drive: what the command of the same name does with one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from unim2_core.cli.console import aside, write_json
from unim2_core.errors import BagError
from unim2_core.fleet.work import Handler, Made
from unim2_core.inference.backends import Backend, Device, Precision
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.rig import Rig

if TYPE_CHECKING:
    from unim2_core.cli.adapting import Plan
    from unim2_core.sensing.modalities import Preset

LOGS = "logs"
"""Of an adaptation, in its work folder."""


@dataclass(frozen=True)
class On:
    """What a model runs on.

    Attributes:
        model: its bundle, under this path on every machine.
        backend: of the engine.
        precision: it computes in.
        device: where.
        half_auxiliaries: all sensors but the reference at half the resolution.
    """

    model: Path
    backend: Backend = "auto"
    precision: Precision = "fp32"
    device: Device = "auto"
    half_auxiliaries: bool = False

    def identity(self) -> dict[str, Any]:
        """What the outputs depend on."""
        half = {"half auxiliaries": True} if self.half_auxiliaries else {}
        return {"model": Bundle(self.model).version, "precision": self.precision, **half}


def _quietly(handle: Handler) -> Handler:
    """Nothing is printed for one drive of many; its warnings are kept."""

    @wraps(handle)
    def run(drive: Path, name: str, folder: Path) -> Made:
        with aside() as warnings:
            made = handle(drive, name, folder)
        return replace(made, facts={**made.facts, "warnings": list(warnings)})

    return run


@dataclass(frozen=True)
class SegmentJob:
    """``unim2 segment`` for each drive: a bag of classes, ``NAME.mcap``.

    Attributes:
        on: the model.
        rig: of the drives.
        keep: copy the input's messages as well.
    """

    on: On
    rig: Rig
    keep: bool = False

    def identity(self) -> Mapping[str, Any]:
        """See ``Job``."""
        made = {"job": "segment", "rig": self.rig.dump(), "keep": self.keep}
        return self.on.identity() | made

    def open(self, threads: int) -> Handler:
        """See ``Job``."""
        from unim2_core.cli.segment import segment_bag
        from unim2_core.inference.pipeline import Pipeline

        on = self.on
        pipeline = Pipeline(
            *(Bundle(on.model), self.rig, on.backend, threads),
            *(on.precision, on.half_auxiliaries, on.device),
        )

        def handle(drive: Path, name: str, folder: Path) -> Made:
            began = time.perf_counter()
            out = folder / f"{name}.mcap"
            pipeline.forget()
            report = segment_bag(drive, pipeline, out, keep=self.keep)
            facts = {
                "frames": report.frames,
                "resumed": report.resumed,
                "used": dict(report.used),
                "missing": dict(report.missing),
                "compute_s": round(time.perf_counter() - began, 3),
            }
            damaged = None
            if report.stopped:
                damaged = str(
                    BagError(
                        f"the drive is damaged; what could be read has {report.frames} images",
                        expected="a whole bag",
                        found=report.stopped,
                        remedy="record it again, or go on with what there is",
                    )
                )
            return Made([out], facts, damaged)

        return _quietly(handle)


@dataclass(frozen=True)
class FeaturesJob:
    """Frozen features of each drive, for ``unim2 train --features``, or as its cache.

    Attributes:
        rig: of the drives.
        modalities: the reference first.
        backbone: name or file of weights, on every machine.
        preset: ``robot`` or ``paper``.
        size: to encode at, or None: by the first image of each drive.
        frames: frame sets of each drive, at most.
        device: ``auto``, ``cpu`` or ``cuda``.
    """

    rig: Rig
    modalities: tuple[str, ...]
    backbone: str
    preset: Preset = "robot"
    size: tuple[int, int] | None = None
    frames: int = 100
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def identity(self) -> Mapping[str, Any]:
        """See ``Job``."""
        return {
            "job": "features",
            "rig": self.rig.dump(),
            "modalities": list(self.modalities),
            "backbone": self.backbone,
            "preset": self.preset,
            "size": self.size,
            "frames": self.frames,
        }

    def open(self, threads: int) -> Handler:
        """See ``Job``. Needs torch."""
        import torch

        from unim2_core.cli.console import warn
        from unim2_core.cli.learning_data import check_absent, device_of
        from unim2_core.cli.training import features_of
        from unim2_core.data.drive_pictures import DrivePictures, encodings_of
        from unim2_core.learning.store_facts import Recorded
        from unim2_core.model.frozen import FrozenBackbone

        if threads:
            torch.set_num_threads(threads)
        backbone = FrozenBackbone(self.backbone, device=device_of(self.device))

        def handle(drive: Path, name: str, folder: Path) -> Made:
            began = time.perf_counter()
            pictures = DrivePictures(
                [drive],
                self.rig,
                encodings_of(self.modalities, self.preset),
                size=self.size,
                patch_size=backbone.patch_size,
                frames=self.frames,
                warn=warn,
            )
            check_absent(pictures)
            recorded = Recorded(pictures.rig.reference, pictures.drives)
            store = features_of(pictures, backbone, folder, recorded)
            facts = {
                "frames": len(store),
                "grid": list(store.grid),
                "compute_s": round(time.perf_counter() - began, 3),
            }
            return Made([path for path in sorted(folder.iterdir()) if path.is_dir()], facts)

        return _quietly(handle)


@dataclass(frozen=True)
class AdaptJob:
    """``unim2 adapt`` for each drive by itself: ``NAME.unim2`` where there is something to keep.

    Attributes:
        on: the model; it stays as it is.
        plan: how; drives and run folder are filled in.
    """

    on: On
    plan: Plan

    def identity(self) -> Mapping[str, Any]:
        """See ``Job``."""
        plan = self.plan
        return self.on.identity() | {
            "job": "adapt",
            "rig": plan.rig.dump(),
            "frames": plan.frames,
            "learner": repr(plan.config),
            "new classes": plan.new_classes,
            "if shifted": plan.if_shifted,
        }

    def open(self, threads: int) -> Handler:
        """See ``Job``. Needs torch."""
        import torch

        from unim2_core.cli.adapting import adapt_model

        if threads:
            torch.set_num_threads(threads)

        def handle(drive: Path, name: str, folder: Path) -> Made:
            out, logs = folder / f"{name}.unim2", folder / LOGS
            shutil.rmtree(out, ignore_errors=True)  # of an attempt that was interrupted
            plan = replace(self.plan, bags=[drive], run=logs, resume=logs.is_dir())
            made = adapt_model(self.on.model, plan, out)
            said = made.as_json()
            facts = {
                "verdict": said["verdict"],
                "reasons": said["reasons"],
                "shift": said["shift"],
                "steps": said["steps"],
                "compute_s": said["seconds"],
            }
            return Made([out] if out.is_dir() else [], facts)

        return _quietly(handle)


@dataclass(frozen=True)
class EvaluateJob:
    """``unim2 evaluate`` for each synthetic drive: its report, ``NAME.json``.

    Attributes:
        on: the model.
        rig: of the drives: a file that every machine sees, or None.
        topics: that override it.
        modalities: that the model may look at, comma-separated; None: all.
        frames: frame sets of each drive, at most; None = all.
    """

    on: On
    rig: Path | None = None
    topics: tuple[str, ...] = ()
    modalities: str | None = None
    frames: int | None = None

    def identity(self) -> Mapping[str, Any]:
        """See ``Job``."""
        from unim2_core.cli.options import rig_from

        return self.on.identity() | {
            "job": "evaluate",
            "rig": rig_from(self.rig, self.topics).dump(),
            "modalities": self.modalities,
            "frames": self.frames,
        }

    def open(self, threads: int) -> Handler:
        """See ``Job``."""
        from unim2_core.cli.evaluate import chosen_modalities
        from unim2_core.cli.evaluation import Sources
        from unim2_core.cli.measuring import How, measured
        from unim2_core.inference.engine import Engine

        on, bundle = self.on, Bundle(self.on.model)
        engine = Engine(bundle, on.backend, threads, on.precision, on.device)
        chosen = chosen_modalities(bundle, self.modalities)
        how = How(chosen, half_auxiliaries=on.half_auxiliaries)

        def handle(drive: Path, name: str, folder: Path) -> Made:
            began = time.perf_counter()
            asked = Sources(
                *(None, None, "all", "full", [drive]), self.rig, self.topics, self.frames
            )
            report, _, _ = measured(bundle, engine, asked, how)
            out = folder / f"{name}.json"
            # Where the drive lay while it was measured says nothing of it.
            report["data"]["name"] = [drive.name]
            write_json(out, report)
            found = report["figures"]
            facts = {
                "frames": report["pictures"],
                "mean_iou": found["mean_iou"],
                "accuracy": found["accuracy"],
                "compute_s": round(time.perf_counter() - began, 3),
            }
            return Made([out], facts)

        return _quietly(handle)
