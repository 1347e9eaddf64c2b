"""A configured node: its model, outputs and services, and its work while it is active."""

from __future__ import annotations

import time
from pathlib import Path

from rclpy.node import Node

from unim2_core.errors import Unim2Error
from unim2_core.inference.pipeline import Pipeline
from unim2_core.sensing.rig import Rig
from unim2_ros.jobs import Job
from unim2_ros.model_server import ModelServer
from unim2_ros.outputs import Outputs
from unim2_ros.parameters import Parameters, SegmentParameters
from unim2_ros.point_cloud import CloudMaker
from unim2_ros.segmenting import Record, Segmenting
from unim2_ros.services import ANSWER_S, Services
from unim2_ros.snapshots import Snapshots

MEGABYTE = 1_000_000


class Configured:
    """What a node has from configuration to cleanup.

    Attributes:
        server: the model.
        outputs: the publishers.
        segmenting: subscriptions and worker; None while the node is inactive.
    """

    def __init__(
        self, node: Node, parameters: Parameters, pipeline: Pipeline, record: Record
    ) -> None:
        """Publish outputs and offer services.

        Args:
            node: the node.
            parameters: its parameters, validated.
            pipeline: the model that was loaded.
            record: where counts go.

        Raises:
            Unim2Error: the rig with these parameters cannot be used.
        """
        settings = parameters.table
        self._node, self._parameters, self._record = node, parameters, record
        rig = parameters.adopt(pipeline.rig)
        settings.check_fallbacks(rig)
        self.server = ModelServer(pipeline, settings)
        self.segmenting: Segmenting | None = None
        self._paused = False
        self._writing: Job[Path] | None = None
        self._looked_s = time.monotonic()
        self._snapshots = Snapshots(
            node,
            settings.snapshot_s,
            settings.snapshot_mb * MEGABYTE,
            Path(settings.snapshot_dir).expanduser(),
        )
        self.outputs = Outputs(
            *(node, CloudMaker(rig)),
            alpha=settings.overlay_alpha,
            lazy=settings.lazy,
            stride=settings.stride,
        )
        self._services = Services(
            node,
            {
                "reload_model": self._reload,
                "roll_back": lambda: self.server.roll_back(self._replace),
                "pause": self._pause,
                "save_snapshot": self._save,
            },
        )

    def activate(self) -> None:
        """Subscribe."""
        assert self._parameters.rig is not None  # adopted when this was made
        self.segmenting = Segmenting(
            *(self._node, self.server, self.outputs, self._parameters.rig),
            *(self._record, self._snapshots, self._parameters.table.matching),
            paused=self._paused,
        )
        self.outputs.publish_labels(self.server.bundle(self.server.version))

    def deactivate(self) -> None:
        """Unsubscribe; the frame at hand is finished."""
        if self.segmenting is not None:
            segmenting, self.segmenting = self.segmenting, None
            segmenting.close()

    def close(self) -> None:
        """Withdraw everything."""
        self.deactivate()
        self._services.close()
        self.outputs.close()

    def retune(self, settings: SegmentParameters, rig: Rig | None) -> None:
        """Put parameters into force that were changed at run time; ``poll`` loads a new model."""
        outputs = self.outputs
        outputs.alpha, outputs.lazy = settings.overlay_alpha, settings.lazy
        outputs.stride = settings.stride
        if self.segmenting is not None and rig is not None and rig != self.segmenting.rig:
            self.segmenting.retune(rig)

    def poll(self) -> None:
        """Put into force what was loaded; look at the bundle; say what became of a snapshot."""
        log = self._node.get_logger()
        try:
            said = self.server.poll(self._replace)
            if said:
                log.info(said)
            settings = self._parameters.table
            if Path(settings.model) != self.server.path and self.server.job is None:
                self.server.reload(settings)
            self._watch()
            if self._writing is not None and self._writing.outcome.done():
                writing, self._writing = self._writing, None
                log.info(f"snapshot: {writing.outcome.result()}")
        except Unim2Error as error:
            log.error(str(error))

    def _watch(self) -> None:
        period_s = self._parameters.table.watch_model
        now_s = time.monotonic()
        if period_s and now_s - self._looked_s >= period_s:
            self._looked_s = now_s
            self.server.look(self._parameters.table)

    def _replace(self, pipeline: Pipeline) -> None:
        """Put another pipeline into force; one that needs other sensors subscribes anew."""
        if pipeline.rig == self.server.pipeline.rig:
            self.server.pipeline = pipeline
            return
        active = self.segmenting is not None
        self.deactivate()
        self.server.pipeline = pipeline
        self.outputs.cloud = CloudMaker(self._parameters.adopt(pipeline.rig))
        if active:
            self.activate()

    # --- services ---------------------------------------------------------------------------

    def _reload(self) -> str:
        job = self.server.reload(self._parameters.table)
        if job.done_within(ANSWER_S):
            return self.server.poll(self._replace)
        return (
            f"{job.what} in the background, version {self.server.version[:12]} goes on; "
            "log and /diagnostics say when it is replaced"
        )

    def _pause(self, paused: bool) -> str:
        self._paused = paused
        if self.segmenting is not None:
            self.segmenting.paused = paused
        return "paused" if paused else "going on"

    def _save(self) -> str:
        if self._writing is not None:
            raise Unim2Error(
                "the snapshot before is still being written",
                expected="one at a time",
                found=f"one under way for {self._writing.seconds:.0f} s",
                remedy="wait for it; the log names it when it is done",
            )
        writing = Job("writing a snapshot", self._snapshots.save)
        if writing.done_within(ANSWER_S):
            return str(writing.outcome.result())
        self._writing = writing
        return "being written; the log names it when it is done"
