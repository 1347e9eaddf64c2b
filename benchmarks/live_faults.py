"""Sensors that die and come back, jitter, loss, offset and a clock that jumps, under load.

    python benchmarks/live_faults.py --seconds 4 --rate 30

Four cameras of 640x480, the node in a process of its own, an engine that answers at once;
where rgb is silent the node falls back to depth, then to thermal. A row a
case: the output's rate, the longest time without an output, the share of images that each sensor
took part in while the fault was there, and how long after its end the first report came in which
every sensor took part in every image again (reports are a second apart).
"""

from __future__ import annotations

import argparse
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from live_sensors import ENCODINGS, Bench, Fault, running
from rich.table import Table

from unim2_core.cli.console import console, write_json

FALLBACK = "fallback_references:=depth,thermal"
RECOVERY_S = 6.0
_WITHOUT = re.compile(r"(\d+) of (\d+)")

Set = Callable[[Bench], None]


def _faulty(**faults: Fault) -> Set:
    def put(bench: Bench) -> None:
        bench.sensors.faults.update(faults)

    return put


def every(fault: Callable[[], Fault]) -> Set:
    """Put a fault on all four."""
    return _faulty(**{sensor: fault() for sensor in ENCODINGS})


def _jump(seconds: float) -> Set:
    def put(bench: Bench) -> None:
        bench.sensors.clock_s += seconds

    return put


CASES: dict[str, Set] = {
    "nothing": _faulty(),
    **{f"{sensor} is dead": _faulty(**{sensor: Fault(dead=True)}) for sensor in ENCODINGS},
    "rgb and depth are dead": _faulty(rgb=Fault(dead=True), depth=Fault(dead=True)),
    "jitter of 10 ms on all": every(lambda: Fault(jitter_s=0.01)),
    "5 % loss on all": every(lambda: Fault(loss=0.05)),
    "thermal stamps 30 ms late": _faulty(thermal=Fault(offset_s=0.03)),
    "all clocks jump back 10 s": _jump(-10.0),
    "all clocks jump forward 10 s": _jump(10.0),
}


def measure(bench: Bench, put: Set, seconds: float) -> dict[str, float]:
    """Put a fault, take the figures, take it away, wait for recovery."""
    begin = time.monotonic()
    put(bench)
    time.sleep(seconds)
    end = time.monotonic()
    arrivals = np.array(bench.listener.arrivals)
    inside = arrivals[(arrivals >= begin) & (arrivals <= end)]
    gaps = np.diff([begin, *inside, end])
    figures = {"rate_hz": len(inside) / (end - begin), "gap_ms": 1e3 * gaps.max()}
    reports = [entries for at, entries in bench.listener.reports if begin + 1 < at <= end + 0.5]
    for sensor in ENCODINGS:
        figures[f"{sensor} %"] = 100 * _share(reports, sensor)
    every(Fault)(bench)
    cured = time.monotonic()
    figures["recovery_s"] = float("nan")
    while time.monotonic() < cured + RECOVERY_S:
        time.sleep(0.1)
        at, entries = bench.listener.reports[-1]
        whole = all(_share([entries], sensor) == 1 for sensor in ENCODINGS)
        flowing = any(arrival > cured for arrival in bench.listener.arrivals[-5:])
        if at > cured and whole and flowing:
            figures["recovery_s"] = at - cured
            break
    return figures


def _share(reports: list[dict], sensor: str) -> float:
    """Share of the images of some reports that a sensor took part in; 1 where nothing is told."""
    without = whole = 0
    for entries in reports:
        entry = entries.get(f"segment: {sensor}")
        for item in entry.values if entry else ():
            found = _WITHOUT.match(item.value)
            if item.key == "images without it" and found:
                without += int(found[1])
                whole += int(found[2])
    return 1 - without / whole if whole else 1.0


def main() -> None:
    """Run every case and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each fault")
    parser.add_argument("--rate", type=float, default=30.0, help="of each camera, Hz")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    rows = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), options.rate, FALLBACK, domain=91) as bench,
    ):
        time.sleep(2)
        for name, put in CASES.items():
            rows[name] = measure(bench, put, options.seconds)
        survived = bench.process.poll() is None
    columns = ("Hz out", "longest gap ms", *(f"{s} used %" for s in ENCODINGS), "recovered s")
    table = Table("fault", *columns, title=f"four cameras 640x480 at {options.rate:g} Hz")
    for name, figures in rows.items():
        table.add_row(name, *(f"{value:.1f}" for value in figures.values()))
    console.print(table)
    console.print(f"the node {'lived through all of it' if survived else 'DIED'}")
    if options.json:
        write_json(options.json, rows)


if __name__ == "__main__":
    main()
