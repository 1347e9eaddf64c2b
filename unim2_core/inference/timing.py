"""How fast a model runs on this machine: every backend and precision, measured in turns."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np

from unim2_core.errors import ModelError
from unim2_core.inference.backends import LIBRARIES, Backend, Device, Precision
from unim2_core.inference.engine import Engine
from unim2_core.inference.parity import Parity
from unim2_core.model.bundle import Bundle

SIDE = 1024
"""Of the matrices whose product is the measure of the machine."""
MEMORY = Path("/proc/self/statm")


@dataclass(frozen=True)
class Timings:
    """All engines, timed in turns.

    Attributes:
        engines: one for each backend and precision.
        matrix_gflops: of a float32 matrix product by NumPy that took turns with them, median.
    """

    engines: list[Timing]
    matrix_gflops: float


@dataclass
class Timing:
    """One backend in one precision.

    Attributes:
        backend: its name.
        precision: that it computed in.
        refused: why it cannot be used here, else None; all figures are then empty.
        parity: what the gate measured.
        start_s: from the files to an engine that passed the gate, seconds.
        memory_mib: that the process grew by meanwhile; None where the system does not tell.
        batched: whether all modalities go through the backbone at once.
        backbone_ms: of each frame, all modalities, milliseconds.
        head_ms: of each frame.
    """

    backend: Backend
    precision: Precision
    refused: str | None = None
    parity: Parity | None = None
    start_s: float = float("nan")
    memory_mib: float | None = None
    batched: bool = False
    backbone_ms: list[float] = field(default_factory=list)
    head_ms: list[float] = field(default_factory=list)


def every_engine(
    bundle: Bundle,
    rounds: int,
    threads: int,
    advance: Callable[[int], None],
    device: Device = "auto",
) -> Timings:
    """Time all backends in all their precisions on the images that the bundle keeps.

    The engines take turns, so that whatever else the machine does meanwhile meets all of them.

    Args:
        bundle: the model.
        rounds: frames that are timed, at least 1.
        threads: cores to use; 0 means all.
        advance: called with the number of rounds done.
        device: see ``Engine``.
    """
    stored = bundle.parity()
    images = stored["images"]
    found: list[tuple[Timing, Engine | None]] = []
    for name, library in LIBRARIES.items():
        for precision in library.precisions:
            found.append(_opened(bundle, name, precision, threads, device))
    rates = []
    presence = np.ones(stored["tokens"].shape[:3], np.float32)
    for done in range(rounds + 1):  # the first one warms up
        for timing, engine in found:
            if engine is None:
                continue
            start = time.perf_counter()
            parts = [images] if timing.batched else [image[None] for image in images]
            tokens = np.concatenate([engine.tokens(part) for part in parts])
            between = time.perf_counter()
            engine.classify(tokens, presence)
            if done:
                timing.backbone_ms.append(1e3 * (between - start))
                timing.head_ms.append(1e3 * (time.perf_counter() - between))
        rates.append(matrix_gflops(1))
        advance(done)
    return Timings([timing for timing, _ in found], float(np.median(rates)))


def _opened(
    bundle: Bundle, name: Backend, precision: Precision, threads: int, device: Device
) -> tuple[Timing, Engine | None]:
    with suppress(ImportError):  # whichever comes first must not pay for importing it
        import_module(LIBRARIES[name].module)
    before, start = _memory_mib(), time.perf_counter()
    try:
        engine = Engine(bundle, name, threads, precision, device)
    except ModelError as error:
        return Timing(name, precision, refused=f"{error.what}; found {error.found}"), None
    seconds, after = time.perf_counter() - start, _memory_mib()
    grown = None if before is None or after is None else after - before
    return Timing(name, precision, None, engine.parity, seconds, grown, engine.batched), engine


def matrix_gflops(rounds: int = 5) -> float:
    """Floating point operations of a float32 matrix product by NumPy, best of some, 1e9 a second.

    It uses all cores that NumPy's library uses, whatever the engines do.
    """
    draw = np.random.default_rng(0)
    one, other = draw.standard_normal((2, SIDE, SIDE), np.float32)
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        one @ other
        seconds.append(time.perf_counter() - start)
    return 2e-9 * SIDE**3 / min(seconds)


def _memory_mib() -> float | None:
    try:
        pages = int(MEMORY.read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return None  # not Linux
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
