#!/usr/bin/env python3
"""The live node: images in, classes out; a lifecycle node that starts by itself."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from unim2_core.errors import Unim2Error
from unim2_core.inference.pipeline import Pipeline
from unim2_core.sensing.rig import Rig
from unim2_ros.diagnostics import report
from unim2_ros.jobs import Job
from unim2_ros.lifetime import ros, spin
from unim2_ros.model_server import ModelServer, load_pipeline
from unim2_ros.outputs import Outputs
from unim2_ros.parameters import Parameters, SegmentParameters
from unim2_ros.point_cloud import CloudMaker
from unim2_ros.reporting import Parts, Reporter
from unim2_ros.segmenting import Record, Segmenting
from unim2_ros.services import ANSWER_S, Services
from unim2_ros.snapshots import Snapshots

POLL_S = 0.1
"""How soon a finished load is put into force."""
PROGRESS_S = 5.0
REPORT_PERIOD_S = 1.0
LAST_REPORT_S = 0.5
MEGABYTE = 1_000_000
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class SegmentNode(LifecycleNode):
    """Configured it has a model on an engine; active it segments each reference image.

    Attributes:
        failure: why it could not configure itself; None: it could, or was not to.
    """

    def __init__(self) -> None:
        super().__init__("segment")
        self.failure: Unim2Error | None = None
        self._table = Parameters(self, self._retuned)
        self._record = Record()
        self._loading: Job[Pipeline] | None = None
        self._server: ModelServer | None = None
        self._segmenting: Segmenting | None = None
        self._paused = False
        self._writing: Job[Path] | None = None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._reporter = Reporter(self, self._record)
        # By the wall: with use_sim_time what has no /clock is to be reported all the same.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(REPORT_PERIOD_S, self._report, clock=steady)
        self.create_timer(POLL_S, self._poll, clock=steady)
        self._looked_s = 0.0
        self._to_start = self._table.table.autostart

    # --- lifecycle --------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load model and engine; what fails is said, and may be mended and tried again."""
        try:
            self._configure()
        except Exception as error:  # whatever it is: the node lives and says it
            known = isinstance(error, Unim2Error)
            text = str(error) if known else f"{type(error).__name__}: {error}"
            self.failure = error if isinstance(error, Unim2Error) else Unim2Error(text)
            self._reporter.unconfigured = text
            self.get_logger().error(f"cannot configure: {text}")
            self._free()
            return FAILURE
        self.failure, self._reporter.unconfigured = None, ""
        return SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe."""
        self._begin()
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe; the model stays."""
        self._end()
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
        """Free everything; the node is unconfigured again."""
        self._free()
        return SUCCESS

    def _configure(self) -> None:
        settings = self._table.validate()
        loading, self._loading = self._loading or self._load(settings), None
        while not loading.done_within(PROGRESS_S):  # where a lifecycle manager asked
            self._progress(loading)
            self._report()  # callbacks wait for this transition
        pipeline = loading.outcome.result()
        rig = self._table.adopt(pipeline.rig)
        self._server = ModelServer(pipeline, settings)
        self._outputs = Outputs(
            self, CloudMaker(rig), alpha=settings.overlay_alpha, lazy=settings.lazy
        )
        self._snapshots = Snapshots(
            self,
            settings.snapshot_s,
            settings.snapshot_mb * MEGABYTE,
            Path(settings.snapshot_dir).expanduser(),
        )
        self._offered = Services(
            self,
            {
                "reload_model": self._reload,
                "roll_back": lambda: self._model.roll_back(self._replace),
                "pause": self._pause,
                "save_snapshot": self._save,
            },
        )
        for sentence in pipeline.shortcomings:
            self.get_logger().warning(sentence)
        bundle = pipeline.bundle
        self.get_logger().info(
            f"{bundle.manifest.summary}; version {bundle.version}, {pipeline.engine.summary}"
        )

    def _load(self, settings: SegmentParameters) -> Job[Pipeline]:
        return Job(f"loading {settings.model}", lambda: load_pipeline(settings))

    def _begin(self) -> None:
        assert self._table.rig is not None  # the node is configured
        self._segmenting = Segmenting(
            *(self, self._model, self._outputs, self._table.rig),
            *(self._record, self._snapshots),
            paused=self._paused,
        )
        self._outputs.publish_labels(self._model.bundle(self._model.version))

    def _end(self) -> None:
        if self._segmenting is not None:
            segmenting, self._segmenting = self._segmenting, None
            segmenting.close()

    def _free(self) -> None:
        self._end()
        self._loading = None
        if self._server is not None:
            self._server = None
            self._offered.close()
            self._outputs.close()
            del self._offered, self._outputs, self._snapshots
        self._table.forget()

    # --- changes at run time ----------------------------------------------------------------

    @property
    def _model(self) -> ModelServer:
        assert self._server is not None  # the node is configured
        return self._server

    def _retuned(self, settings: SegmentParameters, rig: Rig | None) -> None:
        """Put changed parameters into force."""
        if self._server is None:
            return
        self._outputs.alpha, self._outputs.lazy = settings.overlay_alpha, settings.lazy
        if self._segmenting is not None and rig is not None and rig != self._segmenting.rig:
            self._segmenting.retune(rig)
        if Path(settings.model) != self._model.path:
            self._model.reload(settings)

    def _replace(self, pipeline: Pipeline) -> None:
        """Put another pipeline into force; one that needs other sensors subscribes anew."""
        if pipeline.rig == self._model.pipeline.rig:
            self._model.pipeline = pipeline
            return
        active = self._segmenting is not None
        self._end()
        self._model.pipeline = pipeline
        self._outputs.cloud = CloudMaker(self._table.adopt(pipeline.rig))
        if active:
            self._begin()

    def _reload(self) -> str:
        job = self._model.reload(self._table.table)
        if job.done_within(ANSWER_S):
            return self._model.poll(self._replace)
        return (
            f"{job.what} in the background, version {self._model.version[:12]} goes on; "
            "log and /diagnostics say when it is replaced"
        )

    def _pause(self, paused: bool) -> str:
        self._paused = paused
        if self._segmenting is not None:
            self._segmenting.paused = paused
        return "paused" if paused else "going on"

    def _save(self) -> str:
        if self._writing is not None and not self._writing.outcome.done():
            return "the snapshot before is still being written"
        self._writing = Job("writing a snapshot", self._snapshots.save)
        if self._writing.done_within(ANSWER_S):
            job, self._writing = self._writing, None
            return str(job.outcome.result())
        return "being written; the log names it when it is done"

    # --- timers -----------------------------------------------------------------------------

    def _poll(self) -> None:
        """Start by itself; put into force what was loaded; look whether the bundle has changed."""
        if self._to_start:
            self._start()
        if self._server is not None:
            try:
                said = self._server.poll(self._replace)
                if said:
                    self.get_logger().info(said)
                self._watch(self._server)
            except Unim2Error as error:
                self.get_logger().error(str(error))
        if self._writing is not None and self._writing.outcome.done():
            job, self._writing = self._writing, None
            error = job.outcome.exception()
            if error is None:
                self.get_logger().info(f"snapshot: {job.outcome.result()}")
            else:
                self.get_logger().error(f"no snapshot: {error}")

    def _start(self) -> None:
        """Configure and activate; the model loads in the background, callbacks go on."""
        if self._loading is None:
            try:
                self._loading = self._load(self._table.validate())
            except Unim2Error:
                self._loading = None  # configuring says it
        if self._loading is not None and not self._loading.outcome.done():
            if self._loading.seconds > PROGRESS_S:
                self._progress(self._loading)
            return
        if self.trigger_configure() == SUCCESS:
            self._to_start = False
            self.trigger_activate()

    @property
    def gave_up(self) -> bool:
        """Whether it was to start by itself and could not."""
        return self._to_start and self.failure is not None

    def _watch(self, server: ModelServer) -> None:
        period_s = self._table.table.watch_model
        now_s = time.monotonic()
        if period_s and now_s - self._looked_s >= period_s:
            self._looked_s = now_s
            server.look(self._table.table)

    def _progress(self, job: Job[Pipeline]) -> None:
        """Say in the log how long it takes so far."""
        self.get_logger().info(
            f"{job.what} for {job.seconds:.0f} s so far", throttle_duration_sec=PROGRESS_S
        )

    def _report(self) -> None:
        outputs = self._outputs if self._server is not None else None
        parts = Parts(self._loading, self._server, outputs, self._segmenting)
        entries = self._reporter.entries(parts)
        self._diagnostics.publish(report(self.get_clock().now(), entries))

    def finish(self) -> None:
        """Let the frame at hand finish and say what became of every image."""
        self._end()
        self._report()
        self._diagnostics.wait_for_all_acked(Duration(seconds=LAST_REPORT_S))
        self.get_logger().info(f"finished: {self._reporter.counters(None)}")


def main(args: list[str] | None = None) -> int:
    """Run the node until it is told to stop; returns the exit status."""
    try:
        with ros(args):
            node = SegmentNode()
            spin(node, until=lambda: node.gave_up)
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
