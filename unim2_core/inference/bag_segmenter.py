"""Segment a recorded drive: the same path as on a robot, bag in, bag out."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from unim2_core.data.drives import check_stamps
from unim2_core.errors import DecodeError
from unim2_core.inference.pipeline import Pipeline, Segmentation
from unim2_core.sensing.bag_writer import BagWriter
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.intake import Intake, Parts
from unim2_core.sensing.rig import Rig
from unim2_core.sensing.synchronizer import MatchedSet
from unim2_core.showing.palette import color_table

OUTPUTS = ("/segment/segmentation", "/segment/confidence", "/segment/overlay")

Watch = Callable[[FrameSet, Segmentation], None]


@dataclass
class SegmentReport:
    """What became of a drive.

    Attributes:
        frames: reference images that were segmented.
        resumed: of these, how many were taken over from an interrupted run.
        used: modality -> in how many of them it took part.
        missing: ``modality: reason`` -> how often.
        counters: everything that the intake counted.
        latency_ms: stage -> one value per computed frame.
        stopped: why the bag could not be read to its end, else None.
    """

    frames: int = 0
    resumed: int = 0
    used: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    counters: dict[str, int] = field(default_factory=dict)
    latency_ms: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    stopped: str | None = None

    def summary(self) -> dict[str, Any]:
        """JSON-able, latencies as p50, p95 and p99."""
        return {
            "frames": self.frames,
            "resumed": self.resumed,
            "used": dict(self.used),
            "missing": dict(self.missing),
            "counters": self.counters,
            "latency_ms": {
                stage: {
                    f"p{percent}": round(float(np.percentile(values, percent)), 3)
                    for percent in (50, 95, 99)
                }
                for stage, values in self.latency_ms.items()
            },
            "stopped": self.stopped,
        }


class BagSegmenter:
    """Writes classes, confidence and an overlay for each reference image of a bag."""

    def __init__(self, pipeline: Pipeline, rig: Rig, *, keep: bool = False) -> None:
        """Prepare.

        Args:
            pipeline: the model.
            rig: which topics to read and how.
            keep: copy the input's messages into the output.
        """
        self._pipeline = pipeline
        self._rig = rig
        self._keep = keep
        self._colors = color_table(
            {label.id: label.color for label in pipeline.bundle.manifest.labels}
        )

    def run(
        self,
        reader: BagReader,
        out: Path,
        progress: Callable[[int], None],
        watch: Watch | None = None,
    ) -> SegmentReport:
        """Segment a bag.

        Args:
            reader: the open bag.
            out: the bag to write; it has that name only once it is complete.
            progress: called with the number of messages read.
            watch: called with each frame set and its segmentation.

        Raises:
            Unim2Error: nothing can be segmented, or the output cannot be written.
        """
        report = SegmentReport()
        intake = Intake(self._rig)
        with BagWriter(out) as writer:
            for matched in self._matched(reader, intake, writer, progress):
                self._segment(matched, intake, writer, report, watch)
            check_stamps(intake, report.frames)
        report.counters = {key: count for key, count in intake.counters.items() if count}
        report.stopped = reader.stopped
        return report

    def _matched(
        self, reader: BagReader, intake: Intake, writer: BagWriter, progress: Callable[[int], None]
    ) -> Iterator[MatchedSet[Parts]]:
        wanted = None if self._keep else [name for name in intake.topics if name in reader.topics]
        for count, message in enumerate(reader.messages(wanted), start=1):
            progress(count)
            if self._keep and message.topic not in OUTPUTS:
                writer.write_raw(message)
            if message.topic in intake.topics:
                yield from intake.add(message.topic, message.decode(), message.log_ns)
        yield from intake.flush()

    def _segment(
        self,
        matched: MatchedSet[Parts],
        intake: Intake,
        writer: BagWriter,
        report: SegmentReport,
        watch: Watch | None,
    ) -> None:
        start = time.perf_counter()
        try:
            frames = intake.decode(matched)
        except DecodeError:
            return  # the intake counted it; the other images of the bag may be whole
        decoded = time.perf_counter()
        result = self._pipeline(frames)
        written = time.perf_counter()
        self._write(matched, frames, result, writer)
        report.latency_ms["decode"].append(1e3 * (decoded - start))
        for stage, milliseconds in result.latency_ms.items():
            report.latency_ms[stage].append(milliseconds)
        report.latency_ms["write"].append(1e3 * (time.perf_counter() - written))
        report.frames += 1
        report.used.update(result.used)
        report.missing.update(f"{name}: {reason}" for name, reason in result.missing.items())
        if watch:
            watch(frames, result)
