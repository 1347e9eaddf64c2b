"""How much faster a training step is for having computed the frozen features once.

    python benchmarks/training_step.py             # about five minutes on two cores
    python benchmarks/training_step.py --rounds 1  # a first look

A step is all that the trainer does: batch from the store on disk, draws, forward, backward, Adam,
average of the weights. Batch 32, ViT-S/16, 224 pixels (14 x 14 tokens), two modalities, K = 13,
d = 70. ``robot`` runs the network on 121 places of each picture. ``labelled`` also trains the
linear probe, on labels of 224 x 224; it only measures, nothing else learns from them.

Beside it, the same step in fp32 with the backbone run as the release does: on the anchors and
then on the positives of one modality after another, fp32, without gradient (images are not read
or resized for it, though the release does that in each step, too).
All is timed in turns, together with the plain matrix product, which says what the processor gave
at that time. The weights are random: they do not change the time.

Memory: what the process itself holds at most in its first steps, on stores of different length;
pages of the store, which the system keeps as long as nobody else needs the room, are not in it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch
from machine import gflops, matrix_product, peak_mib, seconds_of
from rich.console import Console
from rich.table import Table

from unim2_core.learning.feature_files import FeatureFiles, FeatureWriter, RecordLayout, Row
from unim2_core.learning.features import FeatureStore, Standardization
from unim2_core.learning.hardware import Precision, open_machine
from unim2_core.learning.methods import recipe
from unim2_core.learning.objective import Objective
from unim2_core.learning.pairs import Batches
from unim2_core.learning.training import Training
from unim2_core.model.backbone import BACKBONES, DinoV3
from unim2_core.sensing.modalities import Preset

MODALITIES = ("rgb", "thermal")
BATCH, PIXELS, CLUSTERS, CODE_DIM = 32, 224, 13, 70
LAYOUT = RecordLayout(MODALITIES, (14, 14), 384, (PIXELS, PIXELS))
NEIGHBORS = 7
KINDS: dict[str, tuple[Preset, bool]] = {
    "paper": ("paper", False),
    "paper, labelled": ("paper", True),
    "robot": ("robot", False),
}
"""Name -> preset, and whether there are labels."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
STEPS = 5
"""Steps of each kind in a round, and before memory is looked at."""
LENGTHS = (250, 2000)
"""Pictures of the stores that memory is compared on."""
PROCESSES = 3
"""Processes in which memory is looked at: from one to the next it differs by a tenth."""
WRITTEN = 50
"""Records that are written at once."""


def write_store(folder: Path, pictures: int) -> None:
    """Write random features to disk."""
    rng = np.random.default_rng(0)
    files = FeatureFiles(folder, LAYOUT)
    with FeatureWriter(files, files.read_journal(), pictures) as writer:
        for first in range(0, pictures, WRITTEN):
            records = np.zeros(WRITTEN, LAYOUT.record)
            for name in MODALITIES:
                shape = (WRITTEN, *LAYOUT.grid, LAYOUT.dim)
                records[f"tokens/{name}"] = rng.standard_normal(shape, np.float32)
                records[f"presence/{name}"] = True
            records["labels"] = rng.integers(CLUSTERS, size=(WRITTEN, PIXELS, PIXELS))
            rows = [Row(str(number), number, 0, -1) for number in range(first, first + WRITTEN)]
            writer.write(first, records, rows)
        writer.finish(pictures)


def open_store(folder: Path) -> FeatureStore:
    """Open what was written, memory-mapped."""
    files = FeatureFiles(folder, LAYOUT)
    return files.store(files.read_journal(), None)


def training(store: FeatureStore, kind: str, precision: Precision) -> Training:
    """A training at its first step."""
    preset, labels = KINDS[kind]
    made = recipe("unim2", MODALITIES, LAYOUT.dim, CLUSTERS, preset=preset)
    objective = Objective(replace(made.network, code_dim=CODE_DIM), made.objective, made.clusters)
    rows = np.random.default_rng(0).integers(len(store), size=(len(store), NEIGHBORS))
    batches = Batches(
        store,
        rows,
        Standardization.identity(len(MODALITIES), LAYOUT.dim),
        batch=BATCH,
        samples=made.samples,
        labels=labels,
    )
    trainer = replace(made.trainer, precision=precision, device="cpu")
    return Training(objective, batches, trainer, open_machine("cpu", precision))


def backbone_of_the_release() -> Callable[[], None]:
    """What the release does in each step to have the features of a batch."""
    backbone = DinoV3(BACKBONES["dinov3_vits16"]).eval()
    images = torch.rand(BATCH, 3, PIXELS, PIXELS)

    @torch.no_grad()
    def run() -> None:
        for _ in MODALITIES:
            for _ in ("anchors", "positives"):
                backbone(images)

    return run


def peak_of_steps(folder: Path, kind: str) -> float:
    """The most memory that a process needs to take some steps, MiB."""
    started = training(open_store(folder), kind, "fp32")

    def take() -> None:
        for _ in range(STEPS):
            started.step()

    return peak_mib(take)


def measured(rounds: int, store: FeatureStore) -> dict[str, float]:
    """Median seconds of everything, taken in turns."""
    parts: dict[str, tuple[Callable[[], object], int]] = {
        "product fp32": (matrix_product(torch.float32), 5),
        "product bf16": (matrix_product(torch.bfloat16), 5),
        "backbone": (backbone_of_the_release(), 1),
    }
    for kind in KINDS:
        for precision in PRECISIONS:
            step = training(store, kind, precision).step
            step()  # libraries choose their kernels
            parts[f"{kind} {precision}"] = (step, STEPS)
    taken: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds):
        for name, (run, times) in parts.items():
            taken[name].append(seconds_of(run, times))
    return {name: median(values) for name, values in taken.items()}


def table_of(seconds: dict[str, float]) -> Table:
    """Steps beside the release's."""
    products = [f"{p} {gflops(seconds[f'product {p}']):.0f} GFLOP/s" for p in PRECISIONS]
    table = Table(
        title=f"{torch.get_num_threads()} threads; matrix product " + ", ".join(products)
    )
    for heading in (
        "training",
        "step",
        "ms",
        "with the backbone in each step, ms",
        "times faster",
    ):
        table.add_column(heading, justify="left" if heading in ("training", "step") else "right")
    for kind in KINDS:
        release = seconds["backbone"] + seconds[f"{kind} fp32"]
        for precision in PRECISIONS:
            ours = seconds[f"{kind} {precision}"]
            table.add_row(
                kind,
                precision,
                f"{1e3 * ours:.0f}",
                f"{1e3 * release:.0f}",
                f"{release / ours:.1f}",
            )
    return table


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="times that all is measured")
    options = parser.parse_args()
    console = Console()
    memory = Table(title="most memory, MiB")
    for heading in ("training", *(f"{pictures} pictures" for pictures in LENGTHS)):
        memory.add_column(heading, justify="left" if heading == "training" else "right")
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch) / str(pictures) for pictures in LENGTHS]
        for folder, pictures in zip(folders, LENGTHS, strict=True):
            write_store(folder, pictures)
        console.print(table_of(measured(options.rounds, open_store(folders[0]))))
        for kind in KINDS:
            peaks = [
                sorted(_in_a_new_process(folder, kind) for _ in range(PROCESSES))
                for folder in folders
            ]
            memory.add_row(kind, *(f"{found[0]:.0f} to {found[-1]:.0f}" for found in peaks))
    console.print(memory)


def _in_a_new_process(folder: Path, kind: str) -> float:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(peak_of_steps, folder, kind).result()


if __name__ == "__main__":
    main()
