"""What a fleet is worth: workers beside one, overhead beside one command, and faults.

    python benchmarks/fleet.py --json fleet.json        # throughput and overhead
    python benchmarks/fleet.py --faults             # 40 drives, a machine lost, a worker killed

The first feeds ``fleet_cost.py``. Without ``--model`` a small model is made from a synthetic
drive. Throughput is of work without files, the engine on one core of each worker, from the first
begin to the last end; the overhead is that of drives that are segmented one after the other in
this process, medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from unim2_core.cli.console import aside, write_json
from unim2_core.cli.fleet_jobs import On, SegmentJob
from unim2_core.cli.segment import segment_bag
from unim2_core.data.synthetic import DriveConfig, default_rig, write_drive
from unim2_core.fleet.alone import run_alone
from unim2_core.fleet.cluster import Cluster, Size, connected, run_on_cluster
from unim2_core.fleet.drives import Drive, list_drives
from unim2_core.fleet.state import State
from unim2_core.fleet.transfer import Place
from unim2_core.fleet.work import Handler, Made, Outcome, Task
from unim2_core.inference.engine import Engine
from unim2_core.inference.pipeline import Pipeline
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.rig import Rig

SENSORS = ("rgb", "thermal")
JOURNAL_DRIVES = 500
console = Console(width=140)


def config(seed: int, seconds: float, size: tuple[int, int] = (96, 128)) -> DriveConfig:
    """A small synthetic drive."""
    return DriveConfig(
        seed=seed,
        duration_s=seconds,
        rate_hz=4.0,
        width=size[1],
        height=size[0],
        sensors=SENSORS,
        dropout=0.0,
    )


def model_for(folder: Path, rig: Rig) -> Path:
    """A model on ``tiny`` by k-means."""
    from unim2_core.cli.training import Places, train_on_drives

    write_drive(folder / "train", config(1, 5.0))
    places = Places(folder / "model.unim2", folder / "cache", folder / "run")
    with aside():
        made = train_on_drives(
            *([folder / "train"], rig, SENSORS, places), method="kmeans", clusters=5
        )
    return made.path


@dataclass(frozen=True)
class Compute:
    """The backbone on one image again and again: no file is read or written."""

    model: Path
    images: int

    def identity(self) -> Mapping[str, Any]:
        """See ``Job``."""
        return {"job": "compute"}

    def open(self, threads: int) -> Handler:
        """See ``Job``."""
        bundle = Bundle(self.model)
        engine = Engine(bundle, threads=threads)
        image = np.zeros((1, *bundle.manifest.infer_size, 3), np.uint8)
        engine.tokens(image)

        def handle(drive: Path, name: str, folder: Path) -> Made:
            began = time.time()
            for _ in range(self.images):
                engine.tokens(image)
            return Made([], {"began": began, "ended": time.time()})

        return handle


def throughput(model: Path, folder: Path, images: int) -> tuple[dict[int, float], float]:
    """Images a second with 1 and 2 workers, and seconds until a worker is there."""
    file = folder / "none.mcap"
    file.write_bytes(b"")
    tasks = [Task(Drive(str(file), f"task{number}", "", 0)) for number in range(8)]
    rates, starts = {}, []
    with connected("local") as cluster:
        for workers in (1, 2, 1, 2):
            asked = time.time()
            job, place = Compute(model, images), Place(folder / f"compute{workers}")
            found = list(run_on_cluster(tasks, job, place, cluster, Size(workers)))
            began = min(outcome.facts["began"] for outcome in found)
            starts.append(began - asked)
            seconds = max(outcome.facts["ended"] for outcome in found) - began
            rates[workers] = max(rates.get(workers, 0.0), len(tasks) * images / seconds)
    return rates, statistics.median(starts)


def overhead(model: Path, rig: Rig, folder: Path, rounds: int) -> dict[str, float]:
    """Seconds of one drive by ``unim2 segment``'s code and by a fleet's, and bytes of it."""
    write_drive(folder / "drive", config(2, 20.0))
    (drive,) = list_drives([str(folder / "drive")])
    pipeline = Pipeline(Bundle(model), rig)
    worker_job = SegmentJob(On(model), rig)
    handle = worker_job.open(0)
    plain: list[float] = []
    fleet: list[float] = []
    frames = size = 0

    class Opened(SegmentJob):
        def open(self, threads: int) -> Handler:
            return handle  # the engine is loaded beforehand, as for the other

    for number in range(rounds + 1):
        began = time.perf_counter()
        pipeline.forget()
        with aside():
            frames = segment_bag(folder / "drive", pipeline, folder / f"plain{number}.mcap").frames
        plain.append(time.perf_counter() - began)
        place = Place(folder / f"fleet{number}")
        job = Opened(worker_job.on, rig)
        began = time.perf_counter()
        with State(place.folder, job.identity()) as state:
            for outcome in run_alone(state.left([drive], place, 2), job, place, begin=state.begin):
                state.end(outcome)
                size = outcome.size
        fleet.append(time.perf_counter() - began)
    return {
        "frames": frames,
        "bytes": size,
        "plain_s": statistics.median(plain[1:]),
        "fleet_s": statistics.median(fleet[1:]),
    }


def journal_s(folder: Path) -> float:
    """Of the driver for each drive: two lines that reach the disk."""
    with State(folder / "journal", {"job": "none"}) as state:
        began = time.perf_counter()
        for number in range(JOURNAL_DRIVES):
            task = Task(Drive(f"/drive{number}", f"drive{number}", "", 0))
            state.begin(task)
            state.end(Outcome(task, "done", facts={"frames": 1}))
        return (time.perf_counter() - began) / JOURNAL_DRIVES


def workers_at_work() -> Iterator[int]:
    """Processes of our workers that are busy with a drive."""
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::_Remote.run"):
                yield int(folder.name)


def faults(model: Path, rig: Rig, folder: Path, count: int) -> None:
    """Many drives on machines of which one is lost, a worker killed, and a drive that is none."""
    import ray
    from ray.cluster_utils import Cluster as Machines

    for number in range(count - 1):
        write_drive(folder / "drives" / f"d{number:02}", config(10 + number, 2.0))
    (folder / "drives" / "corrupt.mcap").write_bytes(b"not a bag" * 100)
    drives, job = list_drives([f"{folder}/drives/*"]), SegmentJob(On(model), rig)
    alone, spread = Place(folder / "alone"), Place(folder / "spread")
    for outcome in run_alone([Task(drive) for drive in drives], job, alone, threads=1):
        assert outcome.status == "done" or outcome.task.drive.name == "corrupt", outcome.reason
    machines = Machines(initialize_head=True, head_node_args={"num_cpus": 0})
    lost, _ = machines.add_node(num_cpus=1), machines.add_node(num_cpus=1)
    ray.init(address=machines.address, log_to_driver=False, logging_level="ERROR")
    told: list[str] = []
    with State(spread.folder, job.identity()) as state:
        tasks = state.left(drives, spread, 2)
        running = run_on_cluster(tasks, job, spread, Cluster(2, 0, None), Size(), told.append)
        for done, outcome in enumerate(running, start=1):
            state.end(outcome)
            if done == count // 4:
                os.kill(next(workers_at_work()), signal.SIGKILL)
            if done == count // 2:
                machines.remove_node(lost, allow_graceful=False)
    ray.shutdown()
    machines.shutdown()
    with State(spread.folder, job.identity()) as state:
        again = len(state.left(drives, spread, 2))
        states = [entry.status for entry in state.entries.values()]
    one, other = (
        {path.name: path.read_bytes() for path in (place.folder / "drives").iterdir()}
        for place in (alone, spread)
    )
    table = Table("what", "found", title=f"{count} drives")
    rows = {
        "done": states.count("done"),
        "quarantined": states.count("quarantined"),
        "outputs that equal the single process's, to the byte": sum(
            other.get(name) == content for name, content in one.items()
        ),
        "left for a second call": again,
        "told on the way": "; ".join(told),
    }
    for name, value in rows.items():
        table.add_row(name, str(value))
    console.print(table)


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", type=Path, help="model bundle; else one is made")
    parser.add_argument("--images", type=int, default=200, help="of a task without files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--drives", type=int, default=40, help="of --faults")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rig = default_rig(config(1, 5.0))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = (asked.model or model_for(folder, rig)).absolute()
        if asked.faults:
            faults(model, rig, folder, asked.drives)
            return
        rates, start_s = throughput(model, folder, asked.images)
        one = overhead(model, rig, folder, asked.rounds)
        written_s = journal_s(folder)
    table = Table("what", "found", title=f"{os.cpu_count()} cores, {asked.model or 'tiny'}")
    more = one["fleet_s"] / one["plain_s"] - 1
    rows = {
        "1 worker, images/s": f"{rates[1]:.1f}",
        "2 workers, images/s": f"{rates[2]:.1f}",
        "2 workers beside 1": f"{rates[2] / rates[1]:.2f}",
        f"unim2 segment, one drive of {one['frames']:.0f} images, s": f"{one['plain_s']:.3f}",
        "the same by a fleet of one process, s": f"{one['fleet_s']:.3f}",
        "overhead": f"{100 * more:+.1f} %",
        "start of a worker, s": f"{start_s:.2f}",
        "driver, for each drive, ms": f"{1e3 * written_s:.2f}",
    }
    for what, value in rows.items():
        table.add_row(what, value)
    console.print(table)
    if asked.json:
        write_json(
            asked.json,
            {
                "what": f"benchmarks/fleet.py, {os.cpu_count()} cores",
                "core_s_per_image": one["plain_s"] / one["frames"] * (os.cpu_count() or 1),
                "worker_start_s": start_s,
                "driver_s_per_drive": written_s,
                "output_mb_per_image": one["bytes"] / one["frames"] / 1e6,
                "workers_2_beside_1": rates[2] / rates[1],
                "overhead": more,
            },
        )


if __name__ == "__main__":
    main()
