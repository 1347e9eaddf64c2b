"""From an ONNX graph to an engine: one way for TensorRT 10.3 to 11 and TensorRT for RTX."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from unim2_core.errors import ModelError, cause
from unim2_core.inference.engine_store import Telling

MODULES = ("tensorrt", "tensorrt_rtx")
"""The same names are in both; what is installed first is taken."""

Shapes = Mapping[str, tuple[int, ...]]


def library() -> Any:
    """TensorRT's module.

    Raises:
        ModelError: neither is there, or its own libraries are not.
    """
    found = "not installed"
    for name in MODULES:
        if find_spec(name) is None:
            continue
        try:
            return import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            found = f"{name}: {cause(error)}"
    raise ModelError(
        "TensorRT cannot be used",
        expected="TensorRT 10.3 or newer, of the system or a container",
        found=found,
        remedy="install the tensorrt of your CUDA or JetPack, or: pip install tensorrt-rtx",
    )


class Complaints:
    """What TensorRT says, kept to be told where something fails."""

    def __init__(self, trt: Any) -> None:
        self.errors: list[str] = []
        complaints = self

        class Logger(trt.ILogger):  # type: ignore[misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                    complaints.errors.append(message.strip())

        self.logger = Logger()

    @property
    def last(self) -> str:
        """The last one, in one line."""
        return self.errors[-1].splitlines()[0] if self.errors else "TensorRT does not say why"


def built(
    trt: Any,
    onnx: bytes,
    shapes: Shapes,
    *,
    tf32: bool,
    timing_cache: bytes,
    telling: Telling,
) -> tuple[bytes, bytes]:
    """Build an engine for fixed shapes. What each number is computed in, the graph says.

    Args:
        trt: the library.
        onnx: the graph.
        shapes: of every input.
        tf32: whether products of float32 may be rounded to 11 bits.
        timing_cache: of an earlier build on this device, may be empty.
        telling: is told what it is at.

    Returns:
        The engine and the timing cache.

    Raises:
        ModelError: the graph is damaged, or TensorRT cannot build it.
        KeyboardInterrupt: the user has asked to end it.
    """
    said = Complaints(trt)
    builder = trt.Builder(said.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, said.logger)
    if not parser.parse(onnx):
        complaints = [parser.get_error(index).desc() for index in range(parser.num_errors)]
        raise _refused(trt, "read", complaints[0] if complaints else said.last)
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        if tensor.name not in shapes:
            raise _refused(trt, "read", f"an input {tensor.name} that is not known")
        tensor.shape = shapes[tensor.name]
    config = builder.create_builder_config()
    if not tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    timed = trt.__name__ == "tensorrt"  # the one for RTX times nothing while it builds
    if timed:
        times = config.create_timing_cache(timing_cache)
        config.set_timing_cache(times, ignore_mismatch=False)
    monitor = _monitor(trt, telling)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if monitor.interrupted:
        raise KeyboardInterrupt
    if plan is None:
        raise _refused(trt, "build", said.last)
    return bytes(plan), bytes(config.get_timing_cache().serialize()) if timed else b""


def _refused(trt: Any, doing: str, found: str) -> ModelError:
    return ModelError(
        f"{trt.__name__} {trt.__version__} cannot {doing} the graph",
        expected="an ONNX graph of opset 18 that this version takes",
        found=found.strip().splitlines()[0],
        remedy="copy or export the model again, install another TensorRT, or name another "
        "--backend",
    )


def _monitor(trt: Any, telling: Telling) -> Any:
    """Watches a build; TensorRT calls it."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self.steps[phase_name] = num_steps

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

        def step_complete(self, phase_name: str, step: int) -> bool:
            try:
                telling.phase = f"{phase_name} {step + 1} of {self.steps.get(phase_name, 0)}"
                return not self.interrupted
            except KeyboardInterrupt:  # must not pass through TensorRT
                self.interrupted = True
                return False

    return Monitor()
