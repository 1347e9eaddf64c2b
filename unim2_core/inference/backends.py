"""What can run graphs: one small interface, and the libraries behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError
from unim2_core.inference.cuda import device_there
from unim2_core.model.bundle import BACKBONE

Backend = Literal["auto", "tensorrt", "openvino", "onnxruntime", "torch"]
Precision = Literal["fp32", "bf16", "fp16", "int8"]
Device = Literal["auto", "cpu", "cuda"]
AUTO: Backend = "auto"


class Graph(Protocol):
    """Runs one graph: input name -> array in, output name -> array out.

    One with an attribute ``batched`` that is true runs several images faster as one batch.
    """

    def __call__(
        self, inputs: Mapping[str, NDArray[np.generic]]
    ) -> dict[str, NDArray[np.generic]]:
        """Run once."""


@dataclass(frozen=True)
class Library:
    """A library that runs graphs.

    Attributes:
        module: that is imported, and the package that brings it.
        precisions: that it can compute in.
        load: file, precision, cores (0 = all) and device -> graph.
        devices: that it runs on.
        other: a module with the same names that will do as well.
        device_there: whether what it runs on is there; ``auto`` asks first.
    """

    module: str
    precisions: tuple[Precision, ...]
    load: Callable[[Path, Precision, int, Device], Graph]
    devices: tuple[Device, ...] = ("cpu",)
    other: str | None = None
    device_there: Callable[[], bool] = lambda: True

    @property
    def installed(self) -> bool:
        """Whether it is there; nothing is imported."""
        return any(name and find_spec(name) for name in (self.module, self.other))


# The libraries are imported when they are used: one may be missing, and a launch file reads names.
def _tensorrt(path: Path, precision: Precision, _: int, __: Device) -> Graph:
    from unim2_core.inference.tensorrt import TensorRtGraph

    return TensorRtGraph(path, precision)


def _openvino(path: Path, precision: Precision, threads: int, _: Device) -> Graph:
    from unim2_core.inference.int8 import int8_graph
    from unim2_core.inference.openvino import OpenVinoGraph

    if precision == "int8" and path.name == Path(BACKBONE).name:  # the head is small: float32
        path = int8_graph(path, "openvino")
    return OpenVinoGraph(path, precision, threads)


def _onnxruntime(path: Path, precision: Precision, threads: int, device: Device) -> Graph:
    from unim2_core.inference.int8 import int8_graph
    from unim2_core.inference.onnxruntime import OnnxRuntimeGraph

    if precision == "int8" and path.name == Path(BACKBONE).name:
        path = int8_graph(path, "onnxruntime")
    return OnnxRuntimeGraph(path, threads, device)


def _torch(path: Path, precision: Precision, threads: int, device: Device) -> Graph:
    from unim2_core.inference.torch import TorchGraph

    return TorchGraph(path, precision, threads, device)


# In the order in which ``auto`` tries them. One at a time: a live node that had loaded both of the
# CPU's has crashed, some of the times.
LIBRARIES: Mapping[Backend, Library] = {
    "tensorrt": Library(
        "tensorrt",
        ("fp32", "fp16"),
        _tensorrt,
        ("cuda",),
        other="tensorrt_rtx",
        device_there=device_there,
    ),
    "onnxruntime": Library("onnxruntime", ("fp32", "int8"), _onnxruntime, ("cpu", "cuda")),
    "openvino": Library("openvino", ("fp32", "bf16", "int8"), _openvino),
    "torch": Library("torch", ("fp32", "bf16", "fp16"), _torch, ("cpu", "cuda")),
}


def candidates(backend: Backend, precision: Precision, device: Device = "auto") -> list[Backend]:
    """The backends to try, in order.

    Args:
        backend: one of them, or ``auto``: all that are installed, find their device, and have
            the precision.
        precision: to compute in.
        device: to run on; ``auto`` leaves it to the backend.

    Raises:
        ModelError: there is no such backend, precision or device, or it is not installed.
    """
    for value, known, option in (
        (backend, Backend, "backend"),
        (precision, Precision, "precision"),
        (device, Device, "device"),
    ):
        if value not in get_args(known):
            raise ModelError(
                f"unknown {option}",
                expected=" or ".join(get_args(known)),
                found=str(value),
                remedy=f"name one of these with --{option}",
            )
    there = [name for name, one in LIBRARIES.items() if device in ("auto", *one.devices)]
    if backend != AUTO and backend not in there:
        raise ModelError(
            f"{backend} does not run on {device}",
            expected=", ".join(LIBRARIES[backend].devices),
            found=device,
            remedy=f"name one of these with --device, or --backend {' or '.join(there)}",
        )
    able = [name for name in there if precision in LIBRARIES[name].precisions]
    if backend != AUTO and backend not in able:
        raise ModelError(
            f"{backend} does not compute in {precision}",
            expected=", ".join(LIBRARIES[backend].precisions),
            found=precision,
            remedy=f"name one of these with --precision, or --backend {' or '.join(able)}",
        )
    ready = [name for name in able if LIBRARIES[name].device_there()]
    wanted = (ready or able) if backend == AUTO else [backend]
    installed = [name for name in wanted if LIBRARIES[name].installed]
    if not installed:
        raise ModelError(
            f"{' and '.join(wanted)} cannot be used",
            expected=f"one that computes in {precision}"
            if backend == AUTO
            else "that it is there",
            found="not installed",
            remedy=f"pip install {LIBRARIES[wanted[-1]].module}, or name another --backend or "
            "--precision",
        )
    return installed
