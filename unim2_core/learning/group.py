"""Processes that train together, each with its part of the work.

The loss is that of the whole batch, not of its parts: images are compared with those that another
process holds, and means are over all. So the gradient, and with it the model, is the same in one
process and in many, up to the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")


@dataclass(frozen=True)
class Group:
    """The processes. In a step those of rank 0, 1, ... hold rows of the batch that follow.

    Attributes:
        rank: of this process.
        world: how many there are; in one alone nothing is exchanged.
        total: rows of the whole batch; 0 where there is none, and of no concern to one alone.
    """

    rank: int = 0
    world: int = 1
    total: int = 0

    @property
    def own(self) -> slice:
        """This process's rows of the whole batch."""
        if self.world == 1:
            return slice(None)
        if not self.total:
            raise ValueError("these processes have no batch in common")
        return slice(
            self.rank * self.total // self.world, (self.rank + 1) * self.total // self.world
        )

    def summed(self, values: Tensor) -> Tensor:
        """Sums over the processes, without gradient."""
        if self.world == 1:
            return values.detach()
        sums = values.detach().clone()
        torch.distributed.all_reduce(sums)
        return sums

    def gathered(self, rows: Tensor) -> Tensor:
        """The rows of all processes, (total, ...), from one's own; with gradient."""
        if self.world == 1:
            return rows
        gathered: Tensor = _Gathered.apply(rows, self)  # type: ignore[no-untyped-call]
        return gathered

    def weighed(self, mean: Tensor, number: Callable[[], Tensor] | None = None) -> Tensor:
        """What a mean over one's own rows adds to that over all: the mean of it is that mean.

        Args:
            mean: a scalar.
            number: counts what it is the mean of, a scalar; None: of as much in each row.
        """
        if self.world == 1:
            return mean
        if number is None:
            rows: int = self.own.stop - self.own.start
            return mean * (rows * self.world / self.total)
        counted = number()
        return mean * (counted * self.world / self.summed(counted).clamp(min=1))

    def from_first(self, make: Callable[[], Made]) -> Made:
        """What process 0 makes, in all of them."""
        if self.world == 1:
            return make()
        found: list[Any] = [make() if self.rank == 0 else None]
        torch.distributed.broadcast_object_list(found, src=0)
        made: Made = found[0]
        return made


ALONE = Group()


class _Gathered(torch.autograd.Function):
    """A sum of what is zero but for each one's rows: they need not be equally many."""

    @staticmethod
    def forward(context: Any, rows: Tensor, group: Group) -> Tensor:
        context.group = group
        whole: Tensor = rows.new_zeros((group.total, *rows.shape[1:]))
        whole[group.own] = rows
        torch.distributed.all_reduce(whole)
        return whole

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        group: Group = context.group
        whole = gradient.contiguous().clone()
        torch.distributed.all_reduce(whole)
        own: Tensor = whole[group.own]
        return own, None
