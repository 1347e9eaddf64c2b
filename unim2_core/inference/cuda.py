"""The CUDA device: memory, a stream, recorded work; by NVIDIA's cuda-bindings, without torch."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError, cause


@dataclass(frozen=True)
class Device:
    """What an engine is built for.

    Attributes:
        name: of the GPU.
        capability: of its cores, such as 8.7.
        driver: the newest CUDA that the driver knows, such as 13000.
    """

    name: str
    capability: str
    driver: int


def lack() -> str | None:
    """What keeps CUDA from a device, or None; asks the driver alone, and never raises.

    cuda-bindings need not be there: what is missing then is said when a device is used.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1)"
    count = ctypes.c_int(0)
    answered: int = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if answered:
        return f"a driver that answers with CUDA error {answered}"
    return None if count.value else "a driver without a device"


def device_there() -> bool:
    """Whether CUDA finds a device."""
    return lack() is None


def _runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise ModelError(
            "the CUDA device cannot be spoken to",
            expected="the package cuda-bindings",
            found=cause(error),
            remedy="pip install 'unim2[tensorrt]'; with CUDA 12: pip install 'cuda-bindings<13'",
        ) from error
    return runtime


def _checked(answer: tuple[Any, ...], doing: str) -> Any:
    """What a call answered, apart from its status.

    Raises:
        ModelError: the status is not success.
    """
    status, *rest = answer
    runtime = _runtime()
    if status == runtime.cudaError_t.cudaErrorMemoryAllocation:
        free = runtime.cudaMemGetInfo()[1]
        raise ModelError(
            f"the CUDA device has no memory left for {doing}",
            expected="room for graph, weights and images",
            found=f"{(free or 0) / 2**20:.0f} MiB free",
            remedy="end other programs on the GPU, or use a smaller size or backbone",
        )
    if status != runtime.cudaError_t.cudaSuccess:
        raise ModelError(
            f"CUDA fails at {doing}",
            expected="a device, and a driver as new as the CUDA of its libraries",
            found=status.name,
            remedy="look at nvidia-smi, update the driver, or name another --backend",
        )
    return rest[0] if len(rest) == 1 else tuple(rest)


def device() -> Device:
    """The device in use.

    Raises:
        ModelError: there is none, or its driver does not answer.
    """
    lacking = lack()
    if lacking:
        raise ModelError(
            "there is no CUDA device",
            expected="an NVIDIA GPU, and its driver loaded",
            found=lacking,
            remedy="look at nvidia-smi, in a container start it with the GPU, or name another "
            "--backend or --precision",
        )
    runtime = _runtime()
    number = _checked(runtime.cudaGetDevice(), "finding the device")
    properties = _checked(runtime.cudaGetDeviceProperties(number), "describing the device")
    return Device(
        bytes(properties.name).split(b"\0")[0].decode(),
        f"{properties.major}.{properties.minor}",
        int(_checked(runtime.cudaDriverGetVersion(), "asking the driver")),
    )


class Buffer:
    """An array on the host, in memory that the device reads at full speed, and one on the device.

    Attributes:
        host: to write inputs to and to read outputs from, as long as the buffer lives.
        pointer: address on the device.
        nbytes: size.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Take the memory; it is given back with the buffer.

        Raises:
            ModelError: there is not enough.
        """
        runtime = _runtime()
        count = int(np.prod(shape, dtype=np.int64))
        self.nbytes = count * dtype.itemsize
        size = max(self.nbytes, 1)
        pinned = _checked(runtime.cudaHostAlloc(size, runtime.cudaHostAllocDefault), "buffers")
        _at_end(self, runtime.cudaFreeHost, pinned)
        self.pointer = int(_checked(runtime.cudaMalloc(size), "buffers"))
        _at_end(self, runtime.cudaFree, self.pointer)
        memory = (ctypes.c_byte * size).from_address(pinned)
        self.host: NDArray[Any] = np.ndarray(shape, dtype, memoryview(memory))


def _at_end(owner: object, function: Callable[[Any], Any], handle: Any) -> None:
    """Give something back with its owner; at the end of the process the driver does so."""
    weakref.finalize(owner, function, handle).atexit = False


class Stream:
    """Work in order, beside that of others on the device."""

    def __init__(self) -> None:
        """Open it.

        Raises:
            ModelError: CUDA fails.
        """
        self._runtime = runtime = _runtime()
        self._recorded: Any = None
        self._stream = _checked(
            runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking), "opening a stream"
        )
        _at_end(self, runtime.cudaStreamDestroy, self._stream)

    @property
    def handle(self) -> int:
        """What other libraries take for it."""
        return int(self._stream)

    def upload(self, buffer: Buffer) -> None:
        """Copy the host's array to the device."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._copy(buffer.pointer, buffer.host.ctypes.data, buffer.nbytes, kind)

    def download(self, buffer: Buffer) -> None:
        """Copy the device's array to the host; it is there after ``wait``."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._copy(buffer.host.ctypes.data, buffer.pointer, buffer.nbytes, kind)

    def _copy(self, to: int, source: int, nbytes: int, kind: Any) -> None:
        _checked(self._runtime.cudaMemcpyAsync(to, source, nbytes, kind, self._stream), "copying")

    def wait(self) -> None:
        """Return when all is done."""
        _checked(self._runtime.cudaStreamSynchronize(self._stream), "running the graph")

    def record(self, work: Callable[[], None]) -> bool:
        """Record what ``work`` puts into this stream, to be started at once by ``replay``.

        Returns:
            Whether that could be done; nothing has run in either case.
        """
        runtime = self._runtime
        mode = runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _checked(runtime.cudaStreamBeginCapture(self._stream, mode), "recording")
        try:
            work()
        except ModelError:
            runtime.cudaStreamEndCapture(self._stream)
            runtime.cudaGetLastError()  # else the next call would answer with it
            return False
        status, graph = runtime.cudaStreamEndCapture(self._stream)
        if status != runtime.cudaError_t.cudaSuccess:
            runtime.cudaGetLastError()
            return False
        status, recorded = runtime.cudaGraphInstantiate(graph, 0)
        runtime.cudaGraphDestroy(graph)
        if status != runtime.cudaError_t.cudaSuccess:
            return False
        self._recorded = recorded
        _at_end(self, runtime.cudaGraphExecDestroy, recorded)
        return True

    def replay(self) -> None:
        """Start what was recorded."""
        _checked(self._runtime.cudaGraphLaunch(self._recorded, self._stream), "running the graph")
