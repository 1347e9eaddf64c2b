#!/usr/bin/env python3
"""The live node: images in, classes out. Callbacks only hand over; one worker does the work."""

from __future__ import annotations

import sys
import threading
import time
from functools import partial
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from unim2_core.errors import DecodeError, Unim2Error
from unim2_core.inference.pipeline import Pipeline, Segmentation
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.intake import Intake, Parts
from unim2_core.sensing.synchronizer import MatchedSet
from unim2_core.showing.overlay import overlay
from unim2_core.showing.palette import color_table
from unim2_ros.diagnostics import report, sensor_status, status
from unim2_ros.inputs import ImageInput
from unim2_ros.latency import PERCENTILES, WINDOW, LatencyWindow
from unim2_ros.lifetime import ros, spin
from unim2_ros.messages import image_message
from unim2_ros.parameters import declare
from unim2_ros.status import SegmentationStatus, status_message
from unim2_ros.worker import LatestWorker

TICK_S = 0.005
"""How late a passed deadline may be noticed."""
KEPT = ("sets", "resets", "published")
"""Counts that are no drops."""
REPORT_PERIOD_S = 1.0
LOG_PERIOD_S = 5.0
LAST_REPORT_S = 0.5


class SegmentNode(Node):
    """Subscribes to the rig's images and publishes a segmentation for each reference image."""

    def __init__(self) -> None:
        super().__init__("segment")
        self._settings = declare(self)
        bundle = Bundle(Path(self._settings.model))
        sensors = tuple(dict.fromkeys(entry.sensor for entry in bundle.manifest.modalities))
        self._pipeline = Pipeline(
            bundle,
            self._settings.load_rig(sensors),
            self._settings.backend,
            self._settings.threads,
            self._settings.precision,
            self._settings.half_auxiliaries,
        )
        for sentence in self._pipeline.shortcomings:
            self.get_logger().warning(sentence)
        rig = self._pipeline.rig
        self._intake = Intake(rig)
        self._intake_lock = threading.Lock()
        self._colors = color_table({label.id: label.color for label in bundle.manifest.labels})
        self._latency = LatencyWindow()
        self._idle = 0
        self._problem = ""  # the last failure since the last report
        self._outputs = {
            name: self._output(name) for name in ("segmentation", "confidence", "overlay")
        }
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._status = self._status_output()
        self._worker: LatestWorker[MatchedSet[Parts]] = LatestWorker(self._segment, self._failed)
        self._inputs = [
            ImageInput(
                self,
                topic,
                sensor,
                self._arrived,
                one_of_several=bool(rig.sensors[sensor].topics),
            )
            for topic, sensor in self._intake.topics.items()
        ]
        for topic in self._intake.info_topics:
            self.create_subscription(
                CameraInfo, topic, partial(self._calibrated, topic), qos_profile_sensor_data
            )
        # By the wall: with use_sim_time a bag that pauses, or no /clock at all, is to be reported.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(TICK_S, self._tick, clock=steady)
        self.create_timer(REPORT_PERIOD_S, self._report, clock=steady)
        self.get_logger().info(
            f"{bundle.manifest.summary}; version {bundle.version}, {self._pipeline.engine.summary}"
        )

    # --- inputs -----------------------------------------------------------------------------

    def _arrived(self, topic: str, sensor: str, message: Image | CompressedImage) -> None:
        now = self.get_clock().now().nanoseconds
        with self._intake_lock:
            self._hand_over(self._intake.add(topic, message, now))

    def _calibrated(self, topic: str, message: CameraInfo) -> None:
        with self._intake_lock:
            self._intake.add_camera_info(topic, message)

    def _tick(self) -> None:
        with self._intake_lock:
            self._hand_over(self._intake.advance(self.get_clock().now().nanoseconds))

    def _hand_over(self, matched: list[MatchedSet[Parts]]) -> None:
        for one in matched:
            if self._settings.lazy and not self._wanted():
                self._idle += 1
            else:
                self._worker.put(one)

    # --- work -------------------------------------------------------------------------------

    def _segment(self, matched: MatchedSet[Parts]) -> None:
        start = time.perf_counter()
        frames = self._intake.decode(matched)
        decoded = time.perf_counter()
        result = self._pipeline(frames)
        for sentence in self._pipeline.news():
            self.get_logger().info(sentence)
        engine_done = time.perf_counter()
        self._publish(matched, frames, result)
        self._latency.add(
            {
                "sync": 1e3 * matched.wait_s,
                "decode": 1e3 * (decoded - start),
                **result.latency_ms,
                "publish": 1e3 * (time.perf_counter() - engine_done),
                "stamp to publish": (self.get_clock().now().nanoseconds - matched.stamp_ns) / 1e6,
            }
        )

    def _failed(self, error: Exception) -> None:
        known = isinstance(error, Unim2Error)
        text = str(error) if known else f"{type(error).__name__}: {error}"
        if not isinstance(error, DecodeError):
            text = f"frame dropped: {text}"
        self._problem = text
        self.get_logger().error(text, throttle_duration_sec=LOG_PERIOD_S)

    # --- outputs ----------------------------------------------------------------------------

    def _output(self, name: str):
        return self.create_publisher(
            Image,
            f"~/{name}",
            QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _status_output(self):
        if SegmentationStatus is None:
            self.get_logger().info(
                "~/status is not published: unim2_ros/SegmentationStatus is not built here"
            )
            return None
        return self.create_publisher(SegmentationStatus, "~/status", 1)

    def _wanted(self) -> bool:
        outputs = [*self._outputs.values(), *filter(None, [self._status])]
        return any(output.get_subscription_count() for output in outputs)

    def _publish(self, matched: MatchedSet[Parts], frames: FrameSet, result: Segmentation) -> None:
        reference = matched.members[frames.reference].payload
        header = next(iter(reference.values())).header
        pictures = {
            "segmentation": lambda: (result.classes, "mono8"),
            "confidence": lambda: (result.confidence, "mono8"),
            "overlay": lambda: (self._overlay(frames, result), "rgb8"),
        }
        for name, picture in pictures.items():
            output = self._outputs[name]
            if output.get_subscription_count() or not self._settings.lazy:
                output.publish(image_message(*picture(), header))
        if self._status and self._status.get_subscription_count():
            now, engine = self.get_clock().now(), self._pipeline.engine
            drops = {key: count for key, count in self.counters().items() if key not in KEPT}
            self._status.publish(
                status_message(
                    header, now, frames, result, self._pipeline.bundle, engine.backend, drops
                )
            )

    def _overlay(self, frames: FrameSet, result: Segmentation):
        image = result.picture(frames)
        return overlay(image, result.classes, self._colors, self._settings.overlay_alpha)

    # --- diagnostics ------------------------------------------------------------------------

    def counters(self) -> dict[str, int]:
        """Every reference image that came in, by what became of it, and every other count."""
        with self._intake_lock:
            counts = self._intake.counters
        return {
            **counts,
            "published": self._worker.finished,
            "superseded by a newer set": self._worker.superseded,
            "failed": self._worker.failed,
            "idle, nobody subscribes": self._idle,
        }

    def _report(self) -> None:
        counts, name = self.counters(), self.get_name()
        entries = [self._own_status(name), *self._figures(name)]
        for source in self._inputs:
            source.follow_publishers()
            entries.append(sensor_status(name, source, counts))
        self._diagnostics.publish(report(self.get_clock().now(), entries))

    def _own_status(self, name: str) -> DiagnosticStatus:
        level, text = DiagnosticStatus.OK, "segmenting"
        problem, self._problem = self._problem, ""
        if problem:
            level, text = DiagnosticStatus.ERROR, problem
        elif not self.get_clock().now().nanoseconds:
            level = DiagnosticStatus.WARN
            text = "use_sim_time is set but nothing publishes /clock: play the bag with --clock"
        elif self._settings.lazy and not self._wanted():
            text = "idle: nobody subscribes to an output (set lazy:=false to run all the same)"
        bundle = self._pipeline.bundle
        values = {
            "model": bundle.manifest.summary,
            "model version": self._pipeline.engine.heads.current.version[:12],
            "backend": self._pipeline.engine.summary,
        }
        return status(name, level, text, values)

    def _figures(self, name: str) -> list[DiagnosticStatus]:
        latency = {
            f"{stage} p{percent} ms": f"{milliseconds:.2f}"
            for stage, figures in self._latency.percentiles().items()
            for percent, milliseconds in zip(PERCENTILES, figures, strict=True)
        }
        return [
            status(f"{name}: counters", DiagnosticStatus.OK, "since start", self.counters()),
            status(f"{name}: latency", DiagnosticStatus.OK, f"last {WINDOW} outputs", latency),
        ]

    def finish(self) -> None:
        """Let the frame at hand finish and say what became of every image."""
        with self._intake_lock:
            self._hand_over(self._intake.flush())  # what waits for its set is to be counted too
        self._worker.stop()
        self._report()
        self._diagnostics.wait_for_all_acked(Duration(seconds=LAST_REPORT_S))
        self.get_logger().info(f"finished: {self.counters()}")


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop; returns the exit status."""
    try:
        with ros(args):
            node = SegmentNode()
            spin(node)
            node.finish()
            node.destroy_node()
    except Unim2Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
