"""What the node costs beside the engine, and whether it holds the cameras' rate.

    python benchmarks/node_overhead.py --seconds 20 --rate 30

Four cameras of 640x480, the node in a process of its own, an engine that answers at once, one
subscriber to the mask. ``all but engine`` is the time from a complete set (the arrival of the last
message that is used) to the last publication; ``sync`` is how long the reference waited for the
others before that. The figures are the node's own, over its last 300 outputs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import psutil
from live_sensors import running
from rich.table import Table

from unim2_core.cli.console import console, write_json

STAGES = ("sync", "decode", "encode", "register", "publish", "all but engine", "stamp to publish")


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the measurement")
    parser.add_argument("--rate", type=float, default=30.0, help="of each camera, Hz")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), options.rate, domain=92) as bench,
    ):
        process = psutil.Process(bench.process.pid)
        time.sleep(2)
        before, begin = process.cpu_times(), time.monotonic()
        seen = len(bench.listener.arrivals)
        time.sleep(options.seconds)
        after, length_s = process.cpu_times(), time.monotonic() - begin
        rate_hz = (len(bench.listener.arrivals) - seen) / length_s
        latency = bench.listener.values("segment: latency")
    cores = (after.user + after.system - before.user - before.system) / length_s
    table = Table("stage", "p50 ms", "p95 ms", "p99 ms")
    for stage in STAGES:
        table.add_row(stage, *(latency.get(f"{stage} p{p} ms", "-") for p in (50, 95, 99)))
    console.print(table)
    console.print(
        f"{rate_hz:.1f} Hz out of {options.rate:g} Hz in; the node takes {cores:.2f} of "
        f"{psutil.cpu_count()} cores"
    )
    if options.json:
        write_json(options.json, {"ms": latency, "rate_hz": rate_hz, "cores": cores})


if __name__ == "__main__":
    main()
