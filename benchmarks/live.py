"""Latency and accounting of the live node: four cameras, three processes, real DDS.

A player publishes RGB, depth, thermal and polarization, 640x480 at 10 Hz each with jitter; the
node segments; a recorder receives. Prints what became of every reference image, and latencies.

    python benchmarks/live.py --seconds 30
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from rich.table import Table

from unim2_core.cli.console import console, progress, write_json
from unim2_core.cli.live import OUTPUTS, LiveReport, run_live
from unim2_core.cli.training import Places, train_on_drives
from unim2_core.data.synthetic import DriveConfig, default_rig, write_drive

SENSORS = ("rgb", "depth", "thermal", "polarization")
MODALITIES = ("rgb", "depth", "thermal", "aolp")
RENDERED_S = 10.0
STAGES = ("sync", "decode", "encode", "backbone", "head", "publish", "stamp to publish")
PERCENTILES = (50, 95, 99)
FATES = ("published", "superseded by a newer set", "failed", "idle, nobody subscribes")


def main() -> None:
    """Render, train, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of the live run")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    config = DriveConfig(
        duration_s=min(RENDERED_S, options.seconds), sensors=SENSORS, uniform_size=True
    )
    rig = default_rig(config)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "rig.yaml").write_text(rig.dump())
        with progress("rendering a drive", None) as advance:
            write_drive(folder / "drive", config, advance)
        model = folder / "model.unim2"
        places = Places(model, folder / "cache", folder / "run")
        train_on_drives([folder / "drive"], rig, MODALITIES, places, steps=100, frames=30)
        report = run_live(
            folder / "drive",
            model,
            folder / "rig.yaml",
            folder / "live",
            loops=max(1, round(options.seconds / config.duration_s)),
        )
    show(report)
    if options.json:
        write_json(options.json, {"counters": report.counters, "ms": report.percentiles_ms})


def show(report: LiveReport) -> None:
    """Print the tables."""
    counted = sum(
        count for key, count in report.counters.items() if key in FATES or key.startswith("rgb/")
    )
    table = Table("reference images", "count")
    table.add_row("played", str(report.played))
    for key in (*FATES, *sorted(key for key in report.counters if key.startswith("rgb/"))):
        table.add_row(key, str(report.counters.get(key, 0)))
    table.add_row("not accounted for", str(report.played - counted))
    console.print(table)

    table = Table("stage", "p50 ms", "p95 ms", "p99 ms")
    for stage in STAGES:
        figures = [
            report.percentiles_ms.get(f"{stage} p{p} ms", float("nan")) for p in (50, 95, 99)
        ]
        table.add_row(stage, *(f"{figure:.1f}" for figure in figures))
    received = np.percentile(report.latencies_ms[OUTPUTS[0]], (50, 95, 99))
    table.add_row("stamp to arrival at a subscriber", *(f"{figure:.1f}" for figure in received))
    total = report.percentiles_ms["stamp to publish p50 ms"]
    engine = sum(report.percentiles_ms[f"{stage} p50 ms"] for stage in ("backbone", "head"))
    console.print(table)
    console.print(
        f"the engine's share of the median stamp to publish: {100 * engine / total:.0f} %"
    )


if __name__ == "__main__":
    main()
