"""Graphs on OpenVINO, CPU."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from unim2_core.errors import ModelError, cause

_HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""What is not said otherwise; the layers of an int8 graph say so themselves."""
_KEPT = 4
"""Sizes for which compiled graphs are kept: those of the sensors of one robot."""

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@cache
def core() -> openvino.Core:
    """The one of this process, which is never let go.

    The CPU plugin replaces the stack that signal handlers run on. Where two of them go in the
    order in which they came, it leaves one that is unmapped, and the next signal that Python
    handles, a ctrl-C, kills the process.
    """
    return openvino.Core()


class OpenVinoGraph:
    """One ONNX file on the CPU, compiled for each set of input shapes that comes.

    A graph of fixed shapes runs faster than one that is ready for any, and a robot's sensors do
    not change their size. Compiling takes a moment: run each size once before it counts.
    """

    def __init__(self, path: Path, precision: str = "fp32", threads: int = 0) -> None:
        """Load a graph.

        Args:
            path: an ONNX file, or one of OpenVINO's own.
            precision: ``fp32``, ``bf16`` or ``int8``; where nothing is said OpenVINO chooses by
                itself.
            threads: cores for one run; 0 means all.

        Raises:
            ModelError: the file is no graph that OpenVINO reads, or the CPU lacks the precision.
        """
        able = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision.upper() not in able:
            raise ModelError(
                f"this CPU does not compute in {precision}",
                expected=f"{precision.upper()} among its abilities",
                found=", ".join(able),
                remedy="use --precision fp32",
            )
        self._options = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            **({"INFERENCE_NUM_THREADS": threads} if threads else {}),
        }
        self._compiled: dict[Shapes, Any] = {}
        try:
            self._model = core().read_model(path)
        except Exception as error:  # OpenVINO raises plain RuntimeErrors
            raise ModelError(
                f"OpenVINO {openvino.__version__} cannot load {path}",
                expected="an ONNX graph of opset 18",
                found=cause(error),
                remedy="copy the bundle again, or name another --backend",
            ) from error

    def __call__(
        self, inputs: Mapping[str, NDArray[np.generic]]
    ) -> dict[str, NDArray[np.generic]]:
        """Run once: input name -> array, output name -> array."""
        shapes = tuple((name, array.shape) for name, array in inputs.items())
        request = self._compiled.get(shapes)
        if request is None:
            request = self._compile(shapes)
        answers = request.infer(dict(inputs), share_inputs=True)
        return {output.get_any_name(): array for output, array in answers.items()}

    def _compile(self, shapes: Shapes) -> Any:
        model = self._model.clone()  # the file may be another one by now
        model.reshape({name: list(shape) for name, shape in shapes})
        request = core().compile_model(model, "CPU", self._options).create_infer_request()
        if len(self._compiled) >= _KEPT:
            del self._compiled[next(iter(self._compiled))]
        self._compiled[shapes] = request
        return request
