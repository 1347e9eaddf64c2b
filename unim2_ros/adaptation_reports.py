"""How far a live adaptation has got: ``/diagnostics`` always, our message where it is built."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from std_msgs.msg import Header

from unim2_core.learning.observers import Observer, Progress, Status
from unim2_core.model.bundle import Bundle
from unim2_ros.diagnostics import OK, WARN, report, sensor_status, status
from unim2_ros.live_pictures import LivePictures, LiveSets

try:
    from unim2_ros.msg import AdaptationStatus
except ImportError:  # the wheels have no rosidl to build it
    AdaptationStatus = None

if TYPE_CHECKING:
    from unim2_core.cli.adapting import Adaptation

PERIOD_S = 1.0
COLLECTING, LEARNING, JUDGING = "collecting", "learning", "judging"


class AdaptationReports(Observer):
    """Told of the adaptation by the thread that learns; reports from the node's.

    Attributes:
        source: the pictures of this round.

    Args:
        node: that reports.
        sets: what arrives.
        bundle: the model.
    """

    def __init__(self, node: Node, sets: LiveSets, bundle: Bundle) -> None:
        self.source: LivePictures | None = None
        self._node, self._sets, self._bundle = node, sets, bundle
        self._state, self._summary, self._steps = COLLECTING, "waits for the first picture", 0
        self._made: Adaptation | None = None
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._status: Any = None
        if AdaptationStatus is None:
            node.get_logger().info(
                "~/status is not published: unim2_ros/AdaptationStatus is not built here"
            )
        else:
            self._status = node.create_publisher(AdaptationStatus, "~/status", 1)
        node.create_timer(PERIOD_S, self._publish)

    # --- told by the learner ----------------------------------------------------------------

    def start(self, facts: object, resumed_from: int) -> None:
        """A round begins."""
        self._state, self._steps = COLLECTING, 0

    def progress(self, progress: Progress) -> None:
        """A picture has paid for its steps."""
        self._state, self._steps = LEARNING, progress.done

    def close(self, status: Status) -> None:
        """The round has ended."""
        self._state = JUDGING if status == "finished" else COLLECTING

    def judged(self, made: Adaptation) -> None:
        """What came of a round."""
        self._made, self._bundle = made, made.bundle
        verdict = "not needed" if made.judgement is None else made.judgement.verdict
        reasons = () if made.judgement is None else made.judgement.reasons
        self._summary = f"last round: {'; '.join([verdict, *reasons])}"
        self._state = verdict
        self._publish()

    # --- reported ---------------------------------------------------------------------------

    def _publish(self) -> None:
        taken, limit = (self.source.taken, self.source.limit) if self.source else (0, 0)
        manifest = self._bundle.manifest
        said = f"{self._state}: {taken} of {limit} pictures, {self._steps} steps; {self._summary}"
        values = {
            "model": manifest.summary,
            "model version": self._bundle.version,
            "pictures": taken,
            "steps": self._steps,
            "gave way to newer ones": self._sets.behind,
        }
        name = self._node.get_name()
        counts = self._sets.streams.counters
        entries = [
            status(name, WARN if self._state in ("rejected", "review") else OK, said, values)
        ]
        for source in self._sets.streams.inputs:
            entries.append(sensor_status(name, source, counts))
        now = self._node.get_clock().now()
        self._diagnostics.publish(report(now, entries))
        if self._status is not None:
            self._status.publish(self._message(now.to_msg(), said, taken, limit))

    def _message(self, stamp: Any, said: str, taken: int, limit: int) -> Any:
        made = self._made
        findings = () if made is None or made.judgement is None else made.judgement.findings
        states = {
            COLLECTING: AdaptationStatus.COLLECTING,
            LEARNING: AdaptationStatus.LEARNING,
            JUDGING: AdaptationStatus.JUDGING,
            "accepted": AdaptationStatus.ACCEPTED,
            "rejected": AdaptationStatus.REJECTED,
            "review": AdaptationStatus.REVIEW,
        }
        return AdaptationStatus(
            header=Header(stamp=stamp),
            state=states.get(self._state, AdaptationStatus.COLLECTING),
            summary=said,
            model_name=self._bundle.manifest.name,
            served_sha256=self._bundle.sha256,
            images=taken,
            progress=taken / limit if limit else math.nan,
            figures=[finding.figure for finding in findings],
            served_values=[math.nan] * len(findings),
            candidate_values=[float(finding.value) for finding in findings],
        )
