"""The model that the node runs: loaded, and replaced between two frames without a gap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError, Unim2Error
from unim2_core.inference.pipeline import Pipeline
from unim2_core.inference.served_heads import Weights
from unim2_core.model.bundle import HEAD, MANIFEST, Bundle
from unim2_core.showing.palette import color_table
from unim2_ros.jobs import Job
from unim2_ros.parameters import SegmentParameters


def load_pipeline(settings: SegmentParameters, bundle: Bundle | None = None) -> Pipeline:
    """Load a model and its engine, and run it once.

    Args:
        settings: which, and on what.
        bundle: where it is open already.

    Raises:
        Unim2Error: model, rig or engine cannot be used.
    """
    bundle = bundle or Bundle(Path(settings.model))
    sensors = tuple(dict.fromkeys(entry.sensor for entry in bundle.manifest.modalities))
    pipeline = Pipeline(
        bundle,
        settings.load_rig(sensors),
        settings.backend,
        settings.threads,
        settings.precision,
        settings.half_auxiliaries,
        settings.device,
    )
    pipeline.warm_up()
    return pipeline


@dataclass(frozen=True, eq=False)
class Loaded:
    """What was loaded to take the place of what runs.

    Attributes:
        bundle: the model.
        weights: of its head, where the graphs that run serve it too.
        pipeline: all of it, where they do not.
    """

    bundle: Bundle
    weights: Weights | None = None
    pipeline: Pipeline | None = None


class ModelServer:
    """The pipeline in force and what may take its place.

    All calls come from one thread; another may run frames: it takes ``pipeline`` once for each.

    Attributes:
        pipeline: that runs.
        job: the reload that is under way; None: none is.
        trouble: why the last reload or look at the bundle failed; empty: it did not.
    """

    def __init__(self, pipeline: Pipeline, settings: SegmentParameters) -> None:
        self.pipeline = pipeline
        self.job: Job[Loaded] | None = None
        self.trouble = ""
        self._settings = settings
        self._earlier: Pipeline | None = None
        self._bundles: dict[str, Bundle] = {}
        self._colors: dict[str, NDArray[np.uint8]] = {}
        self._know(pipeline.bundle)
        self._seen_ns = _modified_ns(pipeline.bundle.path)

    @property
    def path(self) -> Path:
        """Where the model was loaded from, or is being loaded from."""
        return Path(self._settings.model)

    @property
    def version(self) -> str:
        """sha256 of the model whose weights run."""
        return self.pipeline.engine.heads.current.version

    def bundle(self, version: str) -> Bundle:
        """The model of a version that was served."""
        return self._bundles[version]

    def colors(self, version: str) -> NDArray[np.uint8]:
        """(256, 3) uint8 colour of each class of a version that was served."""
        return self._colors[version]

    def reload(self, settings: SegmentParameters) -> Job[Loaded]:
        """Begin to load what lies at ``settings.model`` now; ``poll`` puts it into force.

        Raises:
            Unim2Error: another reload is under way.
        """
        if self.job is not None:
            raise Unim2Error(
                f"{self.job.what} is under way",
                expected="one at a time",
                found=f"one under way for {self.job.seconds:.0f} s",
                remedy="wait for it; log and /diagnostics say when it is done",
            )
        running = self.pipeline.bundle
        path = Path(settings.model)
        self._settings = settings
        self._seen_ns = _modified_ns(path)

        def work() -> Loaded:
            bundle = Bundle(path)
            if same_graphs(running, bundle):
                return Loaded(bundle, weights=bundle.weights())
            return Loaded(bundle, pipeline=load_pipeline(settings, bundle))

        self.job = Job(f"loading {path}", work)
        return self.job

    def poll(self, replace: Callable[[Pipeline], None]) -> str:
        """Put into force what has been loaded meanwhile.

        Args:
            replace: called with another pipeline to set ``pipeline``, at its own moment.

        Returns:
            What happened, in words; empty: nothing did.

        Raises:
            Unim2Error: it cannot be used; the old one goes on.
        """
        if self.job is None or not self.job.outcome.done():
            return ""
        job, self.job = self.job, None
        before = self.version
        try:
            loaded = job.outcome.result()
            bundle, pipeline = loaded.bundle, loaded.pipeline
            self._know(bundle)  # first: the worker may serve it at once
            if loaded.weights is not None and bundle.sha256 != before:
                self.pipeline.engine.heads.replace(
                    bundle.sha256, loaded.weights, bundle.manifest.served
                )
        except Exception as error:
            known = isinstance(error, Unim2Error)
            self.trouble = str(error) if known else f"{type(error).__name__}: {error}"
            raise ModelError(
                "the model was not replaced",
                expected="a whole bundle that this engine can run",
                found=self.trouble,
                remedy=f"mend it and reload; version {before[:12]} goes on meanwhile",
            ) from error
        self.trouble = ""
        if pipeline is not None:
            earlier = self.pipeline
            replace(pipeline)
            self._earlier = earlier
            return f"loaded {bundle.manifest.summary}; version {bundle.version}"
        if bundle.sha256 == before:
            return f"version {bundle.version} runs already"
        return f"new weights from the next image on: version {bundle.version}"

    def roll_back(self, replace: Callable[[Pipeline], None]) -> str:
        """Serve the version before from the next image on.

        Args:
            replace: as in ``poll``.

        Raises:
            ModelError: there is none.
        """
        earlier = self._earlier
        try:
            self.pipeline.engine.heads.roll_back()
        except ModelError:
            if earlier is None:
                raise
            replace(earlier)
            self._earlier = None
        return f"back at version {self.version[:12]}"

    def look(self, settings: SegmentParameters) -> None:
        """Reload where the bundle was replaced since it was loaded or last found wanting."""
        found_ns = _modified_ns(self.path)
        gone = f"there is no bundle at {self.path} any more"
        if found_ns is None:
            self.trouble = gone
        elif found_ns != self._seen_ns and self.job is None:
            self.reload(settings)
        elif self.trouble == gone:
            self.trouble = ""

    def _know(self, bundle: Bundle) -> None:
        self._bundles[bundle.sha256] = bundle
        labels = bundle.manifest.labels
        self._colors[bundle.sha256] = color_table({label.id: label.color for label in labels})
        pipelines = filter(None, (self.pipeline, self._earlier))
        reachable = {version for one in pipelines for version in one.engine.heads.versions}
        for versions in (self._bundles, self._colors):
            for version in versions.keys() - reachable - {bundle.sha256}:
                del versions[version]


def same_graphs(one: Bundle, other: Bundle) -> bool:
    """Whether two models differ in the head's weights (and names) alone."""

    def form(bundle: Bundle) -> tuple[object, ...]:
        manifest = bundle.manifest
        return (
            manifest.backbone.sha256,
            manifest.files.get(HEAD),
            manifest.modalities,
            manifest.infer_size,
            manifest.stride,
            manifest.reference,
            manifest.network,
        )

    return form(one) == form(other)


def _modified_ns(path: Path) -> int | None:
    try:
        return (path / MANIFEST).stat().st_mtime_ns
    except OSError:  # being replaced, or gone
        return None
