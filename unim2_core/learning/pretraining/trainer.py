"""Pre-train the small transformer: resumable, and the same whatever interrupts it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from unim2_core.errors import ModelError
from unim2_core.learning.checkpointing import (
    facts_of,
    load_checkpoint,
    remove_unfinished,
    save_checkpoint,
)
from unim2_core.learning.hardware import Device, Precision, resolve_device, resolve_precision
from unim2_core.learning.observers import Observer, Progress, Status
from unim2_core.learning.pretraining.objective import (
    TARGETS,
    PretrainObjective,
    PretrainWeights,
)
from unim2_core.learning.pretraining.pictures import PixelStore
from unim2_core.learning.pretraining.views import ViewDraw, Views
from unim2_core.model.tiny import TinyBackbone
from unim2_core.sensing.modalities import MODALITIES

Measure = Callable[[TinyBackbone], Mapping[str, float]]

STATISTICS = 128
"""Images that means and deviations are taken from."""
WEIGHT_DECAY = 0.05


@dataclass(frozen=True)
class PretrainConfig:
    """How the small transformer is trained.

    Attributes:
        steps: number of batches.
        batch: pairs of crops in each.
        rate: learning rate, of AdamW and of Muon at AdamW's scale.
        warmup: share of the steps in which the rate rises; after that it falls as a cosine.
        assigned_from: share of the steps before prototypes count.
        clip_norm: gradients are shortened to this norm.
        decay: of the teacher, at the beginning and in the end.
        seed: of all draws.
        checkpoint_every: steps between states to go on from.
        log_every: steps between scalars in the logs.
        measure_every: steps between measurements; 0 = none; after the last step there is none.
        device: ``auto`` is the GPU where there is one.
        precision: of the matrix products; ``auto`` is bf16 where the machine has it.
        weights: of the losses.
    """

    steps: int
    batch: int = 32
    rate: float = 2e-3
    warmup: float = 0.03
    assigned_from: float = 0.15
    clip_norm: float = 3.0
    decay: tuple[float, float] = (0.99, 0.998)
    seed: int = 0
    checkpoint_every: int = 500
    log_every: int = 50
    measure_every: int = 0
    device: Device = "auto"
    precision: Precision = "auto"
    weights: PretrainWeights = field(default_factory=PretrainWeights)

    def __post_init__(self) -> None:
        checks = {
            "steps": (self.steps >= 1, "at least 1"),
            "batch": (self.batch >= 1, "at least 1"),
            "rate": (0 < self.rate < math.inf, "a positive number"),
        }
        for name, (holds, expected) in checks.items():
            if not holds:
                raise ModelError(
                    f"the pre-training cannot be set up: {name}",
                    expected=expected,
                    found=repr(getattr(self, name)),
                )

    def multiplier(self, step: int) -> float:
        """What the rate is multiplied with in a step, from 0."""
        warm = max(1, round(self.warmup * self.steps))
        if step < warm:
            return (step + 1) / warm
        return (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm))) / 2

    def assigned(self, step: int) -> float:
        """What the loss of the prototypes is multiplied with in a step, from 0."""
        begin = self.assigned_from * self.steps
        return min(1.0, max(0.0, (step - begin) / max(1.0, 0.05 * self.steps)))

    def teacher_decay(self, step: int) -> float:
        """How much of the teacher stays in a step, from 0."""
        done = (1 - math.cos(math.pi * step / self.steps)) / 2
        return self.decay[0] + (self.decay[1] - self.decay[0]) * done


NO_INFLUENCE = {"checkpoint_every", "log_every", "measure_every", "device"}


def pretrain(
    store: PixelStore,
    config: PretrainConfig,
    run: Path,
    *,
    start: TinyBackbone | None = None,
    observers: Sequence[Observer] = (),
    measure: Measure | None = None,
    facts: Mapping[str, object] | None = None,
) -> TinyBackbone:
    """Train, or go on where a run directory says.

    Args:
        store: the pictures.
        config: how.
        run: directory of the state.
        start: the weights to begin with; None = random ones.
        observers: told how it goes.
        measure: figures of the backbone as it is now, for the logs.
        facts: what else decides the weights, say a digest of the pictures.

    Returns:
        The backbone, on the CPU; its channels are standardized over the pictures.

    Raises:
        ModelError: a loss is not finite; the run directory holds another training; torch lacks
            the optimiser.
        Unim2Error: nothing can be written to ``run``.
    """
    device = resolve_device(config.device)
    precision = resolve_precision(config.precision, device)
    backbone = start or TinyBackbone.untrained(config.seed)
    training = _Training(backbone, store, config, device, precision)
    settings = {name: value for name, value in asdict(config).items() if name not in NO_INFLUENCE}
    decisive = facts_of(pretraining=settings | {"precision": precision}, data=dict(facts or {}))
    remove_unfinished(run)
    state = load_checkpoint(run, decisive)
    if state is not None:
        training.load(state)
    _run(training, store, config, run, decisive, observers, measure)
    made = training.backbone()
    made.mean, made.scale = statistics(made.raw, store)
    return made


def _run(
    training: _Training,
    store: PixelStore,
    config: PretrainConfig,
    run: Path,
    facts: Mapping[str, Any],
    observers: Sequence[Observer],
    measure: Measure | None,
) -> None:
    draw = ViewDraw(store, config.batch, TinyBackbone.patch_size, config.seed)
    first, began = training.done, time.monotonic()
    started: list[Observer] = []
    status: Status = "failed"
    try:
        for observer in observers:
            observer.start(facts, first)
            started.append(observer)
        for views in draw.ahead(training.done, config.steps, training.helpers):
            log = training.step(views)
            done, left = training.done, config.steps - training.done
            scalars: dict[str, float] = {}
            if done % config.log_every == 0 or not left:
                scalars = {f"loss/{name}": value for name, value in log.items()}
            every = config.measure_every
            if measure is not None and every and left and done % every == 0:
                scalars |= measure(training.backbone())
            seconds = (time.monotonic() - began) / (done - first) * left
            for observer in started:
                if scalars:
                    observer.scalars(done, scalars)
                observer.progress(Progress(done, config.steps, log["total"], seconds))
            if done % config.checkpoint_every == 0 or not left:
                save_checkpoint(run, facts, training.state())
        status = "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        for observer in started:
            observer.close(status)


class _Training:
    """The objective and its optimisers between two steps."""

    def __init__(
        self,
        backbone: TinyBackbone,
        store: PixelStore,
        config: PretrainConfig,
        device: str,
        precision: str,
    ) -> None:
        mean, scale = statistics(backbone.texture, store)  # the transformer is not looked at
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.objective = PretrainObjective(
                backbone.transformer,
                len(store.modalities),
                config.weights,
                mean[:TARGETS],
                scale[:TARGETS],
                bf16=precision == "bf16",
            ).to(device)
        self.config, self.device, self.done = config, device, 0
        # A GPU takes a step faster than one core draws its pairs.
        self.helpers = 0 if device == "cpu" else max(1, (os.cpu_count() or 1) - 1)
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for name, p in self.objective.named_parameters():
            if p.requires_grad:
                inner = name.startswith("student.blocks") and p.ndim == 2
                (matrices if inner else others).append(p)
        if not hasattr(torch.optim, "Muon"):
            raise ModelError(
                "this torch cannot pre-train",
                expected="torch 2.9 or newer, which has the optimiser Muon",
                found=torch.__version__,
                remedy="pip install --upgrade torch, in an environment of its own on a Jetson",
            )
        self.optimizers: tuple[torch.optim.Optimizer, ...] = (
            torch.optim.Muon(
                matrices,
                lr=config.rate,
                weight_decay=WEIGHT_DECAY,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(others, lr=config.rate, weight_decay=WEIGHT_DECAY),
        )

    def step(self, views: Views) -> dict[str, float]:
        """Take a step; returns the losses."""
        config = self.config
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
            for group in optimizer.param_groups:
                group["lr"] = config.rate * config.multiplier(self.done)
        total, log = self.objective(
            Views(*(part.to(self.device) for part in views)), config.assigned(self.done)
        )
        if not total.isfinite():
            raise ModelError(
                f"the loss of step {self.done} is not a number",
                expected="finite losses",
                found=", ".join(f"{name} {float(value.detach())}" for name, value in log.items()),
                remedy="a lower --rate, into another --run; the last state is kept",
            )
        total.backward()
        clip_grad_norm_(self.objective.parameters(), config.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        self.objective.follow(config.teacher_decay(self.done))
        self.done += 1
        return {name: float(value.detach()) for name, value in {"total": total, **log}.items()}

    def backbone(self) -> TinyBackbone:
        """What has been learnt: the teacher, which is the smoother of the two."""
        made = TinyBackbone()
        made.transformer.load_state_dict(self.objective.teacher.state_dict())
        return made

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "step": self.done,
            "objective": self.objective.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.objective.load_state_dict(state["objective"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.done = state["step"]


@torch.no_grad()
def statistics(features: Callable[[Tensor], Tensor], store: PixelStore) -> tuple[Tensor, Tensor]:
    """Mean and 1 / deviation of each channel, (D,) float32, over some whole images.

    Args:
        features: (1, 3, H, W) normalised -> (1, h, w, D).
        store: the pictures; ``STATISTICS`` of all modalities are looked at, spread evenly.
    """
    there = np.argwhere(store.there)
    chosen = there[np.linspace(0, len(there) - 1, min(STATISTICS, len(there))).astype(int)]
    normal = MODALITIES["rgb"]
    count, total, squares = 0, torch.zeros(2, 1), torch.zeros(1)
    for row, modality in chosen:
        pixels = normal.normalize(store.images[row, modality])
        raw = features(torch.from_numpy(pixels)[None])[0].flatten(0, 1).double()
        if not count:
            total, squares = torch.zeros_like(raw[0]), torch.zeros_like(raw[0])
        count += len(raw)
        total, squares = total + raw.sum(0), squares + raw.square().sum(0)
    mean = total / count
    deviation = (squares / count - mean.square()).clamp(min=0).sqrt()
    # What hardly varies is not blown up to the weight of what does.
    scale = 1 / deviation.clamp(min=1e-3)
    return mean.float(), scale.float()
