"""Run by torchrun: what one of several processes does in a test."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from training_samples import ALONE, CLASSES, CONFIG, NETWORK, TRAINING, batches, objective

from unim2_core.learning.correspondence import CorrespondenceConfig
from unim2_core.learning.group import Group
from unim2_core.learning.hardware import Process, open_machine
from unim2_core.learning.objective import Batch
from unim2_core.learning.observers import open_observers
from unim2_core.learning.trainer import train
from unim2_core.learning.training import Training

STEPS = 3
DEATH = 8
"""Step in which a process dies; the last checkpoint before is that of step 6."""


CONFIGS = {
    "maps": replace(
        CONFIG,
        correspondence=CorrespondenceConfig(samples=3, negatives=2, weighting="tanh"),
        reconstruction=0.5,
        alpha=3.0,
    ),
    "cells": replace(
        CONFIG,
        correspondence=CorrespondenceConfig(
            samples=4, negatives=3, cells=True, distinct_sources=True
        ),
        modality_dropout=0.4,
    ),
    "joint": replace(CONFIG, joint=True),
}
IMAGES = 5


def varied(step: int, name: str, process: Process = ALONE) -> Batch:
    """A batch of five images, or a process's part: no two processes have equally much of all.

    Unequal shares of images, of places that are seen, and of pixels that are labelled.
    """
    generator = torch.Generator().manual_seed(100 + step)
    own = Group(process.rank, process.world, IMAGES).own
    maps = [
        {n: torch.randn(IMAGES, 8, 4, 4, generator=generator) for n in NETWORK.modalities}
        for _ in range(2)
    ]
    seen = [
        {n: (torch.rand(IMAGES, 4, 4, generator=generator) < 0.7).float() for n in maps[0]}
        for _ in range(2)
    ]
    labels = torch.randint(0, CLASSES, (IMAGES, 8, 8), generator=generator)
    labels[0] = labels[-1, :5] = 255
    part = [{n: value[own] for n, value in each.items()} for each in (*maps, *seen)]
    return Batch(
        part[0],
        part[1],
        labels=labels[own] if name != "cells" else None,
        presence=(part[2], part[3]) if name != "maps" else None,
        sources=torch.tensor([0, 0, 1, 2, 3]),
        indices=torch.arange(IMAGES)[own],
        total=IMAGES,
    )


def gradients(folder: Path) -> None:
    """Save the gradients of the first steps, of every form of the loss."""
    process = Process.current()
    machine = open_machine("cpu", "fp32")
    for name, config in CONFIGS.items():
        training = Training(
            objective(config=config),
            lambda step, name=name: varied(step, name, process),  # type: ignore[misc]
            TRAINING,
            machine,
        )
        found = []
        for _ in range(STEPS):
            training.step()
            named = training.objective.named_parameters()
            found.append({n: p.grad.clone() for n, p in named if p.grad is not None})
        training.close()
        torch.save(found, folder / f"{name}-{process.rank}.pt")
    machine.close()


def dying(folder: Path) -> None:
    """Train; process 1 is killed in its first life."""
    process = Process.current()
    rank, marks = process.rank, folder / f"lives-{process.rank}"
    marks.mkdir(exist_ok=True)
    life = len(list(marks.iterdir()))
    asked: list[int] = []

    def mortal(step: int) -> Batch:
        asked.append(step)
        if rank == 1 and life == 0 and step == DEATH:
            os.kill(os.getpid(), signal.SIGKILL)
        return batches(step, process=process)

    (marks / str(life)).touch()
    model = objective()
    train(model, mortal, TRAINING, folder / "run")
    (marks / str(life)).write_text(str(asked[0]))
    torch.save(model.state_dict(), folder / f"weights-{rank}.pt")


def interrupted(folder: Path) -> None:
    """Train, look at pictures on the way, and stop before the eighth step."""
    process, run = Process.current(), folder / "run"
    config = replace(TRAINING, pictures_every=3)

    def stopping(step: int) -> Batch:
        if step == DEATH - 1:
            raise KeyboardInterrupt
        return batches(step, process=process)

    with suppress(KeyboardInterrupt):
        train(objective(), stopping, config, run, observers=open_observers(run))


if __name__ == "__main__":
    torch.set_num_threads(1)
    programs = {"gradients": gradients, "dying": dying, "interrupted": interrupted}
    programs[sys.argv[1]](Path(sys.argv[2]))
