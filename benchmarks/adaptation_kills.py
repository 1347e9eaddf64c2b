"""``kill -9`` at random moments of ``unim2 adapt``: what is on the disk, and what it comes to.

    python benchmarks/adaptation_kills.py --kills 20

The command runs once unbroken. Then, from a fresh copy of the model each time, it is killed at a
moment drawn evenly over that run and given again with ``--resume``. After the kill the bundle has
to load, and what it serves has to be what was served before or what the guard accepted; in the
end its weights have to be those of the unbroken run, to the byte. Exits with 1 where one is not.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from adaptation import MODALITIES, Setting, fresh
from rich.console import Console
from rich.table import Table

from unim2_core.errors import Unim2Error
from unim2_core.inference.engine import Engine
from unim2_core.model.bundle import TRAINING, WEIGHTS, Bundle

PROGRAM = "from unim2_core.cli.main import app; app()"
console = Console(width=120, highlight=False)


def adapt(model: Path, drive: Path, rig: Path, run: Path, kill_s: float | None = None) -> float:
    """Run the command, killed after so many seconds; returns how long it ran.

    Raises:
        RuntimeError: it ended otherwise than asked for.
    """
    began = time.perf_counter()
    process = subprocess.Popen(
        [
            *(sys.executable, "-c", PROGRAM, "adapt", str(model), "--bag", str(drive)),
            *("--rig", str(rig), "--run", str(run), "--resume"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=kill_s)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        said, _ = process.communicate()
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"exit status {process.returncode}: {said[-2000:]}")
    return time.perf_counter() - began


def served(model: Path) -> tuple[bytes, ...]:
    """What decides the answers of the version that is served; it is loaded and tried first.

    Raises:
        Unim2Error: it does not load.
    """
    bundle = Bundle(model)
    Engine(bundle)
    return tuple(bundle.file(name).read_bytes() for name in (WEIGHTS, TRAINING))


def main() -> int:
    """Kill, look, resume, look; print a row a kill."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0, help="length of a drive")
    parser.add_argument("--steps", type=int, default=120, help="of the first training")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    moments = np.random.default_rng(given.seed)
    table = Table(*("killed after s", "of s", "served then", "ran on s", "weights in the end"))
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        setting = Setting(folder, given.seconds, given.steps, (112, 160))
        drive, rig = setting.drive(20, "night"), folder / "rig.yaml"
        rig.write_text(setting.rig.dump())
        model = setting.model("day", 0, setting.drive(10, "day"))
        first = served(model)
        whole = fresh(model, "whole")
        unbroken_s = adapt(whole, drive, rig, folder / "whole.run")
        accepted = served(whole)
        if accepted == first:
            raise RuntimeError("the unbroken adaptation was not accepted: nothing to compare with")
        for number in range(given.kills):
            copy, run = fresh(model, "broken"), folder / f"run-{number}"
            ran_s = adapt(copy, drive, rig, run, float(moments.uniform(0, unbroken_s)))
            try:
                now = served(copy)
                said = {first: "the old one", accepted: "the accepted one"}.get(now, "ANOTHER ONE")
            except Unim2Error as error:
                said = f"DOES NOT LOAD: {error.what}"
            rest_s = 0.0
            if said == "the old one":
                rest_s = adapt(copy, drive, rig, run)
            same = said.startswith("the") and served(copy) == accepted
            bad += not same
            table.add_row(
                *(f"{ran_s:.1f}", f"{unbroken_s:.1f}", said, f"{rest_s:.1f}"),
                "those of the unbroken run" if same else "OTHERS",
            )
    console.print(table, f"{', '.join(MODALITIES)}: {given.kills - bad} of {given.kills} as due")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
