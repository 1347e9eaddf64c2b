"""What learning beside the node costs the node: latencies with and without ``unim2 ros adapt``.

Two cameras, the node, a recorder, and the learner in processes of their own, real DDS. Choose a
rate that is at most half of what the node holds alone on the machine (``benchmarks/live.py``).

    python benchmarks/live_adaptation.py --seconds 40 --rate 5 --max-rate 1
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.table import Table

from unim2_core.cli.console import console, progress, write_json
from unim2_core.cli.live import LiveReport, run_live
from unim2_core.cli.training import Places, train_on_drives
from unim2_core.data.synthetic import DriveConfig, default_rig, write_drive

SENSORS = ("rgb", "thermal")
RENDERED_S = 10.0
DOMAIN = 94
STAGES = ("sync", "decode", "encode", "backbone", "head", "publish", "stamp to publish")
LIMIT = 20.0
"""Percent that the 99th percentile may grow by."""
RUN = "from unim2_core.cli.main import run; run()"
START_S = 60.0


class Learner:
    """``unim2 ros adapt`` in a process of its own; what it came to is in ``report``."""

    def __init__(self, folder: Path, frames: int, max_rate: float, threads: int) -> None:
        self.report = folder / "adaptation.json"
        self._log = (folder / "adaptation.log").open("wb")
        words = [
            *("ros", "adapt", str(folder / "model.unim2"), "--rig", str(folder / "rig.yaml")),
            *("--frames", str(frames), "--max-rate", str(max_rate), "--threads", str(threads)),
            *("--wait", str(START_S), "--json", str(self.report)),
        ]
        environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(DOMAIN),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", RUN, *words],
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env=environment,
        )

    def figures(self) -> dict[str, object]:
        """What it came to; it has to have ended by itself."""
        self._process.wait(2 * START_S)
        return dict(json.loads(self.report.read_text()))

    def close(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        self._log.close()


def main() -> None:
    """Render, train, run twice, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=40.0, help="length of each run")
    parser.add_argument("--rate", type=float, default=5.0, help="of each camera, Hz")
    parser.add_argument("--max-rate", type=float, default=1.0, help="pictures learnt from, Hz")
    parser.add_argument("--width", type=int, default=640, help="of each camera, pixels")
    parser.add_argument("--threads", type=int, default=1, help="cores of the learner")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    length_s = min(RENDERED_S, options.seconds)
    config = DriveConfig(
        duration_s=length_s,
        rate_hz=options.rate,
        width=options.width,
        height=3 * options.width // 4,
        sensors=SENSORS,
        uniform_size=True,
    )
    rig = default_rig(config)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "rig.yaml").write_text(rig.dump())
        with progress("rendering a drive", None) as advance:
            write_drive(folder / "drive", config, advance)
        places = Places(folder / "model.unim2", folder / "cache", folder / "run")
        train_on_drives([folder / "drive"], rig, SENSORS, places, steps=20, frames=10)

        def live(name: str) -> LiveReport:
            return run_live(
                *(folder / "drive", places.out, folder / "rig.yaml", folder / name),
                loops=max(1, round(options.seconds / length_s)),
                domain=DOMAIN,
            )

        alone = live("alone")
        # Half of what comes: the learner begins later than the player.
        frames = max(8, round(0.5 * options.max_rate * options.seconds))
        learner = Learner(folder, frames, options.max_rate, options.threads)
        try:
            beside = live("beside")
            learnt = learner.figures()
        finally:
            learner.close()
    show(alone, beside, learnt)
    if options.json:
        content = {"alone": alone.percentiles_ms, "beside": beside.percentiles_ms}
        write_json(options.json, {**content, "adaptation": learnt})


def show(alone: LiveReport, beside: LiveReport, learnt: dict[str, object]) -> None:
    """Print the table."""
    table = Table("stage", "alone p50 ms", "p99 ms", "learning p50 ms", "p99 ms", "p99 grows by")
    for stage in STAGES:
        names = [f"{stage} p{percent} ms" for percent in (50, 99)]
        first, second = (
            [report.percentiles_ms.get(name, float("nan")) for name in names]
            for report in (alone, beside)
        )
        growth = 100 * (second[1] / first[1] - 1) if first[1] else float("nan")
        figures = (f"{figure:.1f}" for figure in (*first, *second))
        table.add_row(stage, *figures, f"{growth:+.0f} %")
    console.print(table)
    for name, report in (("alone", alone), ("learning beside it", beside)):
        counts = report.counters
        console.print(f"{name}: {counts['published']} of {report.played} images published")
    console.print(
        f"learnt: {learnt['verdict']} after {learnt['steps']} steps, "
        f"{learnt['steps_per_s']} steps/s; the 99th percentile may grow by {LIMIT:g} %"
    )


if __name__ == "__main__":
    main()
