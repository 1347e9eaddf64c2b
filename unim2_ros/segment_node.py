#!/usr/bin/env python3
"""The live node: images in, classes out; a lifecycle node that starts by itself."""

from __future__ import annotations

import sys
from collections.abc import Callable

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from unim2_core.errors import Unim2Error
from unim2_core.inference.pipeline import Pipeline
from unim2_core.sensing.rig import Rig
from unim2_ros.configured import Configured
from unim2_ros.diagnostics import report
from unim2_ros.jobs import Job
from unim2_ros.lifetime import ros, spin
from unim2_ros.model_server import load_pipeline
from unim2_ros.parameters import Parameters, SegmentParameters
from unim2_ros.reporting import Reporter
from unim2_ros.segmenting import Record

POLL_S = 0.1
"""How soon a finished load is put into force."""
PROGRESS_S = 5.0
REPORT_PERIOD_S = 1.0
LAST_REPORT_S = 0.5
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class SegmentNode(LifecycleNode):
    """Configured it has a model on an engine; active it segments each reference image.

    Attributes:
        failure: why it could not be configured; None: it could, or was not to be.
    """

    def __init__(self) -> None:
        super().__init__("segment")
        self.failure: Unim2Error | None = None
        self._table = Parameters(self, self._retune)
        self._record = Record()
        self._loading: Job[Pipeline] | None = None
        self._configured: Configured | None = None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._reporter = Reporter(self, self._record)
        self._to_start = self._table.table.autostart
        # By the wall: with use_sim_time what has no /clock is to be reported all the same.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(REPORT_PERIOD_S, self._report, clock=steady)
        self.create_timer(POLL_S, self._poll, clock=steady)

    # --- transitions ------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load model and engine; what fails is said, and may be mended and tried again."""
        if not self._succeeds("configure", self._configure):
            self._free()
            return FAILURE
        return super().on_configure(state)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""
        assert self._configured is not None  # else there is no such transition
        if not self._succeeds("activate", self._configured.activate):
            return FAILURE
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; the model stays."""
        assert self._configured is not None
        self._configured.deactivate()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the model."""
        self._free()
        return super().on_cleanup(state)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything; the process ends when it is told to."""
        self._free()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free everything: the node is unconfigured again."""
        self._free()
        return SUCCESS

    def _succeeds(self, what: str, work: Callable[[], None]) -> bool:
        """Work on a transition; whatever fails, the node lives and says it."""
        self.failure = None
        try:
            work()
        except Unim2Error as error:
            self.failure = error
        except Exception as error:
            self.failure = Unim2Error(
                f"cannot {what} the node",
                expected="a model, a rig, an engine and QoS overrides that can be used",
                found=str(error) or repr(error),
                remedy="mend what is named; where nothing is, report it with the log",
            )
        if self.failure is not None:
            self.get_logger().error(f"cannot {what}: {self.failure}")
        return self.failure is None

    def _configure(self) -> None:
        settings = self._table.validate()
        loading = self._loading = self._loading or self._load(settings)
        while not loading.done_within(PROGRESS_S):  # where a lifecycle manager asked
            self._progress(loading)
            self._report()  # callbacks wait for this transition
        self._loading = None
        pipeline = loading.outcome.result()
        self._configured = Configured(self, self._table, pipeline, self._record)
        for sentence in pipeline.shortcomings:
            self.get_logger().warning(sentence)
        bundle = pipeline.bundle
        self.get_logger().info(
            f"{bundle.manifest.summary}; version {bundle.version}, {pipeline.engine.summary}"
        )

    def _free(self) -> None:
        self._loading = None
        self._table.forget()
        if self._configured is not None:
            configured, self._configured = self._configured, None
            configured.close()

    # --- starting by itself -----------------------------------------------------------------

    @property
    def gave_up(self) -> bool:
        """Whether it was to start by itself and could not."""
        return self._to_start and self.failure is not None

    def _start(self) -> None:
        """Configure and activate; the model loads in the background, callbacks go on."""
        if self._loading is None:
            try:
                self._loading = self._load(self._table.validate())
            except Unim2Error as error:
                self.failure = error
                return
        if not self._loading.outcome.done():
            if self._loading.seconds > PROGRESS_S:
                self._progress(self._loading)
            return
        if self.trigger_configure() == SUCCESS and self.trigger_activate() == SUCCESS:
            self._to_start = False

    def _load(self, settings: SegmentParameters) -> Job[Pipeline]:
        return Job(f"loading {settings.model}", lambda: load_pipeline(settings))

    def _progress(self, job: Job[Pipeline]) -> None:
        self.get_logger().info(
            f"{job.what} for {job.seconds:.0f} s so far", throttle_duration_sec=PROGRESS_S
        )

    # --- callbacks --------------------------------------------------------------------------

    def _retune(self, settings: SegmentParameters, rig: Rig | None) -> None:
        if self._configured is not None:
            self._configured.retune(settings, rig)

    def _poll(self) -> None:
        if self._to_start:
            self._start()
        if self._configured is not None:
            self._configured.poll()

    def _report(self) -> None:
        entries = self._reporter.entries(self._configured, self._loading, self.failure)
        self._diagnostics.publish(report(self.get_clock().now(), entries))

    def survive(self, error: Exception) -> None:
        """Report what a callback raised, which should not be, and go on."""
        self._record.problem = f"a callback failed: {type(error).__name__}: {error}"
        self.get_logger().error(self._record.problem, throttle_duration_sec=PROGRESS_S)

    def finish(self) -> None:
        """Let the frame at hand finish and say what became of every image."""
        if self._configured is not None:
            self._configured.deactivate()
        self._report()
        self._diagnostics.wait_for_all_acked(Duration(seconds=LAST_REPORT_S))
        self.get_logger().info(f"finished: {self._reporter.counters(None)}")


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop; returns the exit status."""
    try:
        with ros(args):
            node = SegmentNode()
            spin(node, until=lambda: node.gave_up, on_error=node.survive)
            if node.gave_up and node.failure is not None:
                raise node.failure
            node.finish()
            node.destroy_node()
    except Unim2Error as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
