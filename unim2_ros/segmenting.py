"""The active node's work: messages in, matched sets to a worker, results to the outputs."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from unim2_core.errors import DecodeError, Unim2Error
from unim2_core.sensing.intake import Matching, Parts
from unim2_core.sensing.rig import Rig
from unim2_core.sensing.synchronizer import MatchedSet
from unim2_ros.diagnostics import sensor_status
from unim2_ros.latency import LatencyWindow
from unim2_ros.model_server import ModelServer
from unim2_ros.outputs import Made, Outputs
from unim2_ros.sensor_facts import SensorFacts
from unim2_ros.snapshots import Snapshots
from unim2_ros.streams import Streams
from unim2_ros.worker import LatestWorker

LOG_PERIOD_S = 5.0
KEPT = ("sets", "resets", "published")
"""Counts that are no drops."""
SUPERSEDED = "superseded by a newer set"
IDLE = "idle, nobody subscribes"
PAUSED = "paused"
ENGINE = ("backbone", "head")
"""Stages that the engine takes; all else, from a complete set to the last publication, is ours."""
_Work = tuple[MatchedSet[Parts], float]  # a set, and when it was complete


@dataclass(eq=False)
class Record:
    """What became of everything since the node was started, over all its activations.

    Attributes:
        counts: fate or ``sensor/reason`` -> number, of activations that have ended.
        latency: of the last outputs.
        problem: the last failure since the last report.
    """

    counts: Counter[str] = field(default_factory=Counter)
    latency: LatencyWindow = field(default_factory=LatencyWindow)
    problem: str = ""


class Segmenting:
    """Subscriptions, synchronisation and the worker, from activation to deactivation.

    Callbacks only hand over; one worker does the work.

    Attributes:
        paused: sets are counted, not worked on.
    """

    def __init__(
        self,
        node: Node,
        server: ModelServer,
        outputs: Outputs,
        rig: Rig,
        record: Record,
        snapshots: Snapshots,
        matching: Matching | None = None,
        *,
        paused: bool = False,
    ) -> None:
        """Subscribe and begin.

        Args:
            node: the node.
            server: what to segment with.
            outputs: where results go.
            rig: the sensors, with what parameters change in them.
            record: where counts go.
            snapshots: keep what came in last.
            matching: see ``Intake``.
            paused: begin paused.
        """
        self.paused = paused
        self._node, self._server, self._outputs = node, server, outputs
        self._record, self._snapshots = record, snapshots
        self._skipped: Counter[str] = Counter({IDLE: 0})
        self._facts = {name: SensorFacts(sensor) for name, sensor in rig.sensors.items()}
        self._leading = rig.reference
        self._streams = Streams(node, rig, self._hand_over, matching, self._noted)
        self._worker: LatestWorker[_Work] = LatestWorker(self._segment, self._failed)

    @property
    def rig(self) -> Rig:
        """The sensors, as they are read now."""
        return self._streams.rig

    def retune(self, rig: Rig) -> None:
        """Go on with other times, rates and required sensors."""
        self._streams.retune(rig)
        self._facts = {name: SensorFacts(sensor) for name, sensor in rig.sensors.items()}

    @property
    def fallback(self) -> str:
        """The sensor whose images are segmented in place of the reference's; empty: none."""
        return "" if self._leading == self.rig.reference else self._leading

    # --- in ---------------------------------------------------------------------------------

    def _noted(self, topic: str, sensor: str, message: Any, now_ns: int) -> None:
        if sensor:
            self._facts[sensor].note(message, now_ns)
        self._snapshots.add(topic, message, now_ns)

    def _hand_over(self, matched: list[MatchedSet[Parts]]) -> None:
        for one in matched:
            self._lead(one.reference)
            for name, facts in self._facts.items():
                facts.note_set(one.missing, name)
            if self.paused:
                self._skipped[PAUSED] += 1
            elif self._outputs.lazy and not self._outputs.wanted:
                self._skipped[IDLE] += 1
            else:
                self._worker.put((one, time.perf_counter()))

    def _lead(self, sensor: str) -> None:
        if sensor != self._leading:
            before, self._leading = self._leading, sensor
            self._node.get_logger().info(
                f"the outputs are for {sensor} images now, and were for {before} images"
            )

    # --- work -------------------------------------------------------------------------------

    def _segment(self, work: _Work) -> None:
        matched, complete = work
        start = time.perf_counter()
        pipeline = self._server.pipeline  # once: it may be replaced meanwhile
        frames = self._streams.decode(matched)
        for sensor in frames.missing.keys() - matched.missing.keys():
            self._facts[sensor].unusable = frames.missing[sensor]
        decoded = time.perf_counter()
        for sensor, extrinsics in self._streams.transforms.found.items():
            pipeline.place(sensor, extrinsics)
            self._outputs.cloud.place(sensor, extrinsics)
        result = pipeline(frames, self._outputs.stride)
        for sentence in pipeline.news():
            self._node.get_logger().info(sentence)
        engine_done = time.perf_counter()
        reference = matched.members[frames.reference].payload
        made = Made(
            next(iter(reference.values())).header,
            frames,
            result,
            self._server.bundle(result.version),
            self._server.colors(result.version),
            pipeline.engine.backend,
            self._streams.camera_info(frames.reference),
        )
        published = self._outputs.publish(made, self._drops)
        done, now_ns = time.perf_counter(), self._node.get_clock().now().nanoseconds
        self._snapshots.add_outputs(published, now_ns)
        engine_ms = sum(result.latency_ms.get(stage, 0.0) for stage in ENGINE)
        self._record.latency.add(
            {
                "sync": 1e3 * matched.wait_s,
                "decode": 1e3 * (decoded - start),
                **result.latency_ms,
                "publish": 1e3 * (done - engine_done),
                "all but engine": 1e3 * (done - complete) - engine_ms,
                "stamp to publish": (now_ns - matched.stamp_ns) / 1e6,
            }
        )

    def _failed(self, error: Exception) -> None:
        known = isinstance(error, Unim2Error)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        if not isinstance(error, DecodeError):
            text = f"frame dropped: {text}"
        self._record.problem = text
        self._node.get_logger().error(text, throttle_duration_sec=LOG_PERIOD_S)

    # --- out --------------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """Every image that was to be segmented, by what became of it, and other counts."""
        return {
            **self._streams.counters,
            "published": self._worker.finished,
            SUPERSEDED: self._worker.superseded,
            "failed": self._worker.failed,
            **self._skipped,
        }

    def _drops(self) -> Mapping[str, int]:
        return {key: count for key, count in self.counters().items() if key not in KEPT}

    def sensor_entries(self, name: str, counts: Mapping[str, int]) -> list[DiagnosticStatus]:
        """One entry of diagnostics for each image topic.

        Args:
            name: of the node.
            counts: all counts.
        """
        newest_ns = self._facts[self._leading].newest_ns
        told = {
            sensor: facts.take(0 if sensor == self._leading else newest_ns)
            for sensor, facts in self._facts.items()
        }
        entries = []
        for source in self._streams.inputs:
            source.follow_publishers()
            wrong, values = told[source.sensor]
            wrong = wrong or self._streams.transforms.missing(source.sensor)
            entries.append(sensor_status(name, source, counts, wrong, values))
        return entries

    def close(self) -> None:
        """Unsubscribe, let the frame at hand finish, and add the counts to the record."""
        self._streams.close()
        self._worker.stop()
        self._record.counts.update(self.counters())
