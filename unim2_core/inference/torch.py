"""Graphs as torch networks, on the CPU or on a CUDA device with CUDA graphs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unim2_core.errors import ModelError
from unim2_core.inference.backends import Device, Precision
from unim2_core.inference.cuda_graph import Arrays, CapturedRun, Run, Tensors
from unim2_core.inference.export import NormalisedBackbone
from unim2_core.inference.int8 import bundle_of
from unim2_core.model.bundle import BACKBONE, MANIFEST, NETWORK, Manifest
from unim2_core.model.heads import ClusterHead
from unim2_core.model.prepared import prepared
from unim2_core.model.segmenter import SegmenterConfig
from unim2_core.model.segmenter_head import SegmenterHead, head_inputs
from unim2_core.model.stored import network_of
from unim2_core.sensing.modalities import MODALITIES

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_KEPT = 16
"""Shapes for which a CUDA graph is kept."""


class TorchGraph:
    """Backbone or head of a bundle.

    On a GPU each set of input shapes that comes is captured as a CUDA graph, which takes a moment:
    run each once before it counts.

    Attributes:
        batched: whether several images run faster as one batch than one after another.
    """

    def __init__(
        self, path: Path, precision: Precision = "fp32", threads: int = 0, device: Device = "auto"
    ) -> None:
        """Build the network.

        Args:
            path: of the graph inside its bundle: what the graph is made of lies beside it.
            precision: of the backbone; the head computes in float32.
            threads: cores for one run on the CPU, for all of torch in this process; 0 means all.
            device: ``auto`` takes a CUDA device where there is one.

        Raises:
            ModelError: there is no such device, it lacks the precision, or the bundle holds no
                network that this version knows.
        """
        self._device = device_of(device)
        self.batched = self._device.type == "cuda"
        if self.batched:
            torch.backends.cudnn.allow_tf32 = False  # float32 means float32
        _check_precision(precision, self._device)
        if threads and not self.batched:
            torch.set_num_threads(threads)
        self._run = self._network(path, precision)
        self._captured: dict[tuple[tuple[str, tuple[int, ...]], ...], CapturedRun] = {}

    def _network(self, path: Path, precision: Precision) -> Run:
        folder = bundle_of(path)
        manifest = Manifest.model_validate(json.loads((folder / MANIFEST).read_bytes()))
        entry = manifest.backbone
        if path == folder / BACKBONE:
            backbone = network_of(folder / NETWORK, entry.name, entry.embed_dim)
            normal = MODALITIES["rgb"]  # of all modalities: the backbone was trained with it
            network: nn.Module = NormalisedBackbone(
                prepared(backbone, DTYPES[precision]), normal.mean, normal.std
            )
            network = network.eval().to(self._device)
            return lambda inputs: {"tokens": network(**inputs)}
        if manifest.network is None:
            head: ClusterHead | SegmenterHead = ClusterHead(entry.patch_size, manifest.stride)
        else:
            config = SegmenterConfig(**manifest.network)
            head = SegmenterHead(config, entry.patch_size, manifest.stride)
        head = head.eval().to(self._device)

        def run(inputs: Tensors) -> Tensors:
            classes, confidence = head(**head_inputs(head, inputs))
            return {"classes": classes, "confidence": confidence}

        return run

    @torch.inference_mode()
    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.generic]]:
        """Run once: input name -> array, output name -> array."""
        if self._device.type == "cpu":
            tensors = {name: torch.from_numpy(array) for name, array in inputs.items()}
            return {name: part.numpy() for name, part in self._run(tensors).items()}
        shapes = tuple((name, array.shape) for name, array in inputs.items())
        if shapes not in self._captured:
            if len(self._captured) >= _KEPT:
                del self._captured[next(iter(self._captured))]
            self._captured[shapes] = CapturedRun(self._run, inputs, self._device)
        return self._captured[shapes](inputs)


def device_of(device: Device) -> torch.device:
    """The device that a name stands for.

    Raises:
        ModelError: there is no CUDA device that torch can use.
    """
    there = device != "cpu" and torch.cuda.is_available()
    if device == "cuda" and not there:
        built = torch.version.cuda
        raise ModelError(
            "torch cannot use a CUDA device",
            expected="a GPU, its driver, and a torch that was built for CUDA",
            found=f"torch {torch.__version__}, "
            + (f"built for CUDA {built}, no device" if built else "built without CUDA"),
            remedy="use --device cpu, or mend the driver: nvidia-smi must list the GPU",
        )
    return torch.device("cuda" if there else "cpu")


def _check_precision(precision: Precision, device: torch.device) -> None:
    if device.type == "cuda":
        able = precision != "bf16" or torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = precision == "fp32" or (
            precision == "bf16" and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        )
    if not able:
        raise ModelError(
            f"this {'GPU' if device.type == 'cuda' else 'CPU'} does not compute in {precision}",
            expected=f"instructions for {precision} that torch uses",
            found="none",
            remedy="use --precision fp32",
        )
