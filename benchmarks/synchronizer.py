"""What the synchronizer makes of five cameras, beside message_filters where that is installed.

    python benchmarks/synchronizer.py             # five seeds of 20 s
    python benchmarks/synchronizer.py --seeds 1

Five streams at 30 Hz for 20 s, the first the reference; all messages arrive 3 to 8 ms after the
exposure (those stamped later, after their stamp), and a timer ticks every 10 ms, as in the node.
Waits are in this virtual time; the time on the processor is real.

A set is *right* when all its members show the exposure that its reference shows. *left out* are
members that are missing though their message came. message_filters' ApproximateTimeSynchronizer
(queue of 10) has neither offsets nor a timer.
"""

from __future__ import annotations

import argparse
import random
import time
import tracemalloc
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from unim2_core.sensing.synchronizer import MatchedSet, StreamPolicy, Synchronizer

STREAMS = ("rgb", "depth", "thermal", "nir", "polarization")
RATE_HZ = 30
FRAMES = 20 * RATE_HZ
START_NS = 1_000_000_000_000
TICK_NS = 10_000_000
OFFSET_S = 0.030


class Message(NamedTuple):
    """One message; ``frame`` counts exposures."""

    arrival_ns: int
    stream: str
    stamp_ns: int
    frame: int


class Found(NamedTuple):
    """One set: the exposures in it, and how long its reference waited."""

    frames: dict[str, int]
    wait_s: float


@dataclass(frozen=True)
class Case:
    """What is wrong with the five streams."""

    name: str
    jitter_ms: float = 0.0
    loss: float = 0.0
    silent: bool = False
    offset: bool = False
    back: bool = False

    def messages(self, seed: int) -> list[Message]:
        """All messages in the order of their arrival."""
        return sorted(self._messages(random.Random(seed)))

    def _messages(self, rng: random.Random) -> Iterator[Message]:
        for stream in STREAMS:
            for frame in range(FRAMES):
                if rng.random() < self.loss or (self.silent and stream == STREAMS[1]):
                    continue
                if self.back and stream == STREAMS[1] and FRAMES // 2 - 15 <= frame < FRAMES // 2:
                    continue  # the others' queues are full when the clock goes back
                due_ns = frame * 1_000_000_000 // RATE_HZ
                late_ns = round(rng.gauss(0, self.jitter_ms) * 1e6)
                arrival_ns = START_NS + due_ns + max(late_ns, 0) + rng.randint(3, 8) * 1_000_000
                stamp_ns = START_NS + due_ns + late_ns
                if self.offset and stream == STREAMS[1]:
                    stamp_ns += round(OFFSET_S * 1e9)
                if self.back and frame >= FRAMES // 2:
                    stamp_ns -= 60_000_000_000
                yield Message(arrival_ns, stream, stamp_ns, frame)


Run = Callable[[Case, list[Message]], Iterator[Found]]

CASES = (
    Case("quiet"),
    Case("5 ms jitter", jitter_ms=5),
    Case("5 % loss, 1 ms jitter", loss=0.05, jitter_ms=1),
    Case("5 % loss, 5 ms jitter", loss=0.05, jitter_ms=5),
    Case("one silent stream", silent=True),
    Case("one stamped 30 ms late", offset=True),
    Case("clock back 60 s at 10 s", back=True),
)


def ours(case: Case, messages: list[Message]) -> Iterator[Found]:
    """The sets that ``Synchronizer`` makes."""
    policies = {name: StreamPolicy() for name in STREAMS}
    if case.offset:
        policies[STREAMS[1]] = StreamPolicy(offset_s=-OFFSET_S)
    sync: Synchronizer[int] = Synchronizer(STREAMS[0], policies)
    tick_ns = START_NS
    for arrival_ns, stream, stamp_ns, frame in messages:
        while tick_ns < arrival_ns:
            yield from map(found_in, sync.advance(tick_ns))
            tick_ns += TICK_NS
        yield from map(found_in, sync.add(stream, stamp_ns, frame, arrival_ns))
    yield from map(found_in, sync.flush())


def found_in(it: MatchedSet[int]) -> Found:
    """What is compared of one of our sets."""
    return Found({name: member.payload for name, member in it.members.items()}, it.wait_s)


def message_filters(slop_s: float) -> Run:
    """The sets that ROS' own makes, for one slop.

    Raises:
        ImportError: there is no message_filters, or no rclpy.
    """
    import message_filters
    from std_msgs.msg import Header

    @dataclass
    class Stamped:
        header: Any
        frame: int

    def run(case: Case, messages: list[Message]) -> Iterator[Found]:
        filters = [message_filters.SimpleFilter() for _ in STREAMS]
        sync = message_filters.ApproximateTimeSynchronizer(filters, 10, slop_s)
        out: list[Found] = []
        arrived: dict[int, int] = {}
        now_ns = 0

        def take(*found: Stamped) -> None:
            frames = {name: it.frame for name, it in zip(STREAMS, found, strict=True)}
            out.append(Found(frames, (now_ns - arrived[found[0].frame]) / 1e9))

        sync.registerCallback(take)
        entries = dict(zip(STREAMS, filters, strict=True))
        for arrival_ns, stream, stamp_ns, frame in messages:
            now_ns = arrival_ns
            if stream == STREAMS[0]:
                arrived[frame] = arrival_ns
            header = Header()
            header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
            entries[stream].signalMessage(Stamped(header, frame))
            yield from out
            out.clear()

    return run


@dataclass
class Score:
    """Sums over all seeds of a case."""

    references: int = 0
    sets: int = 0
    right: int = 0
    wrong: int = 0
    left_out: int = 0
    messages: int = 0
    cpu_s: float = 0.0
    peak_kib: float = 0.0
    waits_ms: list[float] = field(default_factory=list)

    def add(self, messages: list[Message], found: list[Found]) -> None:
        """Compare the sets of one run with the exposures."""
        came = {(message.stream, message.frame) for message in messages}
        self.references += sum(message.stream == STREAMS[0] for message in messages)
        self.messages += len(messages)
        self.sets += len(found)
        for frames, wait_s in found:
            frame = frames[STREAMS[0]]
            wrong = sum(other != frame for other in frames.values())
            self.wrong += wrong
            self.right += not wrong
            self.left_out += sum(name not in frames and (name, frame) in came for name in STREAMS)
            self.waits_ms.append(1e3 * wait_s)

    def row(self) -> list[str]:
        """The cells of the table."""
        waits = sorted(self.waits_ms) or [float("nan")]
        each_us = 1e6 * self.cpu_s / self.messages
        return [
            f"{self.sets}/{self.references}",
            str(self.right),
            str(self.wrong),
            str(self.left_out),
            f"{waits[len(waits) // 2]:.1f}/{waits[len(waits) * 99 // 100]:.1f}",
            f"{each_us:.1f}",
            f"{each_us * len(STREAMS) * RATE_HZ / 1e4:.2f} %",
            f"{self.peak_kib:.0f}",
        ]


def score(run: Run, case: Case, seeds: range) -> Score:
    """Run a case with every seed, once for the time and the sets, once for the memory."""
    result = Score()
    for seed in seeds:
        messages = case.messages(seed)
        start = time.process_time()
        found = list(run(case, messages))
        result.cpu_s += time.process_time() - start
        result.add(messages, found)
    tracemalloc.start()
    deque(run(case, messages), maxlen=0)
    result.peak_kib = tracemalloc.get_traced_memory()[1] / 1024
    tracemalloc.stop()
    return result


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, help="runs of each case, seeds 0, 1, ...")
    seeds = range(parser.parse_args().seeds)
    console = Console()
    console.width = max(console.width, 165)
    runs = {"unim2": ours}
    try:
        runs |= {
            f"message_filters {slop_ms} ms": message_filters(slop_ms / 1e3) for slop_ms in (10, 50)
        }
    except ImportError as error:
        console.print(f"message_filters is not here to compare with ({error})")
    table = Table(title=f"5 streams, {RATE_HZ} Hz, {FRAMES // RATE_HZ} s, {len(seeds)} seeds")
    for heading in (
        *("case", "by", "sets/references", "right", "wrong members", "left out"),
        *("wait p50/p99 ms", "us/message", "of a core", "peak KiB"),
    ):
        table.add_column(heading, justify="left" if heading in ("case", "by") else "right")
    for case in CASES:
        for name, run in runs.items():
            table.add_row(case.name, name, *score(run, case, seeds).row())
        table.add_section()
    console.print(table)


if __name__ == "__main__":
    main()
