"""``unim2 segment``: classes for every reference image of a bag."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, fail, progress, warn, write_json
from unim2_core.cli.learning_data import torch_is_here
from unim2_core.cli.options import (
    BackendName,
    DeviceName,
    HalfAuxiliaries,
    JsonFile,
    PrecisionName,
    RigFile,
    Topics,
    rig_from,
)
from unim2_core.data.drives import check_topics
from unim2_core.errors import BagError
from unim2_core.inference.bag_segmenter import BagSegmenter, SegmentReport, Watch
from unim2_core.inference.pipeline import Pipeline
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.rig import Rig

PERCENTILES = ("p50", "p95", "p99")


def command(
    bag: Annotated[Path, typer.Argument(help="rosbag2 directory, .mcap, .db3 or ROS 1 .bag.")],
    model: Annotated[Path, typer.Option("--model", help="Model bundle, NAME.unim2.")],
    out: Annotated[Path, typer.Option("--out", help="Bag to write: NAME.mcap or a directory.")],
    rig: RigFile = None,
    topic: Topics = None,
    keep: Annotated[bool, typer.Option(help="Copy the input's messages as well.")] = False,
    backend: BackendName = "auto",
    precision: PrecisionName = "fp32",
    device: DeviceName = "auto",
    half_auxiliaries: HalfAuxiliaries = False,
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Adapt the model to the bag first, see unim2 adapt.")
    ] = False,
    json_file: JsonFile = None,
) -> None:
    """Segment a recorded drive: classes, confidence and overlay for each reference image.

    The outputs carry the reference image's header. A run that was interrupted goes on where it
    stopped when it is started again. Exit status 1 where the bag is damaged: what is readable is
    segmented.

    Example: unim2 segment drive --model site.unim2 --topic rgb=/camera/color/image_raw
    --out segmented.mcap
    """
    if adapt:
        _adapt(model, bag, rig_from(rig, topic))
    pipeline = Pipeline(
        Bundle(model),
        rig_from(rig, topic),
        backend,
        precision=precision,
        half_auxiliaries=half_auxiliaries,
        device=device,
    )
    report = segment_bag(bag, pipeline, out, keep=keep)
    print_report(report)
    if json_file:
        write_json(json_file, report.summary())
    if report.stopped:
        fail(
            BagError(
                f"{bag} is damaged; {out} holds what could be read",
                expected="a whole bag",
                found=report.stopped,
                remedy="record it again, or go on with what there is",
            )
        )
        raise typer.Exit(1)


def _adapt(model: Path, bag: Path, rig: Rig) -> None:
    """Adapt a model to a bag; whatever the verdict, what is served then segments it."""
    torch_is_here()
    from unim2_core.cli.adapt import print_adaptation
    from unim2_core.cli.adapting import Plan, adapt_model

    with tempfile.TemporaryDirectory() as run:
        print_adaptation(adapt_model(model, Plan([bag], rig, Path(run))))


def segment_bag(
    bag: Path,
    pipeline: Pipeline,
    out: Path,
    *,
    keep: bool = False,
    watch: Watch | None = None,
) -> SegmentReport:
    """Segment a bag with a progress bar.

    Args:
        bag: the drive.
        pipeline: the model, fitted to the bag's rig.
        out: the bag to write.
        keep: copy the input's messages as well.
        watch: called with each frame set and its segmentation.

    Raises:
        Unim2Error: the bag, the rig or the output cannot be used.
    """
    console.print(escape(pipeline.bundle.manifest.summary))
    console.print(pipeline.engine.summary)
    with BagReader(bag) as reader:
        for warning in (
            *reader.notes,
            *pipeline.shortcomings,
            *check_topics(reader, pipeline.rig),
        ):
            warn(warning)
        with progress("segmenting", reader.message_count) as advance:
            segmenter = BagSegmenter(pipeline, keep=keep)
            return segmenter.run(reader, out, advance, watch)


def print_report(report: SegmentReport) -> None:
    """Print what became of a drive as tables."""
    resumed = f", {report.resumed} of them taken over" if report.resumed else ""
    console.print(f"{report.frames} images segmented{resumed}")
    table = Table("modality", "used in", "missing because")
    reasons: dict[str, list[str]] = {}
    for text, count in report.missing.items():
        name, _, reason = text.partition(": ")
        reasons.setdefault(name, []).append(f"{reason} ({count})")
    for name in sorted({*report.used, *reasons}):
        share = 100 * report.used[name] / max(report.frames, 1)
        table.add_row(
            name, f"{report.used[name]} ({share:.0f} %)", escape(", ".join(reasons.get(name, ())))
        )
    console.print(table)
    for name in sorted(set(reasons) - set(report.used)):
        warn(f"{name} was in no set: {', '.join(reasons[name])}; see unim2 info for its overlap")
    for what, count in report.undecodable.items():
        warn(f"{count} reference images were left out: {what}")
    for sensor, method in report.registration.items():
        console.print(escape(f"{sensor}: {method}"))
    drops = [f"{key} {count}" for key, count in report.counters.items() if key != "sets"]
    if drops:
        console.print(f"messages that were not used: {', '.join(drops)}")
    table = Table("stage", *(f"{percent} ms" for percent in PERCENTILES))
    for stage, figures in report.summary()["latency_ms"].items():
        table.add_row(stage, *(f"{figures[percent]:.2f}" for percent in PERCENTILES))
    console.print(table)
