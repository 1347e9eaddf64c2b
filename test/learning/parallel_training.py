"""Run by torchrun: what one of several processes does in a test."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from training_samples import TRAINING, batches, objective

from unim2_core.learning.hardware import Process, open_machine
from unim2_core.learning.objective import Batch
from unim2_core.learning.trainer import train
from unim2_core.learning.training import Training

STEPS = 3
DEATH = 8
"""Step in which a process dies; the last checkpoint before is that of step 6."""


def gradients(folder: Path) -> None:
    """Save the gradients of the first steps."""
    rank = Process.current().rank
    machine = open_machine("cpu", "fp32")
    training = Training(objective(), lambda step: batches(step, rank=rank), TRAINING, machine)
    found = []
    for _ in range(STEPS):
        training.step()
        named = training.objective.named_parameters()
        found.append({name: p.grad.clone() for name, p in named if p.grad is not None})
    torch.save(found, folder / f"gradients-{rank}.pt")
    torch.distributed.destroy_process_group()


def dying(folder: Path) -> None:
    """Train; process 1 is killed in its first life."""
    rank, marks = Process.current().rank, folder / f"lives-{Process.current().rank}"
    marks.mkdir(exist_ok=True)
    life = len(list(marks.iterdir()))
    asked: list[int] = []

    def mortal(step: int) -> Batch:
        asked.append(step)
        if rank == 1 and life == 0 and step == DEATH:
            os.kill(os.getpid(), signal.SIGKILL)
        return batches(step, rank=rank)

    (marks / str(life)).touch()
    model = objective()
    train(model, mortal, TRAINING, folder / "run")
    (marks / str(life)).write_text(str(asked[0]))
    torch.save(model.state_dict(), folder / f"weights-{rank}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"gradients": gradients, "dying": dying}[sys.argv[1]](Path(sys.argv[2]))
