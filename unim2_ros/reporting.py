"""The node's report about itself, from whatever part of it there is at the moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from unim2_ros.diagnostics import ERROR, OK, WARN, status
from unim2_ros.jobs import Job
from unim2_ros.latency import PERCENTILES, WINDOW
from unim2_ros.model_server import ModelServer
from unim2_ros.outputs import Outputs
from unim2_ros.segmenting import SUPERSEDED, Record, Segmenting

FALLING_BEHIND = 0.2
"""Share of images that a newer one replaced, above which a user should know."""


@dataclass(frozen=True, eq=False)
class Parts:
    """What there is of a node.

    Attributes:
        loading: a model that is being loaded.
        server: there while the node is configured.
        outputs: there while the node is configured.
        segmenting: there while the node is active.
    """

    loading: Job[Any] | None
    server: ModelServer | None
    outputs: Outputs | None
    segmenting: Segmenting | None


class Reporter:
    """Makes the entries of a report and remembers what the one before said.

    Attributes:
        unconfigured: why the node could not be configured; empty: it was not tried, or it could.
    """

    def __init__(self, node: Node, record: Record) -> None:
        self.unconfigured = ""
        self._node = node
        self._record = record
        self._before: Mapping[str, int] = {}

    def counters(self, segmenting: Segmenting | None) -> dict[str, int]:
        """Every reference image since the start, by what became of it, and other counts."""
        counts = Counter(self._record.counts)
        counts.update(segmenting.counters() if segmenting else {})
        return dict(counts)

    def entries(self, parts: Parts) -> list[DiagnosticStatus]:
        """The entries of one report."""
        counts, name = self.counters(parts.segmenting), self._node.get_name()
        grown = Counter(counts)
        grown.subtract(self._before)
        self._before = counts
        level, text = self._verdict(parts, +grown)
        entries = [
            status(name, level, text, self._model(parts.server)),
            status(f"{name}: counters", OK, "since start", counts),
            status(f"{name}: latency", OK, f"last {WINDOW} outputs", self._latency()),
        ]
        if parts.segmenting is not None:
            entries += parts.segmenting.sensor_entries(name, counts)
        return entries

    def _verdict(self, parts: Parts, grown: Mapping[str, int]) -> tuple[bytes, str]:
        """The most important thing to know.

        Args:
            parts: what there is.
            grown: counts since the last report.
        """
        problem, self._record.problem = self._record.problem, ""
        if problem:
            return ERROR, problem
        if parts.server is None or parts.outputs is None:
            return self._not_configured(parts.loading)
        if parts.segmenting is None:
            return OK, "inactive: ready, waits for its transition to active"
        if parts.server.trouble:
            return WARN, f"the model was not replaced: {parts.server.trouble}"
        if not self._node.get_clock().now().nanoseconds:
            return WARN, (
                "use_sim_time is set but nothing publishes /clock: play the bag with --clock"
            )
        if parts.segmenting.paused:
            return OK, "paused: nothing is segmented until ~/pause is called with false"
        warnings = [
            *_dropped(grown),
            *parts.outputs.complaints(),
            *self._falling_behind(grown),
            *parts.server.pipeline.engine.refused,
        ]
        if warnings:
            return WARN, "; ".join(warnings)
        if parts.server.job is not None:
            job = parts.server.job
            return OK, f"segmenting; {job.what} for {job.seconds:.0f} s so far"
        if parts.outputs.lazy and not parts.outputs.wanted:
            return OK, (
                "idle: nobody subscribes to an output (set lazy:=false to run all the same)"
            )
        return OK, "segmenting"

    def _not_configured(self, loading: Job[Any] | None) -> tuple[bytes, str]:
        if loading is not None:
            return OK, f"{loading.what} for {loading.seconds:.0f} s so far"
        if self.unconfigured:
            return ERROR, (
                f"not configured: {self.unconfigured} (mend it and configure the node again)"
            )
        return OK, "unconfigured: waits for its transition to inactive"

    def _falling_behind(self, grown: Mapping[str, int]) -> list[str]:
        superseded = grown.get(SUPERSEDED, 0)
        seen = superseded + grown.get("published", 0) + grown.get("failed", 0)
        if superseded <= FALLING_BEHIND * seen:
            return []
        stages = self._record.latency.percentiles()
        longest = max(stages, key=lambda stage: stages[stage][0] * (stage in _WORK), default="")
        return [
            f"falling behind: {superseded} of {seen} images gave way to a newer one; "
            f"longest stage: {longest} with {stages[longest][0]:.0f} ms: lower the cameras' rate, "
            "or take another backend, half_auxiliaries or a smaller model"
            if longest
            else f"falling behind: {superseded} of {seen} images gave way to a newer one"
        ]

    def _model(self, server: ModelServer | None) -> dict[str, object]:
        if server is None:
            return {}
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

    def _latency(self) -> dict[str, str]:
        return {
            f"{stage} p{percent} ms": f"{milliseconds:.2f}"
            for stage, figures in self._record.latency.percentiles().items()
            for percent, milliseconds in zip(PERCENTILES, figures, strict=True)
        }


_WORK = ("decode", "encode", "backbone", "register", "head", "publish")


def _dropped(grown: Mapping[str, int]) -> list[str]:
    """A sentence for each required sensor whose absence has cost images."""
    return [
        f"no output: {key.partition('/')[2]} ({count} images dropped): start that sensor, or set "
        f"{key.split()[1]}.required to false"
        for key, count in grown.items()
        if "/required " in key
    ]
