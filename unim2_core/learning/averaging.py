"""The moving average of the weights, and serving it instead of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """Exponential moving average of a module's parameters; buffers are taken as they are.

    In step n (from 1) the decay is min(decay, n / (n + 9)), so that the first snapshots are not
    mostly the weights that the training began with.

    Args:
        module: whose parameters, at their present values to begin with.
        decay: in (0, 1).

    Attributes:
        values: the averages, by name of the parameter.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the present values; ``step`` counts from 1."""
        decay = min(self.decay, step / (step + 9))
        present = [p.detach() for _, p in module.named_parameters()]
        torch._foreach_lerp_(list(self.values.values()), present, 1 - decay)

    @torch.no_grad()
    def restart(self, module: nn.Module, prefixes: Iterable[str]) -> None:
        """Forget the past of the parameters whose names begin so."""
        for name, parameter in module.named_parameters():
            if name.startswith(tuple(prefixes)):
                self.values[name].copy_(parameter)

    @torch.no_grad()
    def load(self, values: Mapping[str, Tensor]) -> None:
        """Take the averages of a checkpoint."""
        for name, value in self.values.items():
            value.copy_(values[name])


@contextmanager
def serving(module: nn.Module, average: Average | None) -> Iterator[None]:
    """Evaluate with the averages in the place of the parameters, then put all back."""
    training = module.training
    parameters = dict(module.named_parameters())
    held: dict[str, Tensor] = {}
    try:
        module.eval()
        if average is not None:
            for name, value in average.values.items():
                held[name] = parameters[name].data
                parameters[name].data = value
        yield
    finally:
        for name, value in held.items():
            parameters[name].data = value
        module.train(training)
