"""The state of a training, and one step of it.

All that is drawn in a step depends on the seed and the step alone, so no generator is a part of
the state, and processes draw alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from unim2_core.learning.averaging import Average
from unim2_core.learning.diagnostics import not_finite
from unim2_core.learning.group import Group
from unim2_core.learning.hardware import Machine, network_in
from unim2_core.learning.objective import (
    Batch,
    Objective,
    StepDraws,
    build_optimizer,
    reset_probes,
)
from unim2_core.learning.schedule import TrainerConfig, rate_multipliers

PROBES = ("cluster_probe.", "linear_probe.")
STEP, RESET = 0, 1
"""What a seed is for."""


class Taken(NamedTuple):
    """A step that was taken.

    Attributes:
        batch: what with, on the device.
        draws: and what was drawn for it.
        loss: the total.
        log: all scalars of the objective.
        gradient_norm: of the network, before it was clipped.
        rates: of the network and of the probes.
    """

    batch: Batch
    draws: StepDraws
    loss: float
    log: Mapping[str, Tensor]
    gradient_norm: float
    rates: tuple[float, float]


class Training:
    """An objective, its optimiser and its average, between two steps.

    Args:
        objective: moved to the device and put into train mode.
        batches: gives the batch of a step, from 0.
        config: how to train.
        machine: where.

    Attributes:
        done: how many steps have been taken.
        average: of the weights, or None.
    """

    def __init__(
        self,
        objective: Objective,
        batches: Callable[[int], Batch],
        config: TrainerConfig,
        machine: Machine,
    ) -> None:
        self.objective = objective.train()
        self.batches = batches
        self.config = config
        self.machine = machine
        self.done = 0
        self.optimizer = build_optimizer(objective, config.rate)
        self._rates = [group["lr"] for group in self.optimizer.param_groups]
        self._model, self._stepper = machine.fabric.setup(objective, self.optimizer)
        self.average = Average(objective, config.ema_decay) if config.ema_decay else None

    def close(self) -> None:
        """End it: the objective is in eval mode, and the machine may be closed."""
        self.objective.eval()
        del self._model, self._stepper

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""
        return {
            "step": self.done,
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.values,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.objective.load_state_dict(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load(state["average"])
        self.done = state["step"]

    def step(self) -> Taken:
        """Take a step.

        Raises:
            ModelError: the loss or a gradient is not finite; no weight has been changed.
        """
        if self.done == self.config.reset_probes_at:
            self._reset_probes()
        rates = self._set_rates()
        batch, draws, group = self._drawn()
        self._stepper.zero_grad(set_to_none=True)
        with network_in(self.machine.precision, self.objective, self.machine.device):
            total, log = self._model(batch, draws, group)
        self.machine.fabric.backward(total)
        norm = self._checked_norm(batch, total, log)
        if self.config.clip_norm is not None:
            clip_grads_with_norm_(self._network, self.config.clip_norm, norm)
        self._stepper.step()
        self.done += 1
        if self.average is not None:
            self.average.update(self.objective, self.done)
        log = self._of_all(log)
        return Taken(batch, draws, float(log["loss/total"]), log, float(norm), rates)

    @property
    def _network(self) -> list[Tensor]:
        parameters: list[Tensor] = self.optimizer.param_groups[0]["params"]
        return parameters

    def _set_rates(self) -> tuple[float, float]:
        multipliers = rate_multipliers(self.config, self.done)
        network, probes = (r * m for r, m in zip(self._rates, multipliers, strict=True))
        for group, rate in zip(self.optimizer.param_groups, (network, probes), strict=True):
            group["lr"] = rate
        return network, probes

    def _drawn(self) -> tuple[Batch, StepDraws, Group]:
        """The batch and draws of the step, drawn where the batch lies, moved to the device."""
        batch, process = self.batches(self.done), self.machine.process
        first = next(iter(batch.anchors.values()))
        device = first.device
        group = Group(process.rank, process.world, batch.total or len(first) * process.world)
        generator = torch.Generator(device)
        generator.manual_seed(self._seed(STEP))
        draws = self.objective.draw(batch, generator=generator, device=device, group=group)
        moved: tuple[Batch, StepDraws] = self.machine.fabric.to_device((batch, draws))
        return *moved, group

    def _seed(self, purpose: int) -> int:
        sequence = np.random.SeedSequence((self.config.seed, self.done, 0, purpose))
        return int(sequence.generate_state(1, np.uint64)[0] >> 1)  # torch's seeds are signed

    def _reset_probes(self) -> None:
        """Reset to values that are equal in all processes, and whenever the step is repeated."""
        devices = range(torch.cuda.device_count()) if self.machine.device == "cuda" else ()
        with torch.random.fork_rng(devices):
            torch.manual_seed(self._seed(RESET))
            reset_probes(self.objective, self.optimizer)
        if self.average is not None:
            self.average.restart(self.objective, PROBES)

    def _of_all(self, log: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The scalars of the whole batch: the means over the processes."""
        if self.machine.process.world == 1:
            return log
        parts = torch.stack([value.float().to(self._network[0].device) for value in log.values()])
        means: Tensor = self.machine.fabric.all_reduce(parts, reduce_op="mean")
        return dict(zip(log, means, strict=True))

    def _checked_norm(self, batch: Batch, total: Tensor, log: Mapping[str, Tensor]) -> Tensor:
        """Norm of the network's gradient, once it is sure that all is finite."""
        norms = [
            get_total_norm([p.grad for p in group["params"] if p.grad is not None])
            for group in self.optimizer.param_groups
        ]
        finite = torch.isfinite(torch.stack([total.detach(), *norms])).all()
        if self.machine.process.world > 1:  # all stop, or none
            finite = self.machine.fabric.all_reduce(finite.float(), reduce_op="min")
        if not bool(finite):
            raise not_finite(self.objective, batch, log, self.done)
        return norms[0]
