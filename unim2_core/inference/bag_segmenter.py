"""Segment a recorded drive: the same path as on a robot, bag in, bag out."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.drives import check_stamps, take
from unim2_core.errors import DecodeError
from unim2_core.inference.earlier_run import OUTPUTS, EarlierRun
from unim2_core.inference.pipeline import Pipeline, Segmentation
from unim2_core.sensing.bag_messages import image_message, stamp_ns
from unim2_core.sensing.bag_writer import BagWriter
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.intake import Intake, Parts
from unim2_core.sensing.synchronizer import MatchedSet
from unim2_core.showing.overlay import overlay
from unim2_core.showing.palette import color_table

Watch = Callable[[FrameSet, Segmentation], None]


@dataclass
class SegmentReport:
    """What became of a drive.

    Attributes:
        frames: reference images that were segmented.
        resumed: of these, how many were taken over from an interrupted run.
        used: modality -> in how many of them it took part.
        missing: ``modality: reason`` -> how often.
        registration: sensor -> how it was registered into the reference camera last.
        undecodable: why a reference image could not be decoded -> how often.
        counters: everything that the intake counted.
        latency_ms: stage -> one value per computed frame.
        stopped: why the bag could not be read to its end, else None.
    """

    frames: int = 0
    resumed: int = 0
    used: Counter[str] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    registration: dict[str, str] = field(default_factory=dict)
    undecodable: Counter[str] = field(default_factory=Counter)
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
            "registration": self.registration,
            "undecodable": dict(self.undecodable),
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

    def __init__(self, pipeline: Pipeline, *, keep: bool = False) -> None:
        """Prepare.

        Args:
            pipeline: the model.
            keep: copy the input's messages into the output.
        """
        self._pipeline = pipeline
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
            watch: called with each frame set that was computed and its segmentation.

        Raises:
            Unim2Error: nothing can be segmented, or the output cannot be written.
        """
        report = SegmentReport()
        intake = Intake(self._pipeline.rig)
        with EarlierRun(out, self._fingerprint(reader)) as earlier, BagWriter(out) as writer:
            earlier.claim()
            first_error: DecodeError | None = None
            for matched, log_ns in self._matched(reader, intake, writer, progress):
                try:
                    self._segment(matched, log_ns, intake, earlier, writer, report, watch)
                except DecodeError as error:  # the other images of the bag may be whole
                    report.undecodable[error.what] += 1
                    first_error = first_error or error
            if first_error and not report.frames:
                raise first_error
            check_stamps(intake, report.frames)
        report.counters = {key: count for key, count in intake.counters.items() if count}
        report.registration = self._pipeline.registration
        report.stopped = reader.stopped
        return report

    def _fingerprint(self, reader: BagReader) -> str:
        """What the outputs depend on; drives are told apart by their extent and first image."""
        first = next(reader.messages([self._pipeline.rig.reference_topic]), None)
        image = hashlib.sha256(first.raw).hexdigest() if first else "no image"
        counts = {name: topic.count for name, topic in sorted(reader.topics.items())}
        drive = f"{reader.start_ns} {reader.end_ns} {counts} {image}"
        pipeline = self._pipeline
        return f"{pipeline.bundle.version} {pipeline.settings} {pipeline.rig.dump()} {drive}"

    def _matched(
        self, reader: BagReader, intake: Intake, writer: BagWriter, progress: Callable[[int], None]
    ) -> Iterator[tuple[MatchedSet[Parts], int]]:
        """Sets, each with the log time at which a live node would have had it."""
        wanted = {*intake.topics, *intake.info_topics} & set(reader.topics)
        log_ns = reader.start_ns
        for count, message in enumerate(reader.messages(None if self._keep else wanted), start=1):
            progress(count)
            log_ns = message.log_ns
            if self._keep and message.topic not in OUTPUTS:
                writer.write_raw(message)
            for matched in take(intake, message):
                yield matched, log_ns
        for matched in intake.flush():
            yield matched, log_ns

    def _segment(
        self,
        matched: MatchedSet[Parts],
        log_ns: int,
        intake: Intake,
        earlier: EarlierRun,
        writer: BagWriter,
        report: SegmentReport,
        watch: Watch | None,
    ) -> None:
        start = time.perf_counter()
        frames = intake.decode(matched)
        decoded = time.perf_counter()
        header = next(iter(matched.members[frames.reference].payload.values())).header
        outputs = earlier.outputs(stamp_ns(header))
        report.frames += 1
        if outputs:
            encoded = self._pipeline.encode(frames)  # keeps running ranges as they were
            report.resumed += 1
            for message in outputs:
                writer.write_raw(message)
        else:
            result = self._pipeline(frames)
            encoded = result.encoded
            computed = time.perf_counter()
            self._write(frames, result, header, log_ns, writer)
            report.latency_ms["decode"].append(1e3 * (decoded - start))
            for stage, milliseconds in result.latency_ms.items():
                report.latency_ms[stage].append(milliseconds)
            report.latency_ms["write"].append(1e3 * (time.perf_counter() - computed))
            if watch:
                watch(frames, result)
        report.used.update(encoded.images.keys())
        report.missing.update(f"{name}: {reason}" for name, reason in encoded.missing.items())

    def _write(
        self,
        frames: FrameSet,
        result: Segmentation,
        header: Any,
        log_ns: int,
        writer: BagWriter,
    ) -> None:
        pictures: tuple[tuple[NDArray[np.uint8], str], ...] = (
            (result.classes, "mono8"),
            (result.confidence, "mono8"),
            (overlay(result.picture(frames), result.classes, self._colors), "rgb8"),
        )
        for topic, (pixels, encoding) in zip(OUTPUTS, pictures, strict=True):
            message = image_message(pixels, encoding, stamp_ns(header), header.frame_id)
            writer.write(topic, message, log_ns)
