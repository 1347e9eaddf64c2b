"""What it costs to learn from a fleet's features where they lie.

    python benchmarks/shards.py                      # 8 synthetic drives, an S3 server of its own
    python benchmarks/shards.py --place s3://robots/features --bag drive --rig rig.yaml

The first prints steps a second of the same training from the cache of all drives, from shards on
this disk, and from shards behind an S3 server on this machine; and the bytes that each of two
processes of torchrun reads of it, of all bytes. The server is a test server in Python, so what
comes out for S3 is a floor. With ``--place`` shards that are there are measured.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from unim2_core.cli.console import aside
from unim2_core.cli.fleet_jobs import FeaturesJob
from unim2_core.cli.training import features_of, fleet_of
from unim2_core.data.drive_pictures import DrivePictures, encodings_of
from unim2_core.data.synthetic import DriveConfig, default_rig, write_drive
from unim2_core.fleet.alone import run_alone
from unim2_core.fleet.drives import list_drives
from unim2_core.fleet.transfer import Place
from unim2_core.fleet.work import Task
from unim2_core.learning.hardware import Process
from unim2_core.learning.learner import Learner
from unim2_core.learning.methods import recipe
from unim2_core.learning.shard_places import RemoteRecords
from unim2_core.learning.shards import Fleet
from unim2_core.model.frozen import TINY, FrozenBackbone
from unim2_core.sensing.rig import Rig

SENSORS = ("rgb", "thermal")
BATCHES, WARM = 10, 3
console = Console(width=140)


@dataclass(frozen=True)
class Asked:
    """What is trained: the drives at hand, and how."""

    bags: tuple[Path, ...]
    rig: Rig
    cache: Path
    steps: int
    backbone: str = TINY
    frames: int = 100

    def pictures(self, backbone: FrozenBackbone) -> DrivePictures:
        """Those at hand."""
        return DrivePictures(
            self.bags,
            self.rig,
            encodings_of(SENSORS),
            patch_size=backbone.patch_size,
            frames=self.frames,
        )

    def compute(self) -> None:
        """Have the features of the pictures at hand in the cache."""
        backbone = FrozenBackbone(self.backbone)
        features_of(self.pictures(backbone), backbone, self.cache)

    def learner(self, place: str | None) -> tuple[Learner, Fleet | None]:
        """A learner of the drives at hand, and of the shards of a place."""
        backbone = FrozenBackbone(self.backbone)
        pictures = self.pictures(backbone)
        made = recipe(
            "unim2", SENSORS, backbone.embed_dim, 8, steps=self.steps, baseline=True, device="cpu"
        )
        made = replace(made, trainer=replace(made.trainer, checkpoint_every=self.steps))
        fleet = fleet_of([place], pictures, backbone) if place else None
        store = features_of(pictures, backbone, self.cache)
        return Learner(store, made, fleet), fleet


def config(seed: int, seconds: float) -> DriveConfig:
    """A small synthetic drive."""
    return DriveConfig(
        seed=seed,
        duration_s=seconds,
        rate_hz=4.0,
        width=320,
        height=240,
        sensors=SENSORS,
        dropout=0.0,
    )


@contextmanager
def s3_server(folder: Path) -> Iterator[None]:
    """An S3 server on this machine, with a bucket ``robots``."""
    import s3fs

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    os.environ |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    with (folder / "server.log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.1)
        s3fs.S3FileSystem().mkdir("robots")
        yield
    finally:
        server.kill()
        server.wait()


def write_shards(asked: Asked, drives: Sequence[Path], out: Path) -> None:
    """As ``unim2 fleet features`` does."""
    job = FeaturesJob(asked.rig, SENSORS, asked.backbone, frames=asked.frames)
    tasks = [Task(drive) for drive in list_drives([str(path) for path in drives])]
    for outcome in run_alone(tasks, job, Place(out)):
        assert outcome.status == "done", outcome.reason


def measured(asked: Asked, place: str | None, run: Path) -> list[str]:
    """Pictures, seconds until the first step, milliseconds of a batch, and steps a second."""
    with aside():
        asked.compute()
        began = time.perf_counter()
        learner, _ = asked.learner(place)
        objective = learner.objective()
    ready = time.perf_counter() - began
    batches = learner.batches()
    batches(0)
    began = time.perf_counter()
    for step in range(1, BATCHES + 1):
        batches(step)
    batch = (time.perf_counter() - began) / BATCHES
    trained = learner.train(objective, run)
    rate = asked.steps / trained.seconds
    return [str(len(learner.all)), f"{ready:.2f}", f"{1e3 * batch:.0f}", f"{rate:.2f}"]


def read_by(fleet: Fleet) -> int:
    """Bytes of records that this process has read behind addresses."""
    readers = [shard.records for shard in fleet.shards]
    return sum(reader.bytes_read for reader in readers if isinstance(reader, RemoteRecords))


def as_one_of_several(asked: Asked, place: str, folder: Path) -> None:
    """What a process of torchrun does; says what it has read."""
    with aside():
        learner, fleet = asked.learner(place)
        assert fleet is not None
        objective = learner.objective()
    before = read_by(fleet)
    learner.train(objective, folder / "run")
    size = sum(len(shard) * shard.facts.layout.record.itemsize for shard in fleet.shards)
    said = {"before": before, "steps": read_by(fleet) - before, "all": size}
    (folder / f"{Process.current().rank}.json").write_text(json.dumps(said))


def print_processes(words: Sequence[str], place: str, folder: Path) -> None:
    """Run this program under torchrun, and print what each process has read."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", __file__, *words, "--part-of", str(folder)]
    subprocess.run([*command, "--place", place], check=True, env=os.environ | _threads())
    table = Table("process", "MB before the first step", "MB a step", "of all, before the steps")
    table.caption = (
        "process 0 also reads what standardisation and shifts are taken from: some hundred "
        "pictures, however many there are"
    )
    for rank in (0, 1):
        said = json.loads((folder / f"{rank}.json").read_text())
        steps = int(words[words.index("--steps") + 1])
        table.add_row(
            str(rank),
            f"{said['before'] / 1e6:.1f}",
            f"{said['steps'] / 1e6 / steps:.2f}",
            f"{100 * said['before'] / said['all']:.0f} % of {said['all'] / 1e6:.1f} MB",
        )
    console.print(table)


def _threads() -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) // 2))}


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--drives", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a drive, 4 images each")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--place", help="shards that are there")
    parser.add_argument("--bag", type=Path, help="a drive to be judged by, beside --place")
    parser.add_argument("--rig", type=Path, help="its rig")
    parser.add_argument("--backbone", default=TINY)
    parser.add_argument("--cache", type=Path, help="for its features")
    parser.add_argument("--part-of", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    rig = Rig.load(given.rig) if given.rig else default_rig(config(0, given.seconds))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bag, cache = given.bag or folder / "d00", given.cache or folder / "cache"
        asked = Asked((bag,), rig, cache, given.steps, given.backbone)
        if given.part_of:
            as_one_of_several(asked, given.place, given.part_of)
            return
        words = ["--bag", str(bag), "--cache", str(cache), "--steps", str(given.steps)]
        words += ["--backbone", given.backbone]
        words += ["--rig", str(given.rig)] if given.rig else ["--seconds", str(given.seconds)]
        if given.place:
            print_rates([("shards", asked, given.place)], folder)
            print_processes(words, given.place, folder)
            return
        drives = [folder / f"d{number:02}" for number in range(given.drives)]
        for number, drive in enumerate(drives):
            write_drive(drive, config(number, given.seconds))
        write_shards(asked, drives[1:], folder / "fleet")
        every = replace(asked, bags=tuple(drives))
        with s3_server(folder):
            import s3fs

            s3fs.S3FileSystem().put(f"{folder}/fleet/drives/", "robots/drives/", recursive=True)
            kinds = [
                ("cache of all drives", every, None),
                ("shards on this disk", asked, str(folder / "fleet")),
                ("shards behind S3", asked, "s3://robots"),
            ]
            print_rates(kinds, folder)
            print_processes(words, "s3://robots", folder)


def print_rates(kinds: Sequence[tuple[str, Asked, str | None]], folder: Path) -> None:
    """Measure trainings, and print a line for each."""
    table = Table("features", "pictures", "s until the first step", "ms a batch", "steps/s")
    _, first, place = kinds[0]
    measured(replace(first, steps=WARM), place, folder / "warm")  # kernels are made at first use
    for index, (kind, asked, place) in enumerate(kinds):
        table.add_row(kind, *measured(asked, place, folder / f"run{index}"))
    console.print(table)


if __name__ == "__main__":
    main()
