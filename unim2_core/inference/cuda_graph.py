"""A torch network as a CUDA graph with page-locked buffers; needs torch and a CUDA device."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WARM_UPS = 3
"""Runs before the graph is captured: libraries choose their kernels and allocate meanwhile."""
CHANGING = ("images", "tokens", "presence")
"""Inputs that are other ones in each frame; all else is copied when it is another array."""

Arrays = Mapping[str, NDArray[np.generic]]
Tensors = dict[str, Tensor]
Run = Callable[[Tensors], Tensors]


class CapturedRun:
    """One network for inputs of one shape as a CUDA graph, on a stream of its own.

    Args:
        run: launches the network's kernels, and nothing that waits for them.
        inputs: of the shapes and types that will come.
        device: a CUDA device.

    Attributes:
        stream: that everything runs on.
    """

    def __init__(self, run: Run, inputs: Arrays, device: torch.device) -> None:
        self._sources: dict[str, NDArray[np.generic]] = {}
        self._pinned = {name: _pinned_like(torch.from_numpy(a)) for name, a in inputs.items()}
        self._inputs = {
            name: torch.empty_like(part, device=device) for name, part in self._pinned.items()
        }
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._upload(inputs)
        with torch.cuda.stream(self.stream):
            for _ in range(WARM_UPS):
                run(self._inputs)
        self.stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=self.stream):
            self._outputs = run(self._inputs)
        self._answers = {name: _pinned_like(part) for name, part in self._outputs.items()}

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """Run once; the answers stay what they are when it runs on."""
        self._upload(inputs)
        self.replay()
        with torch.cuda.stream(self.stream):
            for name, part in self._outputs.items():
                self._answers[name].copy_(part, non_blocking=True)
        self.stream.synchronize()
        return {name: part.numpy().copy() for name, part in self._answers.items()}

    def replay(self) -> None:
        """Run once more on what is on the device already, without waiting for it."""
        with torch.cuda.stream(self.stream):
            self._graph.replay()

    def _upload(self, inputs: Arrays) -> None:
        with torch.cuda.stream(self.stream):
            for name, array in inputs.items():
                if name not in CHANGING and self._sources.get(name) is array:
                    continue  # weights are never changed in place, so the same array is up there
                self._sources[name] = array
                self._pinned[name].numpy()[...] = array
                self._inputs[name].copy_(self._pinned[name], non_blocking=True)


def _pinned_like(tensor: Tensor) -> Tensor:
    """Page-locked memory: the device copies from and to it by itself."""
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
