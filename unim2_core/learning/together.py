"""What processes that train together share before the first step; alone, nothing is different."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

Made = TypeVar("Made")
Item = TypeVar("Item")

_distributed: Any = torch.distributed


def _met() -> bool:
    return _distributed.is_available() and bool(_distributed.is_initialized())


def own_part(items: Sequence[Item]) -> Sequence[Item]:
    """The items of this process: every n-th of n processes."""
    return items[_distributed.get_rank() :: _distributed.get_world_size()] if _met() else items


def summed(tensor: Tensor) -> Tensor:
    """The sum of the tensors of all processes: what each has filled its part of, whole."""
    if _met():
        _distributed.all_reduce(tensor)
    return tensor


def from_first(make: Callable[[], Made]) -> Made:
    """What process 0 makes, in all processes."""
    if not _met():
        return make()
    found = [make() if _distributed.get_rank() == 0 else None]
    _distributed.broadcast_object_list(found, src=0)
    return found[0]  # type: ignore[return-value]
