"""The live node for a long time: does it keep its memory, threads and shared memory in bounds?

    python benchmarks/soak.py --minutes 10 --rate 60

Four cameras of 640x480 that fail in turn all the while, an engine that answers at once. Prints a
row a sample; exits with 1 where memory grew by more than 2 % after every fault had come once
(queues have filled by then), a thread was left over, or shared memory stayed behind.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import psutil
from live_faults import CASES, every
from live_sensors import Fault, running
from rich.table import Table

from unim2_core.cli.console import console

SAMPLES = 3 * len(CASES)
MOST_GROWTH = 0.02
SHARED_MEMORY = Path("/dev/shm")


def main() -> int:
    """Run, print, judge."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, default=60.0, help="of each camera, Hz")
    options = parser.parse_args()
    before = _segments()
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), options.rate, domain=93) as bench,
    ):
        process = psutil.Process(bench.process.pid)
        start = time.monotonic()
        faults = list(CASES.values())
        for sample in range(SAMPLES):
            faults[sample % len(faults)](bench)
            time.sleep(options.minutes * 60 / SAMPLES / 2)
            every(Fault)(bench)
            time.sleep(options.minutes * 60 / SAMPLES / 2)
            rows.append(
                (
                    time.monotonic() - start,
                    process.memory_info().rss / 1e6,
                    process.num_threads(),
                    len(bench.listener.arrivals),
                )
            )
    table = Table("after s", "resident MB", "threads", "masks so far")
    for seconds, megabytes, threads, masks in rows:
        table.add_row(f"{seconds:.0f}", f"{megabytes:.1f}", str(threads), str(masks))
    console.print(table)
    settled = rows[len(CASES) :]
    growth = settled[-1][1] / settled[0][1] - 1
    threads = settled[-1][2] - settled[0][2]
    left = _segments() - before
    console.print(
        f"memory {growth:+.2%}, threads {threads:+d}, {len(left)} shared-memory files left behind"
    )
    return int(growth > MOST_GROWTH or threads > 0 or bool(left))


def _segments() -> set[str]:
    """Shared-memory files of the middleware."""
    return (
        {path.name for path in SHARED_MEMORY.glob("*fast*")} if SHARED_MEMORY.is_dir() else set()
    )


if __name__ == "__main__":
    sys.exit(main())
