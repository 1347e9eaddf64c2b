"""The page of ``unim2 name``: what it shows is computed, then it is served until ctrl-C."""

from __future__ import annotations

import shlex
import webbrowser
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.markup import escape

from unim2_core.cli.console import Advance, console, progress, warn
from unim2_core.cli.options import rig_from
from unim2_core.data.drive_pictures import DrivePictures
from unim2_core.data.pictures import Picture, PictureSource
from unim2_core.errors import ModelError
from unim2_core.inference.backends import Backend
from unim2_core.inference.engine import Engine
from unim2_core.inference.picture_classes import classified
from unim2_core.inference.pipeline import check_reference
from unim2_core.inference.served_heads import OWN_NUMBERS
from unim2_core.model.bundle import Bundle
from unim2_core.showing.naming.clusters import ClusterCounts, ClusterFacts
from unim2_core.showing.naming.gallery import SHOWN, Gallery
from unim2_core.showing.naming.labelling import Hint
from unim2_core.showing.naming.server import NamingServer
from unim2_core.showing.naming.session import NamingSession
from unim2_core.showing.naming.spots import SpotFinder


def serve(
    bundle: Bundle,
    bags: Sequence[Path],
    rig: Path | None,
    topics: Sequence[str] | None,
    frames: int,
    labels: Path | None,
    backend: Backend,
    port: int,
    open_browser: bool,
) -> Bundle:
    """Serve the page until ctrl-C; returns the version that was saved last.

    Args:
        bundle: the model.
        bags: drives to show; none: the labelled images are shown.
        rig: of the drives, as ``rig_from`` takes it.
        topics: of the drives.
        frames: frame sets of each drive, at most.
        labels: YAML file of labelled images.
        backend: that runs the model.
        port: of the page, 0 = any.
        open_browser: whether to open it.

    Raises:
        Unim2Error: the model does not run here, the drives or the port cannot be used.
    """
    engine = _engine(bundle, backend)
    labelled = _labelled(bundle, labels) if labels else None
    hints = {} if labelled is None else _hints(engine, bundle, labelled)
    source = labelled
    if source is None or bags:
        source = _drives(bundle, bags, rig, topics, frames)
    session = session_of(engine, bundle, source, hints)
    with NamingServer(session, port) as server:
        console.print(escape(f"open {server.url}"))
        console.print("this machine alone can; ctrl-C ends it")
        console.file.flush()  # where it goes to a pipe, too
        if open_browser and not webbrowser.open(server.url):
            warn("there is no browser to open")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print("")
    if options := session.unsaved():
        again = shlex.join(["unim2", "name", str(bundle.path), *options])
        warn(f"the page had changes that were not saved; this makes them:\n{again}")
    return session.bundle


def session_of(
    engine: Engine, bundle: Bundle, source: PictureSource, hints: dict[int, Hint]
) -> NamingSession:
    """Look at pictures twice: for what is where, and for the crops.

    Args:
        engine: serves clusters under their own numbers.
        bundle: the model.
        source: the pictures.
        hints: cluster -> the name that labels suggest.

    Raises:
        Unim2Error: the pictures cannot be read, or there are none.
    """
    manifest = bundle.manifest
    counts, finder = ClusterCounts(manifest.clusters), SpotFinder()
    with progress("looking at the clusters", source.limit) as advance:
        for done, (_, found) in enumerate(classified(engine, manifest, source), start=1):
            counts.add(found.classes, found.confidence)
            finder.add(found.classes, found.confidence)
            advance(done)
    if not counts.pixels.any():
        raise ModelError(
            "there is nothing to look at",
            expected="pictures with a modality of the model",
            found=f"{len(finder.classes)} pictures without a class",
            remedy="look at the streams with: unim2 info BAG",
        )
    names = [entry.name for entry in manifest.modalities]
    with progress("cutting crops", len(finder.classes)) as advance:
        gallery = Gallery.cut(
            _counted(source, advance), names, finder.chosen(SHOWN), finder.classes, counts.clusters
        )
    prototypes = bundle.weights()["prototypes"][: manifest.clusters]
    return NamingSession(bundle, gallery, ClusterFacts.of(counts, prototypes), hints)


def _counted(source: PictureSource, advance: Advance) -> Iterator[Picture]:
    for done, picture in enumerate(source, start=1):
        yield picture
        advance(done)


def hints_from(bundle: Bundle, labels: Path, backend: Backend) -> dict[int, Hint]:
    """Cluster -> the name that labelled images suggest.

    Raises:
        Unim2Error: the model does not run here, or the images cannot be used.
    """
    return _hints(_engine(bundle, backend), bundle, _labelled(bundle, labels))


def _engine(bundle: Bundle, backend: Backend) -> Engine:
    """An engine that tells all clusters apart, also those that are served as one class."""
    engine = Engine(bundle, backend)
    for refusal in engine.refused:
        warn(refusal)
    engine.heads.replace(bundle.sha256, bundle.weights(), OWN_NUMBERS)
    return engine


def _drives(
    bundle: Bundle,
    bags: Sequence[Path],
    rig_file: Path | None,
    topics: Sequence[str] | None,
    frames: int,
) -> PictureSource:
    manifest, rig = bundle.manifest, rig_from(rig_file, topics)
    check_reference(bundle, rig)
    drives = DrivePictures(
        bags,
        rig,
        {entry.name: entry.encoding for entry in manifest.modalities},
        size=manifest.infer_size,
        patch_size=manifest.backbone.patch_size,
        frames=frames,
        warn=warn,
    )
    for sentence in drives.absent:
        warn(sentence)
    return drives


def _labelled(bundle: Bundle, labels: Path) -> PictureSource:
    from unim2_core.cli.evaluation import Sources

    sources = Sources(str(labels), None, "all", "full", (), None, None, None)
    return sources.open(bundle, [entry.name for entry in bundle.manifest.modalities])[0]


def _hints(engine: Engine, bundle: Bundle, labelled: PictureSource) -> dict[int, Hint]:
    try:
        import scipy  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "suggesting names needs more than running a model",
            expected="scipy",
            found=str(error),
            remedy="pip install 'unim2[train]', or leave --labels out",
        ) from error
    from unim2_core.evaluation.measurement import measure
    from unim2_core.evaluation.name_suggestions import name_hints

    every = [entry.name for entry in bundle.manifest.modalities]
    with progress("reading labels", labelled.limit) as advance:
        found = measure(engine, bundle.manifest, labelled, {"": every}, progress=advance)
    assert labelled.classes is not None  # else there would be nothing to measure
    return name_hints(found.tallies[""].table, labelled.classes.names, bundle.manifest.clusters)
