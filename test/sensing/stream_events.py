"""Messages of several cameras in the order of their arrival, and what was matched of them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from unim2_core.sensing.synchronizer import MatchedSet, StreamPolicy, Synchronizer

MS = 1_000_000
SECOND = 1_000_000_000
START = 100 * SECOND
PERIOD = SECOND // 30


@dataclass(frozen=True)
class Event:
    """One message: the payload is the number of the exposure it shows."""

    stream: str
    stamp_ns: int
    frame: int
    arrival_ns: int


def camera(
    stream: str,
    frames: Iterable[int],
    rng: random.Random,
    *,
    period_ns: int = PERIOD,
    start_ns: int = START,
    jitter_ms: float = 0.0,
    loss: float = 0.0,
    latency_ms: tuple[float, float] = (3.0, 8.0),
) -> list[Event]:
    """A camera that exposes at a steady beat: normal jitter on the stamps, uniform latency."""
    events = []
    for frame in frames:
        if rng.random() < loss:
            continue
        due_ns = start_ns + frame * period_ns
        stamp_ns = due_ns + round(rng.gauss(0.0, jitter_ms) * MS)
        arrival_ns = max(stamp_ns, due_ns) + round(rng.uniform(*latency_ms) * MS)
        events.append(Event(stream, stamp_ns, frame, arrival_ns))
    return events


def by_arrival(*streams: Sequence[Event]) -> list[Event]:
    """All messages in the order in which they arrive."""
    return sorted((event for stream in streams for event in stream), key=lambda e: e.arrival_ns)


def synchronizer(
    *others: str, deadline_s: float = 0.05, **policies: StreamPolicy
) -> Synchronizer[int]:
    """One with the reference ``rgb``."""
    streams: Mapping[str, StreamPolicy] = {
        "rgb": StreamPolicy(),
        **{name: StreamPolicy() for name in others},
        **policies,
    }
    return Synchronizer("rgb", streams, deadline_s)


def play(sync: Synchronizer[int], events: Iterable[Event]) -> list[MatchedSet[int]]:
    """Everything that comes out while the messages come in."""
    return [
        found
        for event in events
        for found in sync.add(event.stream, event.stamp_ns, event.frame, event.arrival_ns)
    ]


def frames_of(found: MatchedSet[int]) -> dict[str, int]:
    """Stream -> number of the exposure."""
    return {name: member.payload for name, member in found.members.items()}


def warmed_up(
    frames: int = 20, period_ns: int = PERIOD, **policies: StreamPolicy
) -> Synchronizer[int]:
    """Has seen rgb and depth arrive together, ``frames`` times; depth 1 ms before rgb."""
    sync = synchronizer(**({"depth": StreamPolicy()} | policies))
    for frame in range(-frames, 0):
        stamp_ns = START + frame * period_ns
        sync.add("depth", stamp_ns, frame, stamp_ns)
        assert len(sync.add("rgb", stamp_ns, frame, stamp_ns + MS)) == 1
    return sync


def only(found: list[MatchedSet[int]]) -> MatchedSet[int]:
    assert len(found) == 1
    return found[0]
