"""What a training does when: rates, checkpoints, candidates, what is written into the logs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from unim2_core.errors import ModelError
from unim2_core.learning.hardware import Device, Precision

Schedule = Literal["constant", "cosine"]


@dataclass(frozen=True)
class TrainerConfig:
    """How an objective is minimised; the defaults are the paper's.

    Attributes:
        steps: number of batches.
        rate: learning rate of the network; the probes have their own, ``objective.PROBE_RATE``.
        warmup_steps: steps in which the network's rate rises linearly from zero.
        schedule: what the rates do after that, see ``rate_multipliers``.
        clip_norm: the network's gradient is shortened to this norm; None = never.
        ema_decay: of the moving average of the weights, which is then what is served; 0 = none.
        precision: of the network's matrix products; ``auto`` is bf16 where the machine has it.
        device: ``auto`` is the GPU where there is one.
        seed: of what is drawn in each step.
        checkpoint_every: steps between states to go on from.
        candidates: number of snapshots, spread evenly; the last step is always one of them.
        log_every: steps between scalars in the logs.
        validate_every: steps between validations; 0 = only after the last step.
        pictures_every: steps between histograms and pictures; 0 = only after the last step.
        reset_probes_at: number of steps after which the probes begin anew; None = never.
    """

    steps: int
    rate: float
    warmup_steps: int = 0
    schedule: Schedule = "constant"
    clip_norm: float | None = None
    ema_decay: float = 0.0
    precision: Precision = "fp32"
    device: Device = "auto"
    seed: int = 0
    checkpoint_every: int = 500
    candidates: int = 20
    log_every: int = 20
    validate_every: int = 0
    pictures_every: int = 0
    reset_probes_at: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoint_every", "log_every"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        for name in ("validate_every", "pictures_every", "seed"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        self._require("rate", 0 < self.rate < math.inf, "a positive number")
        self._require("warmup_steps", 0 <= self.warmup_steps < self.steps, "0 to steps - 1")
        positive = self.clip_norm is None or 0 < self.clip_norm < math.inf
        self._require("clip_norm", positive, "a positive number or nothing")
        self._require("ema_decay", 0 <= self.ema_decay < 1, "at least 0 and less than 1")
        self._require("candidates", 1 <= self.candidates <= self.steps, "1 to steps")
        for name, kinds in (("schedule", Schedule), ("precision", Precision), ("device", Device)):
            known = get_args(kinds)
            self._require(name, getattr(self, name) in known, f"one of {', '.join(known)}")
        within = self.reset_probes_at is None or 0 < self.reset_probes_at < self.steps
        self._require("reset_probes_at", within, "1 to steps - 1, or nothing")

    def _require(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise ModelError(
                f"the training cannot be set up: {name}",
                expected=expected,
                found=repr(getattr(self, name)),
            )

    @property
    def candidate_steps(self) -> tuple[int, ...]:
        """After how many steps a snapshot is taken."""
        return tuple(round(self.steps * (i + 1) / self.candidates) for i in range(self.candidates))

    def due(self, done: int, every: int) -> bool:
        """Whether what happens at every so many steps, and after the last, happens now."""
        return done == self.steps or (every > 0 and done % every == 0)


def rate_multipliers(config: TrainerConfig, step: int) -> tuple[float, float]:
    """What the rates are multiplied with in a step.

    The warm-up is for the network alone: probes start from noise and cannot be led astray. A
    cosine goes to zero after the last step for the probes, too, so that the centres come to rest
    together with the codes; with ``constant`` both keep their rates, as in the paper.

    Args:
        config: of the training.
        step: number of the step, from 0.

    Returns:
        Of the network and of the probes, each in (0, 1].
    """
    decay = 1.0
    if config.schedule == "cosine" and step >= config.warmup_steps:
        done = (step - config.warmup_steps) / (config.steps - config.warmup_steps)
        decay = (1 + math.cos(math.pi * done)) / 2
    warmup = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return warmup * decay, decay
