"""An adaptation from drives to a verdict and a version of the bundle. Needs torch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.markup import escape

from unim2_core.cli.console import console, progress, warn
from unim2_core.cli.drive_samples import (
    DriveSource,
    Eye,
    Stream,
    drives_of,
    remembered,
    samples,
)
from unim2_core.data.views import Mirrored
from unim2_core.errors import ModelError
from unim2_core.files import cannot_write
from unim2_core.inference.adapting import write_version
from unim2_core.inference.backends import Backend
from unim2_core.inference.engine import Engine
from unim2_core.inference.pipeline import check_reference
from unim2_core.learning.adapter import Adapter, AdapterConfig
from unim2_core.learning.buffer import Sample
from unim2_core.learning.checkpointing import (
    CHECKPOINT,
    Facts,
    facts_of,
    load_checkpoint,
    remove_unfinished,
    save_checkpoint,
)
from unim2_core.learning.diagnostics import Diverged
from unim2_core.learning.domains import Shift, shift
from unim2_core.learning.features import Standardization
from unim2_core.learning.guard import Judgement, judged
from unim2_core.learning.memory import Memory, concatenated
from unim2_core.learning.observers import Observer, Progress, Status
from unim2_core.learning.outcome import Outcome, outcome
from unim2_core.model.bundle import MEMORY, Bundle
from unim2_core.model.classifier import Classifier
from unim2_core.model.given import ids_given
from unim2_core.model.versions import KEPT, changing, next_number, read_history, record
from unim2_core.sensing.rig import Rig

SHOWN = 3
"""Held-out pictures of the new drives that a report shows."""
PROBED = 24
"""Pictures of each drive that tell whether it is shifted."""
LIVE = "live topics"
CHECKPOINT_EVERY = 20
"""Pictures."""


@dataclass(frozen=True, eq=False)
class Plan:
    """What to adapt a model to, and how.

    Attributes:
        bags: the new drives.
        rig: of all drives.
        frames: frame sets of each, at most.
        old_bags: the drives that it was trained on, where it does not remember them.
        config: of the learner.
        backend: that computes the features.
        new_classes: that may be added, at most.
        kept: versions whose weights are kept.
        anchors: labelled images; they make the guard stricter.
        run: folder of the checkpoints.
        resume: go on where an adaptation was stopped.
        if_shifted: do nothing where the new drives are like the old ones.
        checkpoint_every: pictures between checkpoints; 0: none.
        live: what comes now, instead of new drives; it cannot be gone through again.
        threads: cores for the features; 0: all.
    """

    bags: Sequence[Path]
    rig: Rig
    run: Path
    frames: int = 200
    old_bags: Sequence[Path] = ()
    config: AdapterConfig = field(default_factory=AdapterConfig)
    backend: Backend = "auto"
    new_classes: int = 0
    kept: int = KEPT
    anchors: Path | None = None
    resume: bool = False
    if_shifted: bool = False
    checkpoint_every: int = CHECKPOINT_EVERY
    live: Stream | None = None
    threads: int = 0

    def source(self, bundle: Bundle, frames: int) -> DriveSource:
        """So many new pictures, of each drive, at most."""
        if self.live is not None:
            return self.live(bundle, frames)
        return drives_of(bundle, self.bags, self.rig, frames)


@dataclass(frozen=True, eq=False)
class Shown:
    """A held-out picture of a new drive: (H, W, 3) uint8 and the tokens of all modalities."""

    image: NDArray[np.uint8]
    tokens: Mapping[str, NDArray[np.float32]]
    presence: Mapping[str, NDArray[np.float32]]


@dataclass(eq=False)
class Adaptation:
    """How an adaptation went.

    Attributes:
        bundle: as it is served now.
        number: of the version that was tried.
        shift: how unlike the past the drives are, where that is known.
        judgement: of the guard; None where adapting was not needed.
        losses: the terms of the loss, a mean for each picture that paid for steps.
        shown: pictures for a report.
        served: the model before.
        adapted: and after.
        seconds: all in all.
        learning_s: of these, in gradient steps.
        steps: gradient steps.
    """

    bundle: Bundle
    number: int
    shift: Shift | None = None
    judgement: Judgement | None = None
    losses: list[dict[str, float]] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    served: Classifier | None = None
    adapted: Classifier | None = None
    seconds: float = 0.0
    learning_s: float = 0.0
    steps: int = 0

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        judged_by: dict[str, Any] = {"verdict": "not needed", "reasons": []}
        if self.judgement:
            judged_by = self.judgement.as_json()
        return judged_by | {
            "number": self.number,
            "served": self.bundle.manifest.number,
            "served_sha256": self.bundle.sha256,
            "shift": None if self.shift is None else self.shift.score,
            "steps": self.steps,
            "seconds": round(self.seconds, 2),
            "steps_per_s": round(self.steps / self.learning_s, 2) if self.learning_s else None,
        }


def adapt_model(
    path: Path, plan: Plan, out: Path | None = None, observers: Sequence[Observer] = ()
) -> Adaptation:
    """Adapt a model to new drives, judge it, and serve it where it is accepted.

    Args:
        path: the bundle.
        plan: to what, and how.
        out: a new bundle to write instead, with the history of the old one; only where there is
            something to keep.
        observers: told how it goes.

    Raises:
        Unim2Error: the drives, the model or a place to write to cannot be used; what was served
            is still served.
    """
    began = time.monotonic()
    bundle = Bundle(path)
    check_reference(bundle, plan.rig)
    Classifier.load(bundle)  # before any drive is read: it may be none that was trained
    source = plan.source(bundle, plan.frames)
    for sentence in source.absent:
        warn(sentence)
    engine = Engine(bundle, plan.backend, plan.threads)
    memory, eye, old = _memory(bundle, engine, plan)
    console.print(escape(f"remembered: {memory.summary}"))
    made = Adaptation(bundle, bundle.manifest.number)
    if plan.if_shifted:
        made.shift = measured_shift(bundle, memory, eye, plan)
        console.print(escape(made.shift.sentence))
        if not made.shift.shifted:
            made.seconds = time.monotonic() - began
            return made
    adapter = Adapter(bundle, memory, plan.config, source.limit)
    made.served = adapter.served
    facts = facts_of(
        model=bundle.sha256, drives=source.fingerprint(), old=old, adapter=plan.config
    )
    result = None
    try:
        _stream(source, eye, adapter, plan, facts, made, observers)
        free = ids_given(path, [entry.details for entry in read_history(path)])
        result = outcome(adapter, plan.new_classes, free)
        figures = dict(result.figures)
        made.adapted, made.shift = result.classifier, result.shift
        if plan.anchors is not None:
            from unim2_core.cli.anchors import anchor_figures

            figures |= anchor_figures(plan.anchors, bundle, eye, adapter.served, made.adapted)
    except Diverged as error:
        warn(str(error))
        figures = {"finite": 0.0}
    made.steps = adapter.steps
    with changing(path):  # not before: a person or a node may go back to another version meanwhile
        figures["same_parent"] = float(Bundle(path).sha256 == bundle.sha256)
        made.number, made.judgement = next_number(path), judged(figures)
        made.bundle = _kept(bundle, result, made, plan, out)
    made.seconds = time.monotonic() - began
    return made


def _memory(bundle: Bundle, engine: Engine, plan: Plan) -> tuple[Memory, Eye, str]:
    """What the model remembers, what looks at the same places, and a digest of where it is from.

    Raises:
        ModelError: it remembers nothing, and no old drives are given.
    """
    if plan.old_bags:
        source = drives_of(bundle, plan.old_bags, plan.rig, plan.frames)
        eye = Eye.of(engine, bundle, None, 0)
        return remembered(source, eye), eye, source.fingerprint()
    file = bundle.file(MEMORY)
    if not file.is_file():
        raise ModelError(
            f"{bundle.path} does not remember what it was trained on",
            expected=f"{MEMORY}, which unim2 train writes",
            found="a model without it; nothing could tell whether the old drives get worse",
            remedy="give the drives that it was trained on with --old-bag, or train it again",
        )
    memory = Memory.load(file)
    return memory, Eye.of(engine, bundle, memory, 0), "remembered"


def measured_shift(bundle: Bundle, memory: Memory, eye: Eye, plan: Plan) -> Shift:
    """How unlike the past the drives are, from a few pictures of each.

    Raises:
        ModelError: no picture can be used.
    """
    few = plan.source(bundle, PROBED)
    found = [sample.store for sample in samples(few, eye)]
    if not found:
        raise ModelError(
            "the drives give no picture",
            expected="at least one",
            found="none whose features are numbers",
            remedy="look at them with: unim2 info BAG",
        )
    weights = bundle.weights()
    standardization = Standardization(weights["mean"], weights["scale"])
    return shift(memory.rehearsed, memory.held, concatenated(*found), standardization)


def _stream(
    source: DriveSource,
    eye: Eye,
    adapter: Adapter,
    plan: Plan,
    facts: Facts,
    made: Adaptation,
    observers: Sequence[Observer],
) -> None:
    """Let the adapter take in every picture, once."""
    done = _resumed(adapter, plan, facts)
    mirror = Mirrored(source, ())
    status: Status = "failed"
    for observer in observers:
        observer.start(facts, adapter.steps)
    try:
        with progress("adapting", source.limit) as advance:
            for index, picture in enumerate(source):
                if index < done:  # decoded once more: running ranges depend on it
                    continue
                held = adapter.is_held
                tokens, presence = eye.tokens(picture)
                sample = eye.at_places(tokens, presence, picture)
                swapped = eye.sample(mirror.seen(picture), mirrored=True) if held else None
                if held and len(made.shown) < SHOWN:
                    image = next(iter(picture.images.values()))
                    made.shown.append(Shown(image, tokens, presence))
                _take(adapter, sample, swapped, made, observers)
                advance(index + 1)
                if plan.checkpoint_every and adapter.taken % plan.checkpoint_every == 0:
                    save_checkpoint(plan.run, facts, adapter.state())
        status = "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        for observer in observers:
            observer.close(status)


def _take(
    adapter: Adapter,
    sample: Sample | None,
    swapped: Sample | None,
    made: Adaptation,
    observers: Sequence[Observer],
) -> None:
    if sample is None:
        adapter.skip()
        return
    began = time.perf_counter()
    steps = adapter.take(sample, swapped)
    made.learning_s += time.perf_counter() - began
    if not steps:
        return
    names = [name for name in steps[0].log if name.startswith("loss/")]
    means = {
        name: float(np.mean([float(step.log[name]) for step in steps if name in step.log]))
        for name in names
    }
    made.losses.append(means)
    for observer in observers:
        observer.scalars(adapter.steps, means | {"buffer/new": float(adapter.buffer.filled)})
        observer.progress(
            Progress(
                adapter.steps,
                adapter.config.steps_per_picture * adapter.expected,
                steps[-1].loss,
                float("nan"),
            )
        )


def _resumed(adapter: Adapter, plan: Plan, facts: Facts) -> int:
    """Load the state to go on from; returns how many pictures it has seen."""
    remove_unfinished(plan.run)
    if not plan.resume:
        (plan.run / CHECKPOINT).unlink(missing_ok=True)
        return 0
    state = load_checkpoint(plan.run, facts)
    if state is None:
        warn(f"there is nothing to go on from in {plan.run}: it begins anew")
        return 0
    adapter.load(state)
    console.print(f"going on after {adapter.taken} pictures and {adapter.steps} steps")
    return adapter.taken


def _kept(
    bundle: Bundle, result: Outcome | None, made: Adaptation, plan: Plan, out: Path | None
) -> Bundle:
    """Keep what the verdict says is to be kept; returns the model as it is served now."""
    assert made.judgement is not None
    verdict, details = made.judgement.verdict, made.judgement.as_json()
    drives = [bag.name for bag in plan.bags] or [LIVE]
    details |= {"drives": drives, "seed": plan.config.seed}
    if verdict == "rejected" or result is None:
        if out is None:
            record(bundle.path, "rejected", made.number, bundle.manifest.number, None, details)
        return bundle
    details["identity"] = {
        "fresh": list(result.identity.fresh),
        "vanished": list(result.identity.vanished),
        "ids": result.identity.count,
    }
    if out is None:
        return write_version(bundle, verdict, result, details, plan.kept)
    draft = out.with_name(f".{out.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        shutil.copytree(bundle.path, draft)
        with changing(draft):
            write_version(Bundle(draft), verdict, result, details, plan.kept)
        draft.rename(out)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return Bundle(out)
