"""How long it takes to replace the head's weights while frames run, on every backend.

    python benchmarks/hot_swap.py site.unim2

A thread replaces the weights, of which one version has a class more, again and again; frames go on
meanwhile, on every core. Every frame is compared with what its version answers when nothing else
runs. A swap's own milliseconds are those that it computed; its others it waited for a core. The
last column is the first frame after a version with more clusters than the slots so far: some
backends compile for it.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from unim2_core.inference.backends import LIBRARIES, Backend
from unim2_core.inference.engine import Engine
from unim2_core.inference.served_heads import MOST, SLOTS
from unim2_core.model.bundle import Bundle

PAUSE_S = 1e-3


def measured(bundle: Bundle, backend: Backend, swaps: int) -> list[str]:
    """A row: frames, mixed frames, swaps in milliseconds."""
    engine = Engine(bundle, backend)
    first = bundle.weights()
    second = dict(first)
    for name in ("prototypes", "valid"):
        second[name] = np.concatenate([first[name][::-1], first[name][:1]])
    stored = bundle.parity()
    tokens = stored["tokens"].astype(np.float32)
    presence = np.ones(tokens.shape[:3], np.float32)
    versions = {"first": first, "second": second}
    expected = {}
    for name, weights in versions.items():
        engine.heads.replace(name, weights)
        expected[name] = engine.classify(tokens, presence).classes
    more = dict(first)
    for name in ("prototypes", "valid"):
        count = min(len(first[name]) + SLOTS, MOST)
        more[name] = np.resize(first[name], (count, *first[name].shape[1:]))
    engine.heads.replace("more", more)
    start = time.perf_counter()
    engine.classify(tokens, presence)
    grown = 1e3 * (time.perf_counter() - start)
    engine.heads.roll_back()
    seconds: list[float] = []
    own: list[float] = []

    def swap() -> None:
        for number in range(swaps):
            name = ("first", "second")[number % 2]
            start, computed = time.perf_counter(), time.thread_time()
            engine.heads.replace(name, versions[name])
            seconds.append(time.perf_counter() - start)
            own.append(time.thread_time() - computed)
            time.sleep(PAUSE_S)

    swapping = threading.Thread(target=swap)
    swapping.start()
    frames = mixed = 0
    while swapping.is_alive():
        answer = engine.classify(tokens, presence)
        frames += 1
        mixed += bool((answer.classes != expected[answer.version]).any())
    swapping.join()
    figures = [
        " / ".join(f"{1e3 * np.percentile(values, q):.1f}" for q in (50, 99, 100))
        for values in (own, seconds)
    ]
    return [backend, str(swaps), str(frames), str(mixed), *figures, f"{grown:.0f}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model bundle, NAME.unim2")
    parser.add_argument("--swaps", type=int, default=1000)
    arguments = parser.parse_args()
    bundle = Bundle(arguments.model)
    megabytes = sum(array.nbytes for array in bundle.weights().values()) / 1e6
    table = Table(
        *("backend", "swaps", "frames", "mixed"),
        *("own ms: p50 / p99 / longest", "with waiting", "first frame of more slots, ms"),
        title=f"{len(bundle.manifest.labels)} classes and one more, {megabytes:.1f} MB of weights",
    )
    for backend, library in LIBRARIES.items():
        if library.installed and library.device_there():
            table.add_row(*measured(bundle, backend, arguments.swaps))
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
