"""Graphs on TensorRT: an engine for each set of shapes, kept on disk; no torch."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError, Unim2Error, cause
from unim2_core.files import sha256, write_atomically
from unim2_core.inference.cuda import Buffer, Stream, device
from unim2_core.inference.engine_store import EngineStore, Telling
from unim2_core.inference.tensorrt_building import Complaints, Shapes, built, library

REVISION = 1
"""Of what is done to a graph before it is built; another one, other engines."""
KEPT = 4
"""Sizes whose engines stay loaded: those of the sensors of one robot."""
MISCOMPILING = ("10.3.", "10.4.")
"""Versions that compile DINOv3 to something else: TensorRT issues 4558, 4723, 4742."""
BY_FRAME = frozenset(("images", "tokens", "presence"))
"""Inputs that differ from frame to frame; all others are a head's weights, which are never changed
once they are made: the same array need not be copied again."""

_log = logging.getLogger(__name__)


class TensorRtGraph:
    """One ONNX file on the GPU, built for each set of input shapes that comes.

    A build takes from seconds to minutes; what was built before is found beside the model.
    """

    def __init__(self, path: Path, precision: str = "fp32") -> None:
        """Look for the device, then for the library: without a device it crashes.

        Args:
            path: an ONNX file.
            precision: ``fp32``, or ``fp16`` with what needs the range in float32.

        Raises:
            ModelError: there is no CUDA device, or no TensorRT.
        """
        self._device = device()
        self._trt = library()
        self._path, self._precision = path, precision
        try:
            self._sha256 = sha256(path)
        except OSError as error:
            raise ModelError(
                f"cannot read {path}",
                expected="an ONNX graph",
                found=error.strerror or str(error),
                remedy="copy the bundle again",
            ) from error
        if self._trt.__version__.startswith(MISCOMPILING):
            _log.warning(
                "TensorRT %s is known to miscompile vision transformers: the check against the "
                "model's stored answers decides",
                self._trt.__version__,
            )
        self._store = EngineStore(path)
        self._ready: dict[tuple[tuple[str, tuple[int, ...]], ...], _Execution] = {}

    def __call__(
        self, inputs: Mapping[str, NDArray[np.generic]]
    ) -> dict[str, NDArray[np.generic]]:
        """Run once: input name -> array, output name -> array."""
        shapes = tuple((name, array.shape) for name, array in inputs.items())
        execution = self._ready.get(shapes)
        if execution is None:
            if len(self._ready) >= KEPT:
                del self._ready[next(iter(self._ready))]
            execution = _Execution(self._trt, self._engine(dict(shapes)))
            self._ready[shapes] = execution
        return execution(inputs)

    def _engine(self, shapes: Shapes) -> bytes:
        """From the disk, else built."""
        facts = {
            "revision": REVISION,
            "onnx": self._sha256,
            "precision": self._precision,
            "shapes": {name: list(shape) for name, shape in shapes.items()},
            "library": self._trt.__name__,
            "version": self._trt.__version__,
            "device": self._device.name,
            "capability": self._device.capability,
            "driver": self._device.driver,
        }
        return self._store.get(facts, lambda: self._build(shapes))

    def _build(self, shapes: Shapes) -> bytes:
        content = self._content()
        if self._precision == "fp16":
            content = _halved(content)
        which = f"{self._trt.__name__}-{self._trt.__version__}-{self._device.name}"
        timings = self._store.folder / f"timing-{which.replace(' ', '_')}.cache"
        known = timings.read_bytes() if timings.is_file() else b""
        with Telling(f"building a TensorRT engine of {self._path.name}") as telling:
            engine, measured = built(
                self._trt, content, shapes, tf32=False, timing_cache=known, telling=telling
            )
        if measured:
            with suppress(Unim2Error):  # the engine is worth more than the times
                write_atomically(timings, measured)
        return engine

    def _content(self) -> bytes:
        """The graph, which may have been replaced since it was loaded."""
        with suppress(OSError):
            content = self._path.read_bytes()
            if hashlib.sha256(content).hexdigest() == self._sha256:
                return content
        raise ModelError(
            f"{self._path} is not what it was when it was loaded",
            expected=f"sha256 {self._sha256[:12]}",
            found="another file, or none",
            remedy="load the whole model anew",
        )


def _halved(content: bytes) -> bytes:
    try:
        from unim2_core.inference.half_precision import halved
    except ImportError as error:
        raise ModelError(
            "a graph cannot be converted to fp16",
            expected="the package onnx",
            found=cause(error),
            remedy="pip install onnx, or use --precision fp32",
        ) from error
    return halved(content)


class _Execution:
    """An engine with the memory of its inputs and outputs."""

    def __init__(self, trt: Any, plan: bytes) -> None:
        """Load it.

        Raises:
            ModelError: TensorRT refuses it, or the device has no memory left.
        """
        self._said = Complaints(trt)
        self._runtime = trt.Runtime(self._said.logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise self._failed(trt, "load")
        context = self._engine.create_execution_context()
        if context is None:
            raise self._failed(trt, "load")
        self._context, self._trt = context, trt
        self._stream = Stream()
        self._inputs: dict[str, Buffer] = {}
        self._outputs: dict[str, Buffer] = {}
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            dtype = np.dtype(trt.nptype(self._engine.get_tensor_dtype(name)))
            buffer = Buffer(tuple(self._engine.get_tensor_shape(name)), dtype)
            into = self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            (self._inputs if into else self._outputs)[name] = buffer
            context.set_tensor_address(name, buffer.pointer)
        self._uploaded: dict[str, NDArray[np.generic]] = {}
        self._recorded: bool | None = None

    def _failed(self, trt: Any, doing: str) -> ModelError:
        return ModelError(
            f"{trt.__name__} {trt.__version__} cannot {doing} the engine",
            expected="an engine of this version and GPU, and room on the device",
            found=self._said.last,
            remedy="end other programs on the GPU, delete the folder engines of the model, or "
            "name another --backend",
        )

    def __call__(
        self, inputs: Mapping[str, NDArray[np.generic]]
    ) -> dict[str, NDArray[np.generic]]:
        for name, array in inputs.items():
            if self._uploaded.get(name) is array:
                continue
            buffer = self._inputs[name]
            np.copyto(buffer.host, array, casting="no")
            self._stream.upload(buffer)
            if name not in BY_FRAME:
                self._uploaded[name] = array
        self._start()
        self._stream.wait()
        return {name: buffer.host.copy() for name, buffer in self._outputs.items()}

    def _start(self) -> None:
        """From the second run on as recorded work; the first one may still compile or allocate."""
        if self._recorded is None:
            self._enqueue()
            self._stream.wait()
            self._recorded = self._stream.record(self._enqueue)
        elif self._recorded:
            self._stream.replay()
        else:
            self._enqueue()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._stream.handle):
            raise self._failed(self._trt, "run")
        for buffer in self._outputs.values():
            self._stream.download(buffer)
