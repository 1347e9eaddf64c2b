"""``unim2 bench``: how fast a model runs here, on every backend, and where a frame's time goes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, progress, warn, write_json
from unim2_core.cli.options import DeviceName, JsonFile, RigFile, Topics, rig_from
from unim2_core.data.drives import check_topics
from unim2_core.errors import ModelError
from unim2_core.inference.backends import Backend, Device
from unim2_core.inference.fastest import keep
from unim2_core.inference.pipeline import Pipeline
from unim2_core.inference.stages import stage_times
from unim2_core.inference.timing import Timing, Timings, every_engine
from unim2_core.inference.work import Work, work_of
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.rig import Rig
from unim2_core.showing.bars import bars_picture
from unim2_core.showing.film import write_png

Stages = dict[str, list[float]]


def command(
    model: Annotated[Path, typer.Argument(help="Model bundle, NAME.unim2.")],
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="Frames to time.")] = 20,
    threads: Annotated[int, typer.Option(min=0, max=256, help="Cores; 0: all.")] = 0,
    device: DeviceName = "auto",
    bag: Annotated[
        Path | None, typer.Option("--bag", help="A drive: also ms of each stage of a frame.")
    ] = None,
    rig: RigFile = None,
    topic: Topics = None,
    choose: Annotated[
        bool, typer.Option("--choose", help="Let --backend auto begin with the fastest here.")
    ] = False,
    json_file: JsonFile = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="PNG of the times to write.", dir_okay=False)
    ] = None,
) -> None:
    """Time every backend and precision on this machine, and hold each against the model.

    A frame is all modalities of the model, as large as it was trained for. The engines and a
    float32 matrix product, the measure of the CPU, take turns; figures are medians. With a bag the
    fastest engine runs its first frames, all stages. Exit status 1 where no engine can be used.

    With --choose the order is kept beside the model's engines, and --backend auto goes by it as
    long as machine, libraries and backbone stay the same.

    Example: unim2 bench site.unim2 --bag drive --json bench.json --plot bench.png
    """
    if (rig or topic) and not bag:
        raise typer.BadParameter("--rig and --topic are for --bag")
    if plot and plot.suffix.lower() != ".png":
        raise typer.BadParameter(f"expected a name ending in .png, found {plot.name}")
    bundle = Bundle(model)
    console.print(escape(bundle.manifest.summary))
    with progress("timing", rounds) as advance:
        timings = every_engine(bundle, rounds, threads, advance, device)
    height, width = bundle.manifest.infer_size
    cores, work = threads or os.cpu_count(), work_of(bundle)
    title = f"{len(bundle.manifest.modalities)} modalities {width}x{height}, {cores} cores"
    console.print(_table(timings, work, title))
    counted = f"{work.backbone:.1f}" if work.backbone else "not counted (an older bundle)"
    console.print(
        f"GFLOP of matrix products in a frame: backbone {counted}, head {work.head:.2f}; "
        f"a float32 matrix product beside it: {timings.matrix_gflops:.0f} GFLOP/s"
    )
    for timing in timings.engines:
        if timing.refused:
            console.print(escape(f"{timing.backend} {timing.precision}: {timing.refused}"))
    running = [timing for timing in timings.engines if not timing.refused]
    if choose and running:
        order: dict[str, list[Backend]] = {}
        for timing in sorted(running, key=_frame_ms):
            order.setdefault(timing.precision, []).append(timing.backend)
        kept = keep(bundle, order, device, threads)
        words = ", ".join(f"{names[0]} in {precision}" for precision, names in order.items())
        console.print(escape(f"auto begins with {words} on this machine: {kept}"))
    stages = {}
    if bag and running:
        fastest = min(running, key=_frame_ms)
        stages = _stages(bag, bundle, rig_from(rig, topic), fastest, rounds, threads, device)
        console.print(_stage_table(stages, f"{fastest.backend} {fastest.precision} on {bag.name}"))
    if json_file:
        content = {
            "cores": cores,
            "size": [height, width],
            "work_gflop": vars(work),
            "matrix_gflops": timings.matrix_gflops,
            "engines": [_content(timing, timings, work) for timing in timings.engines],
            "stages_ms": {name: float(np.median(ms)) for name, ms in stages.items()},
        }
        write_json(json_file, content)
    if plot and running:
        rows = {
            f"{timing.backend} {timing.precision}": {
                "backbone": float(np.median(timing.backbone_ms)),
                "head": float(np.median(timing.head_ms)),
            }
            for timing in running
        }
        write_png(plot, bars_picture(rows, f"{bundle.manifest.name}: {title}, a frame", "ms"))
    if not running:
        raise ModelError(
            f"no engine can run {model} here",
            expected="one that is installed and passes the gate",
            found="the reasons above",
            remedy="pip install openvino, or train the model again with this version",
        )


def _frame_ms(timing: Timing) -> float:
    return float(np.median(timing.backbone_ms) + np.median(timing.head_ms))


def _stages(
    bag: Path,
    bundle: Bundle,
    rig: Rig,
    engine: Timing,
    frames: int,
    threads: int,
    device: Device,
) -> Stages:
    pipeline = Pipeline(bundle, rig, engine.backend, threads, engine.precision, device=device)
    with BagReader(bag) as reader:
        for sentence in (*pipeline.shortcomings, *check_topics(reader, pipeline.rig)):
            warn(sentence)
        found = stage_times(reader, pipeline, frames)
    if not found or not found["sync"]:
        raise ModelError(
            f"too few frames in {bag} to time",
            expected="two frame sets or more",
            found=str(len(found)),
            remedy="give a longer drive, or look at it with: unim2 info BAG",
        )
    return found


def _stage_table(stages: Stages, title: str) -> Table:
    table = Table("stage", "p50 ms", "p95 ms", title=title)
    for name, values in stages.items():
        table.add_row(name, *(f"{np.percentile(values, percent):.2f}" for percent in (50, 95)))
    return table


def _rates(timing: Timing, timings: Timings, work: Work) -> dict[str, float | None]:
    """GFLOP/s and the fraction of the matrix product's, of backbone and head."""
    found: dict[str, float | None] = {}
    for name, gflop, taken in (
        ("backbone", work.backbone, timing.backbone_ms),
        ("head", work.head, timing.head_ms),
    ):
        rate = None if not gflop else gflop / (1e-3 * float(np.median(taken)))
        found[f"{name}_gflops"] = rate
        found[f"{name}_share"] = None if rate is None else rate / timings.matrix_gflops
    return found


def _table(timings: Timings, work: Work, title: str) -> Table:
    table = Table(
        *("backend", "precision", "backbone ms", "head ms", "frames/s"),
        *("GFLOP/s", "of matrix", "start s", "MiB"),
        *("token cosine", "max error", "labels"),
        title=title,
    )
    for timing in timings.engines:
        figures = ["-"] * 10
        if timing.parity is not None:
            backbone, head = np.median(timing.backbone_ms), np.median(timing.head_ms)
            rates = _rates(timing, timings, work)
            rate, share = rates["backbone_gflops"], rates["backbone_share"]
            memory = "-" if timing.memory_mib is None else f"{timing.memory_mib:.0f}"
            parity = timing.parity
            figures = [
                *(f"{backbone:.1f}", f"{head:.1f}", f"{1e3 / (backbone + head):.2f}"),
                "-" if rate is None else f"{rate:.0f}",
                "-" if share is None else f"{100 * share:.0f} %",
                *(f"{timing.start_s:.1f}", memory),
                *(f"{parity.token_cosine:.5f}", f"{parity.max_error:.1e}"),
                f"{parity.agreement:.4f}",
            ]
        table.add_row(timing.backend, timing.precision, *figures)
    return table


def _content(timing: Timing, timings: Timings, work: Work) -> dict[str, Any]:
    found: dict[str, Any] = {"backend": timing.backend, "precision": timing.precision}
    if timing.parity is None:
        return found | {"refused": timing.refused}
    return found | {
        "backbone_ms": float(np.median(timing.backbone_ms)),
        "head_ms": float(np.median(timing.head_ms)),
        "start_s": timing.start_s,
        "memory_mib": timing.memory_mib,
        "batched": timing.batched,
        **_rates(timing, timings, work),
        "parity": vars(timing.parity),
    }
