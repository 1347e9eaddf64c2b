"""What the machine gives at the moment, for the other benchmarks to be compared with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

SIDE = 2048
"""Rows and columns of the matrices whose product is timed."""


def matrix_product(dtype: torch.dtype) -> Callable[[], torch.Tensor]:
    """The product of two square matrices, as fast as the libraries can."""
    one, other = torch.randn(2, SIDE, SIDE).to(dtype)
    memory = torch.empty_like(one)
    return lambda: torch.mm(one, other, out=memory)


def gflops(seconds: float) -> float:
    """Of that product; 1e9 additions and multiplications a second."""
    return 2 * SIDE**3 / seconds / 1e9


def seconds_of(run: Callable[[], object], times: int = 1) -> float:
    """Median time of a call."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return median(taken)


def peak_mib(run: Callable[[], object]) -> float:
    """The most memory that the process holds at once while something runs, MiB.

    Pages of files are not in it: the system keeps them as long as nobody else needs the room.
    """
    peak, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while True:
            status = Path("/proc/self/status").read_text()
            peak = max(peak, int(status.split("RssAnon:")[1].split()[0]) / 1024)
            if done.wait(0.005):
                break

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        run()
    finally:
        done.set()
        thread.join()
    return peak
