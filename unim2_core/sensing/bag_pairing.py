"""How well the streams of a bag can be synchronised, and what to do where they cannot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unim2_core.sensing.bag_summary import BagSummary, Stamps, TopicSummary

STEADY = 0.8
"""Length of the mean skew as a unit vector, from which on it counts as constant."""
ADVICE = "set stamp: arrival for this sensor in the rig, or mend its driver"


@dataclass(frozen=True)
class Pairing:
    """One stream beside the reference stream.

    Attributes:
        reference: topic of the reference images.
        topic: topic of the other images.
        limit_s: largest skew that counts as a pair: half a period of the slower stream, and its
            jitter, seconds.
        share: reference images that have a partner within the limit, 0 to 1.
        median_skew_s: median distance to the nearest partner, seconds; None without overlap.
        p95_skew_s: its 95th percentile, seconds.
        offset_s: constant part of the skew, the stream's stamps minus the reference's, seconds;
            it is known only up to whole periods of the stream. None where the skew drifts, as
            between cameras that run freely.
        overlap_s: time that the stamps of both streams cover, seconds; negative: their distance.
        log_overlap_s: the same by log times.
        clock_s: to be added to the stream's stamps so that both take equally long from stamp to
            log, seconds; None where one has no stamps.
    """

    reference: str
    topic: str
    limit_s: float
    share: float
    median_skew_s: float | None
    p95_skew_s: float | None
    offset_s: float | None
    overlap_s: float
    log_overlap_s: float
    clock_s: float | None


def pair(reference: TopicSummary, other: TopicSummary) -> Pairing:
    """Compare the stamps of a stream with those of the reference."""
    reference_ns, other_ns = np.sort(reference.times_ns), np.sort(other.times_ns)
    overlap_s = _overlap_s(reference_ns, other_ns)
    slower = max(reference, other, key=lambda topic: topic.period_s or 0.0)
    limit_s = (slower.period_s or 0.0) / 2 + (slower.jitter_s or 0.0)
    skew_s = _nearest_s(reference_ns, other_ns)
    close = abs(skew_s) <= limit_s
    known = overlap_s >= 0
    delays = reference.delay_s, other.delay_s
    return Pairing(
        reference=reference.info.name,
        topic=other.info.name,
        limit_s=limit_s,
        share=float(close.mean()) if close.size else 0.0,
        median_skew_s=float(np.median(abs(skew_s))) if known else None,
        p95_skew_s=float(np.percentile(abs(skew_s), 95)) if known else None,
        offset_s=_offset_s(skew_s[close], other.period_s) if known else None,
        overlap_s=overlap_s,
        log_overlap_s=_overlap_s(np.sort(reference.log_ns), np.sort(other.log_ns)),
        clock_s=None
        if delays[0] is None or delays[1] is None
        else float(delays[1][0] - delays[0][0]),
    )


def findings(summary: BagSummary, pairings: list[Pairing]) -> list[str]:
    """What is wrong in a bag, each with what to do about it."""
    found = []
    for topic in summary.topics.values():
        name = topic.info.name
        if topic.problem:
            found.append(f"{name}: {topic.problem}")
        if topic.zero_stamps:
            found.append(
                f"{name}: {topic.zero_stamps} of {topic.log_ns.size} stamps are zero; {ADVICE}"
            )
        if topic.backward_steps:
            found.append(
                f"{name}: stamps run backwards {topic.backward_steps} times: a clock was set or a "
                f"simulation restarted, and what waits then is dropped; {ADVICE}"
            )
    found.extend(text for pairing in pairings if (text := _pairing_finding(pairing)))
    return found


def _pairing_finding(pairing: Pairing) -> str:
    name, reference = pairing.topic, pairing.reference
    if pairing.overlap_s >= 0:
        return ""
    apart = f"{name} and {reference} do not overlap in time"
    if pairing.log_overlap_s < 0:
        return (
            f"{apart}: they were recorded {-pairing.log_overlap_s:.3f} s apart; "
            "record both at once, or leave this sensor out"
        )
    advice = f"{apart}, though they were recorded together: their clocks differ; "
    if pairing.clock_s is None:
        return advice + ADVICE
    return f"{advice}set offset_s: {pairing.clock_s:.3f} for it in the rig, or stamp: arrival"


def _nearest_s(reference_ns: Stamps, other_ns: Stamps) -> NDArray[np.float64]:
    """(N,) skew of the nearest stamp of the other stream to each of the reference, seconds."""
    after = np.searchsorted(other_ns, reference_ns)
    later = other_ns[np.minimum(after, other_ns.size - 1)] - reference_ns
    earlier = other_ns[np.maximum(after - 1, 0)] - reference_ns
    return np.where(abs(later) < abs(earlier), later, earlier) * 1e-9


def _offset_s(skew_s: NDArray[np.float64], period_s: float | None) -> float | None:
    """Mean skew on the circle of one period: near half a period the nearest partner flips."""
    if not skew_s.size or not period_s:
        return None
    turns = np.exp(2j * np.pi * skew_s / period_s).mean()
    if abs(turns) < STEADY:
        return None
    return float(np.angle(turns) / (2 * np.pi) * period_s)


def _overlap_s(one_ns: Stamps, other_ns: Stamps) -> float:
    return float(min(one_ns[-1], other_ns[-1]) - max(one_ns[0], other_ns[0])) * 1e-9
