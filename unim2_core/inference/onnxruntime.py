"""Graphs on ONNX Runtime, CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from unim2_core.errors import ModelError, cause

_ERRORS_ONLY = 3


class OnnxRuntimeGraph:
    """One ONNX file on the CPU."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        """Load a graph.

        Args:
            path: an ONNX file.
            threads: cores for one run; 0 means all.

        Raises:
            ModelError: the file is no graph that ONNX Runtime can run.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = _ERRORS_ONLY
        # Waiting threads must not burn the cores that decode, synchronise and publish.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ModelError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {path}",
                expected="an ONNX graph of opset 18",
                found=cause(error),
                remedy="copy the bundle again, or install a newer onnxruntime",
            ) from error
        self._outputs = [output.name for output in self._session.get_outputs()]

    def __call__(
        self, inputs: Mapping[str, NDArray[np.generic]]
    ) -> dict[str, NDArray[np.generic]]:
        """Run once: input name -> array, output name -> array."""
        return dict(zip(self._outputs, self._session.run(None, dict(inputs)), strict=True))
