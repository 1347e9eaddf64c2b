"""A tiny training for tests; run as a program, it is one of several processes."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unim2_core.learning.correspondence import CorrespondenceConfig, Shifts
from unim2_core.learning.group import Group
from unim2_core.learning.hardware import Process
from unim2_core.learning.objective import (
    Batch,
    ModalityLoss,
    Objective,
    ObjectiveConfig,
    StepDraws,
    TermWeights,
)
from unim2_core.learning.observers import open_observers
from unim2_core.learning.trainer import Trained, TrainerConfig, train
from unim2_core.model.segmenter import SegmenterConfig

NETWORK = SegmenterConfig(("rgb", "thermal"), feature_dim=8, code_dim=5)
CONFIG = ObjectiveConfig(
    {
        "rgb": ModalityLoss(0.3, TermWeights(0.1, 0.2, 0.9), Shifts(0.7, 0.5, 0.4)),
        "thermal": ModalityLoss(0.8, TermWeights(0.6, 0.3, 0.05), Shifts(0.1, 0.4, 0.2)),
    },
    CorrespondenceConfig(samples=3, negatives=2),
)
CLASSES = 6
ALONE = Process()
TRAINING = TrainerConfig(steps=12, rate=1e-2, checkpoint_every=3, candidates=4, log_every=2)
FULL = TrainerConfig(
    steps=40,
    rate=1e-2,
    warmup_steps=4,
    schedule="cosine",
    clip_norm=0.5,
    ema_decay=0.9,
    checkpoint_every=3,
    candidates=8,
    log_every=1,
    pictures_every=10,
    reset_probes_at=20,
    device="cpu",
)


def objective(network: SegmenterConfig = NETWORK, config: ObjectiveConfig = CONFIG) -> Objective:
    torch.manual_seed(3)
    return Objective(network, config, CLASSES)


def batches(step: int, *, labels: bool = False, process: Process = ALONE) -> Batch:
    """The batch of a step, of four images, or a process's part of it."""
    generator = torch.Generator().manual_seed(step)
    own = Group(process.rank, process.world, 4).own

    def features() -> dict[str, Tensor]:
        return {n: torch.randn(4, 8, 4, 4, generator=generator)[own] for n in NETWORK.modalities}

    marks = torch.randint(0, CLASSES, (4, 8, 8), generator=generator)[own] if labels else None
    rows = (torch.arange(4) + 4 * step)[own]
    return Batch(features(), features(), marks)._replace(indices=rows, total=4)


def draws_of(model: Objective, batch: Batch, step: int) -> StepDraws:
    """What is drawn in a step with seed 0, by the rule of the trainer written once more."""
    sequence = np.random.SeedSequence((0, step, 0, 0))
    number = int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))
    return model.draw(batch, generator=torch.Generator().manual_seed(number))


def run_in(run: Path, config: TrainerConfig = FULL) -> tuple[Objective, Trained]:
    """Train in a run directory; each process on its part of each batch."""
    torch.set_num_threads(1)
    process = Process.current()
    model = objective()
    observers = open_observers(run)
    return model, train(
        model, lambda step: batches(step, process=process), config, run, observers=observers
    )


def run_but_never_end(run: Path) -> None:
    """Train until somebody kills this process; the last step is never taken."""

    def endless(step: int) -> Batch:
        if step == FULL.steps - 1:
            time.sleep(600)
        return batches(step)

    torch.set_num_threads(1)
    train(objective(), endless, FULL, run, observers=open_observers(run))


def die_at(run: Path, function: str, call: int) -> None:
    """Train, and be killed in the n-th call of a function of the operating system."""
    original, calls = getattr(os, function), iter(range(1, sys.maxsize))

    def deadly(*args: object, **kwargs: object) -> object:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    setattr(os, function, deadly)
    run_in(run)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    number = Process.current().rank
    last, trained = run_in(folder / "run", TRAINING)
    torch.save(
        {"weights": last.state_dict(), "candidates": [c.step for c in trained.candidates]},
        folder / f"rank-{number}.pt",
    )
