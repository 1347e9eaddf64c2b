"""The node's report about itself, from whatever part of it there is at the moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from unim2_core.errors import Unim2Error
from unim2_ros.approximate import NO_PARTNER
from unim2_ros.configured import Configured
from unim2_ros.diagnostics import ERROR, OK, WARN, status
from unim2_ros.jobs import Job
from unim2_ros.latency import PERCENTILES, WINDOW
from unim2_ros.model_server import ModelServer
from unim2_ros.segmenting import SUPERSEDED, Record, Segmenting

FALLING_BEHIND = 0.2
"""Share of images that a newer one replaced, above which a user should know."""


class Reporter:
    """Makes the entries of a report and remembers what the one before said."""

    def __init__(self, node: Node, record: Record) -> None:
        self._node = node
        self._record = record
        self._before: Mapping[str, int] = {}

    def counters(self, segmenting: Segmenting | None) -> dict[str, int]:
        """Every reference image since the start, by what became of it, and other counts."""
        counts = Counter(self._record.counts)
        counts.update(segmenting.counters() if segmenting else {})
        return dict(counts)

    def entries(
        self,
        configured: Configured | None,
        loading: Job[Any] | None,
        failure: Unim2Error | None,
    ) -> list[DiagnosticStatus]:
        """The entries of one report.

        Args:
            configured: there while the node is.
            loading: of the first model, where that is under way.
            failure: why the node could not be configured or activated.
        """
        segmenting = configured.segmenting if configured else None
        counts, name = self.counters(segmenting), self._node.get_name()
        grown = Counter(counts)
        grown.subtract(self._before)
        self._before = counts
        if self._record.problem:
            level, text = ERROR, self._record.problem
            self._record.problem = ""
        elif configured is None:
            level, text = _not_configured(loading, failure)
        elif segmenting is None and failure is not None:
            level, text = ERROR, f"not active: {failure} (mend it and activate the node again)"
        else:
            level, text = self._verdict(configured, +grown)
        entries = [
            status(name, level, text, _model(configured.server) if configured else {}),
            status(f"{name}: counters", OK, "since start", counts),
            status(f"{name}: latency", OK, f"last {WINDOW} outputs", self._latency()),
        ]
        if segmenting is not None:
            entries += segmenting.sensor_entries(name, counts)
        return entries

    def _verdict(self, node: Configured, grown: Mapping[str, int]) -> tuple[bytes, str]:
        """The most important thing to know of a configured node.

        Args:
            node: what there is of it.
            grown: counts since the last report.
        """
        if node.segmenting is None:
            return OK, "inactive: ready, waits for its transition to active"
        if node.server.trouble:
            return WARN, f"the model was not replaced: {node.server.trouble}"
        if not self._node.get_clock().now().nanoseconds:
            return WARN, (
                "use_sim_time is set but nothing publishes /clock: play the bag with --clock"
            )
        if node.segmenting.paused:
            return OK, "paused: nothing is segmented until ~/pause is called with false"
        warnings = [
            *_dropped(grown),
            *_fallback(node.segmenting),
            *node.outputs.complaints(),
            *self._falling_behind(grown),
            *node.server.pipeline.engine.refused,
        ]
        if warnings:
            return WARN, "; ".join(warnings)
        if node.server.job is not None:
            job = node.server.job
            return OK, f"segmenting; {job.what} for {job.seconds:.0f} s so far"
        if node.outputs.lazy and not node.outputs.wanted:
            return OK, (
                "idle: nobody subscribes to an output (set lazy:=false to run all the same)"
            )
        return OK, "segmenting"

    def _falling_behind(self, grown: Mapping[str, int]) -> list[str]:
        superseded = grown.get(SUPERSEDED, 0)
        seen = superseded + grown.get("published", 0) + grown.get("failed", 0)
        if superseded <= FALLING_BEHIND * seen:
            return []
        medians = {stage: at[0] for stage, at in self._record.latency.percentiles().items()}
        stage = max(_WORK, key=lambda name: medians.get(name, 0.0))
        return [
            f"falling behind: {superseded} of {seen} images gave way to a newer one; {stage} "
            f"alone takes {medians.get(stage, 0.0):.0f} ms: lower the cameras' rate, or take "
            "another backend, half_auxiliaries or a smaller model"
        ]

    def _latency(self) -> dict[str, str]:
        return {
            f"{stage} p{percent} ms": f"{milliseconds:.2f}"
            for stage, figures in self._record.latency.percentiles().items()
            for percent, milliseconds in zip(PERCENTILES, figures, strict=True)
        }


_WORK = ("decode", "encode", "backbone", "register", "head", "publish")


def _not_configured(loading: Job[Any] | None, failure: Unim2Error | None) -> tuple[bytes, str]:
    if loading is not None:
        return OK, f"{loading.what} for {loading.seconds:.0f} s so far"
    if failure is not None:
        return ERROR, f"not configured: {failure} (mend it and configure the node again)"
    return OK, "unconfigured: waits for its transition to inactive"


def _model(server: ModelServer) -> dict[str, object]:
    engine = server.pipeline.engine
    return {
        "model": server.bundle(server.version).manifest.summary,
        "model version": server.version[:12],
        "backend": engine.summary,
        **{f"not used {index}": text for index, text in enumerate(engine.refused)},
        **{
            f"registration of {sensor}": method
            for sensor, method in server.pipeline.registration.items()
        },
    }


def _fallback(segmenting: Segmenting) -> list[str]:
    if not segmenting.fallback:
        return []
    return [
        f"{segmenting.rig.reference} is silent: the outputs are for {segmenting.fallback} images, "
        "with their frame and size, until it is back"
    ]


def _dropped(grown: Mapping[str, int]) -> list[str]:
    """A sentence for each sensor without which there is no output, and which was not there."""
    unmatched = [
        f"no output: sync approximate waits for {key.partition(NO_PARTNER)[2]} ({count} images of "
        f"{key.partition('/')[0]} dropped): start that sensor, take it out of the rig, or "
        "configure the node with sync unim2"
        for key, count in grown.items()
        if NO_PARTNER in key
    ]
    return unmatched + [
        f"no output: {key.partition('/')[2]} ({count} images dropped): start that sensor, or set "
        f"{key.split()[1]}.required to false"
        for key, count in grown.items()
        if "/required " in key
    ]
