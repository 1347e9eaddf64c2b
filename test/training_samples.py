"""A tiny training for tests; run as a program, it is one that can be killed."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from unim2_core.learning.correspondence import CorrespondenceConfig, Shifts
from unim2_core.learning.hardware import Process
from unim2_core.learning.objective import (
    Batch,
    ModalityLoss,
    Objective,
    ObjectiveConfig,
    TermWeights,
)
from unim2_core.learning.trainer import TrainerConfig, train
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


def batches(step: int, *, rank: int = 0, labels: bool = False) -> Batch:
    """The batch of a step, of four images."""
    generator = torch.Generator().manual_seed(1000 * rank + step)

    def features() -> dict[str, Tensor]:
        return {n: torch.randn(4, 8, 4, 4, generator=generator) for n in NETWORK.modalities}

    marks = torch.randint(0, CLASSES, (4, 8, 8), generator=generator) if labels else None
    return Batch(features(), features(), marks)._replace(indices=torch.arange(4) + 4 * step)


if __name__ == "__main__":
    from unim2_core.learning.observers import open_observers

    torch.set_num_threads(1)
    run = Path(sys.argv[1])
    process = Process.current()
    trained = train(
        objective(),
        lambda step: batches(step, rank=process.rank),
        FULL,
        run,
        observers=open_observers(run),
    )
    print(f"rank {process.rank} resumed from {trained.resumed_from}")
