"""The synchronizer against what message_filters does: five streams at 30 Hz, 600 reference images.

    python benchmarks/synchronizer.py

For each case: sets, wrongly paired members (of another exposure than the reference), members that
are missing although they arrived, the wait for the others, processor time and memory. Where ROS'
Python ``message_filters`` can be imported, its ApproximateTimeSynchronizer (queue 10, slop 10 ms)
gets the same messages.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from rich.table import Table

from unim2_core.cli.console import console, write_json
from unim2_core.sensing.synchronizer import MatchedSet, StreamPolicy, Synchronizer

STREAMS = ("rgb", "depth", "thermal", "nir", "polarization")
REFERENCE = "rgb"
IMAGES = 600
RATE_HZ = 30.0
START_S = 10.0
TRANSPORT_S = 0.004
OFFSET_S = 0.03
SILENT_FROM = 100
JUMP_BACK_S = 5.0
SLOP_S, QUEUE = 0.01, 10


@dataclass(frozen=True)
class Event:
    """One message: its stream, its stamp, which exposure it shows, when it arrives."""

    stream: str
    stamp_ns: int
    exposure: int
    arrival_ns: int


@dataclass(frozen=True)
class Case:
    """What is wrong with the streams."""

    name: str
    jitter_s: float = 0.0
    loss: float = 0.0
    silent: str = ""
    offset: str = ""
    jump_back: bool = False

    def events(self, seed: int) -> list[Event]:
        """All messages in the order of their arrival."""
        rng = np.random.default_rng(seed)
        events = []
        for stream in STREAMS:
            for index in range(IMAGES):
                due_s = START_S + index / RATE_HZ
                late_s = rng.normal(0, self.jitter_s)
                transport_s = TRANSPORT_S + abs(rng.normal(0, 0.001))
                lost = rng.random() < self.loss
                silent = stream == self.silent and index >= SILENT_FROM
                if lost or silent:
                    continue
                stamp_s = due_s + late_s + (OFFSET_S if stream == self.offset else 0.0)
                if self.jump_back and index >= IMAGES // 2:
                    stamp_s -= JUMP_BACK_S
                arrival_s = due_s + max(late_s, 0.0) + transport_s
                events.append(Event(stream, round(stamp_s * 1e9), index, round(arrival_s * 1e9)))
        return sorted(events, key=lambda event: event.arrival_ns)


CASES = (
    Case("quiet"),
    Case("5 ms jitter", jitter_s=0.005),
    Case("5 % loss", loss=0.05),
    Case("5 % loss, 5 ms jitter", loss=0.05, jitter_s=0.005),
    Case("one stream falls silent", silent="thermal"),
    Case("constant 30 ms offset, in the rig", offset="thermal", jitter_s=0.001),
    Case("clock jumps back", jump_back=True),
)


@dataclass
class Outcome:
    """Figures of one run."""

    references: int
    sets: int = 0
    wrong: int = 0
    avoidable: int = 0
    waits_ms: tuple[float, ...] = ()
    cpu_us: float = 0.0
    peak_kb: float = 0.0


def ours(case: Case, events: Sequence[Event]) -> Outcome:
    """Run our synchronizer over the messages."""

    def fresh() -> Synchronizer[int]:
        offset_s = {case.offset: -OFFSET_S}
        policies = {name: StreamPolicy(offset_s=offset_s.get(name, 0.0)) for name in STREAMS}
        return Synchronizer(REFERENCE, policies)

    def run(sync: Synchronizer[int]) -> list[MatchedSet[int]]:
        sets = []
        for event in events:
            sets += sync.add(event.stream, event.stamp_ns, event.exposure, event.arrival_ns)
        return sets + sync.flush()

    start = time.process_time()
    sets = run(fresh())
    outcome = _outcome(events)
    outcome.cpu_us = 1e6 * (time.process_time() - start) / len(events)
    came = {(event.stream, event.exposure) for event in events}
    for matched in sets:
        exposure = matched.members[REFERENCE].payload
        for stream in STREAMS[1:]:
            if stream in matched.members:
                outcome.wrong += matched.members[stream].payload != exposure
            else:
                outcome.avoidable += (stream, exposure) in came
    outcome.sets = len(sets)
    outcome.waits_ms = tuple(1e3 * matched.wait_s for matched in sets)
    tracemalloc.start()
    sync = fresh()
    for event in events:  # what it holds, not what it handed out
        sync.add(event.stream, event.stamp_ns, event.exposure, event.arrival_ns)
    outcome.peak_kb = tracemalloc.get_traced_memory()[1] / 1024
    tracemalloc.stop()
    return outcome


def message_filters(case: Case, events: Sequence[Event]) -> Outcome:
    """Run ROS' ApproximateTimeSynchronizer over the messages; it knows no offsets."""
    from builtin_interfaces.msg import Time
    from message_filters import ApproximateTimeSynchronizer, SimpleFilter

    filters = {name: SimpleFilter() for name in STREAMS}
    outcome = _outcome(events)

    def take(*messages: SimpleNamespace) -> None:
        outcome.sets += 1
        outcome.wrong += sum(one.exposure != messages[0].exposure for one in messages[1:])

    sync = ApproximateTimeSynchronizer(list(filters.values()), QUEUE, SLOP_S)
    sync.registerCallback(take)
    start = time.process_time()
    for event in events:
        stamp = Time(sec=event.stamp_ns // 10**9, nanosec=event.stamp_ns % 10**9)
        message = SimpleNamespace(header=SimpleNamespace(stamp=stamp), exposure=event.exposure)
        filters[event.stream].signalMessage(message)
    outcome.cpu_us = 1e6 * (time.process_time() - start) / len(events)
    return outcome


def _outcome(events: Sequence[Event]) -> Outcome:
    return Outcome(sum(event.stream == REFERENCE for event in events))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    runners: dict[str, Callable[[Case, Sequence[Event]], Outcome]] = {"ours": ours}
    if find_spec("message_filters"):
        runners["message_filters"] = message_filters
    else:
        console.print("message_filters is not installed here: its rows are left out")
    table = Table("case", "synchronizer", "sets of references", "wrong", "missing though it came",
                  "wait p50 ms", "p99 ms", "us a message", "% of a core", "peak KiB")  # fmt: skip
    content = []
    for case in CASES:
        for name, runner in runners.items():
            outcomes = [runner(case, case.events(seed)) for seed in range(options.seeds)]
            row = summary(outcomes)
            content.append({"case": case.name, "synchronizer": name, **row})
            table.add_row(case.name, name, *(str(value) for value in row.values()))
    console.print(f"{options.seeds} seeds, {len(STREAMS)} streams at {RATE_HZ:g} Hz")
    console.print(table)
    if options.json:
        write_json(options.json, content)


def summary(outcomes: Sequence[Outcome]) -> dict[str, str | int]:
    """The figures of several seeds: sums, and the worst of what is bounded."""
    waits = [wait for outcome in outcomes for wait in outcome.waits_ms]
    cpu_us = max(outcome.cpu_us for outcome in outcomes)
    measured = bool(waits)  # message_filters tells neither waits nor what is missing
    return {
        "sets": f"{sum(o.sets for o in outcomes)} of {sum(o.references for o in outcomes)}",
        "wrong": sum(o.wrong for o in outcomes),
        "avoidable": sum(o.avoidable for o in outcomes) if measured else "-",
        "p50_ms": f"{np.percentile(waits, 50):.1f}" if measured else "-",
        "p99_ms": f"{np.percentile(waits, 99):.1f}" if measured else "-",
        "us_a_message": f"{cpu_us:.1f}",
        "percent_of_a_core": f"{cpu_us * 1e-4 * RATE_HZ * len(STREAMS):.2f}",
        "peak_kib": f"{max(o.peak_kb for o in outcomes):.0f}" if measured else "-",
    }


if __name__ == "__main__":
    main()
