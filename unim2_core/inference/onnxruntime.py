"""Graphs on ONNX Runtime, on a CPU or by its CUDA provider."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from unim2_core.errors import ModelError, cause
from unim2_core.inference.cuda import device_there

_ERRORS_ONLY = 3
CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
# TF32 has a mantissa of 10 bits: fp32 is to be float32.
_CUDA_OPTIONS = {"use_tf32": "0"}


class OnnxRuntimeGraph:
    """One ONNX file.

    Attributes:
        batched: whether several images run faster at once, as on a GPU.
    """

    def __init__(self, path: Path, threads: int = 0, device: str = "auto") -> None:
        """Load a graph.

        Args:
            path: an ONNX file.
            threads: cores for one run; 0 means all.
            device: ``cpu``, ``cuda``, or ``auto``: CUDA where the build and a GPU are there.

        Raises:
            ModelError: the file is no graph that ONNX Runtime can run, or CUDA is asked for and
                cannot be had.
        """
        providers = _providers(device)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _ERRORS_ONLY
        # Waiting threads must not burn the cores that decode, synchronise and publish.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=providers)
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ModelError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {path}",
                expected="an ONNX graph of opset 18",
                found=cause(error),
                remedy="copy the bundle again, or install a newer onnxruntime",
            ) from error
        ran = self._session.get_providers()  # a provider that does not start is left out silently
        if device == "cuda" and CUDA not in ran:
            raise _no_cuda(f"{', '.join(ran)} started")
        self.batched = CUDA in ran
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(
        self, inputs: Mapping[str, NDArray[np.generic]]
    ) -> dict[str, NDArray[np.generic]]:
        """Run once: input name -> array, output name -> array."""
        return dict(zip(self._outputs, self._session.run(None, dict(inputs)), strict=True))


def _providers(device: str) -> list[str | tuple[str, dict[str, str]]]:
    """The providers to ask for, in order."""
    built_with = onnxruntime.get_available_providers()
    if device == "cuda" and CUDA not in built_with:
        raise _no_cuda(", ".join(built_with))
    wanted = device == "cuda" or (device == "auto" and CUDA in built_with and device_there())
    return [(CUDA, _CUDA_OPTIONS), CPU] if wanted else [CPU]


def _no_cuda(found: str) -> ModelError:
    return ModelError(
        "ONNX Runtime does not run on a GPU here",
        expected=f"{CUDA} and a CUDA device",
        found=found,
        remedy="pip install onnxruntime-gpu in place of onnxruntime, or leave --device cuda out",
    )
