"""``unim2 bench``: how fast a model runs here, on every backend."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, progress, write_json
from unim2_core.cli.options import JsonFile
from unim2_core.errors import ModelError
from unim2_core.inference.timing import Timing, every_engine, matrix_gflops
from unim2_core.model.bundle import Bundle


def command(
    model: Annotated[Path, typer.Argument(help="Model bundle, NAME.unim2.")],
    rounds: Annotated[int, typer.Option(min=1, max=10_000, help="Frames to time.")] = 20,
    threads: Annotated[int, typer.Option(min=0, max=256, help="Cores; 0: all.")] = 0,
    json_file: JsonFile = None,
) -> None:
    """Time every backend and precision on this machine, and hold each against the model.

    A frame is all modalities of the model, as large as it was trained for. The engines take turns;
    figures are medians. Exit status 1 where no engine can be used.

    Example: unim2 bench site.unim2 --rounds 50 --json bench.json
    """
    bundle = Bundle(model)
    console.print(escape(bundle.manifest.summary))
    with progress("timing", rounds) as advance:
        timings = every_engine(bundle, rounds, threads, advance)
    peak = matrix_gflops()
    height, width = bundle.manifest.infer_size
    cores = threads or os.cpu_count()
    title = f"{len(bundle.manifest.modalities)} modalities {width}x{height}, {cores} cores"
    console.print(_table(timings, title))
    console.print(f"a float32 matrix product beside it: {peak:.0f} GFLOP/s")
    for timing in timings:
        if timing.refused:
            console.print(escape(f"{timing.backend} {timing.precision}: {timing.refused}"))
    if json_file:
        content = {"matrix_gflops": peak, "cores": cores, "size": [height, width]}
        write_json(json_file, content | {"engines": [_content(timing) for timing in timings]})
    if all(timing.refused for timing in timings):
        raise ModelError(
            f"no engine can run {model} here",
            expected="one that is installed and passes the gate",
            found="the reasons above",
            remedy="pip install openvino, or train the model again with this version",
        )


def _table(timings: list[Timing], title: str) -> Table:
    table = Table(
        *("backend", "precision", "backbone ms", "head ms", "frames/s"),
        *("start s", "memory MiB", "token cosine", "max error", "label agreement"),
        title=title,
    )
    for timing in timings:
        figures = ["-"] * 8
        if timing.parity is not None:
            backbone, head = np.median(timing.backbone_ms), np.median(timing.head_ms)
            memory = "-" if timing.memory_mib is None else f"{timing.memory_mib:.0f}"
            parity = timing.parity
            figures = [
                *(f"{backbone:.1f}", f"{head:.1f}", f"{1e3 / (backbone + head):.2f}"),
                *(f"{timing.start_s:.1f}", memory),
                *(f"{parity.token_cosine:.5f}", f"{parity.max_error:.1e}"),
                f"{parity.agreement:.4f}",
            ]
        table.add_row(timing.backend, timing.precision, *figures)
    return table


def _content(timing: Timing) -> dict[str, Any]:
    found: dict[str, Any] = {"backend": timing.backend, "precision": timing.precision}
    if timing.parity is None:
        return found | {"refused": timing.refused}
    return found | {
        "backbone_ms": float(np.median(timing.backbone_ms)),
        "head_ms": float(np.median(timing.head_ms)),
        "start_s": timing.start_s,
        "memory_mib": timing.memory_mib,
        "parity": vars(timing.parity),
    }
