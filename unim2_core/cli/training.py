"""From pictures to a bundle, with everything that a person wants to see of it. Needs torch."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.markup import escape

from unim2_core.cli.console import console, errors, progress, warn
from unim2_core.cli.learning_data import warn_for_trying
from unim2_core.data.drive_pictures import DrivePictures, encodings_of
from unim2_core.data.pictures import PictureSource
from unim2_core.data.views import Cropped, Mirrored
from unim2_core.errors import ModelError
from unim2_core.evaluation.metrics import Scores
from unim2_core.evaluation.runner import Integers, Maps, tally
from unim2_core.inference.bundling import Trained, write_bundle
from unim2_core.learning.feature_cache import feature_bytes, open_features
from unim2_core.learning.features import FeatureStore
from unim2_core.learning.learner import Learner
from unim2_core.learning.memory import Memory
from unim2_core.learning.methods import Method, Recipe, recipe
from unim2_core.learning.objective import Objective
from unim2_core.learning.observers import Observer, Progress, Status
from unim2_core.learning.selection import loaded, looked_at
from unim2_core.learning.shard_places import find_shards
from unim2_core.learning.shards import Fleet, Wanted, chosen_shards
from unim2_core.learning.store_facts import Recorded
from unim2_core.learning.trainer import Pictures, Process, Validate
from unim2_core.learning.training_free import cluster_store
from unim2_core.model.bundle import Bundle, check_place
from unim2_core.model.classifier import Classifier
from unim2_core.model.frozen import TINY, FrozenBackbone
from unim2_core.sensing.rig import Rig
from unim2_core.showing.overlay import colorize
from unim2_core.showing.palette import color_table, distinct_colors

PICTURES = 4
"""Class maps that a training shows."""


@dataclass(frozen=True)
class Places:
    """Where a training keeps what.

    Attributes:
        out: the bundle.
        cache: features of all trainings.
        run: the run directory; it is removed in the end unless ``keep_run``.
        keep_run: whether it stays.
        overwrite: replace a bundle of that name.
    """

    out: Path
    cache: Path
    run: Path
    keep_run: bool = False
    overwrite: bool = False


def features_of(
    source: PictureSource,
    backbone: FrozenBackbone,
    cache: Path,
    recorded: Recorded | None = None,
) -> FeatureStore:
    """Frozen features of all pictures; says how large they get before it begins.

    Args:
        source: the pictures.
        backbone: the frozen network.
        cache: folder for features.
        recorded: where they are from, if the store is to say so, see ``open_features``.
    """
    size = feature_bytes(source, backbone)
    console.print(escape(f"frozen features: at most {size / 1e6:.0f} MB in {cache}"))
    with progress("frozen features", source.limit) as advance:
        return open_features(
            source, backbone, cache, progress=advance, warn=warn, recorded=recorded
        )


def fleet_of(places: Sequence[str], pictures: DrivePictures, backbone: FrozenBackbone) -> Fleet:
    """The features of other drives, where they lie.

    Args:
        places: folders and addresses that ``unim2 fleet features`` wrote to.
        pictures: those at hand, which they must be like.
        backbone: the frozen network.

    Raises:
        DataError: there are none, or one is incomplete, damaged, or does not fit.
    """
    encodings = {name: dict(how) for name, how in pictures.encodings.items()}
    wanted = Wanted(
        backbone.digest, backbone.name, encodings, pictures.size, pictures.rig.reference
    )
    with console.status("features of the fleet"):
        shards = [shard for place in places for shard in find_shards(place, wanted)]
        fleet = chosen_shards(shards, [digest for _, digest in pictures.drives], warn)
    count = len(fleet.shards)
    console.print(
        f"features of {count} {'drive' if count == 1 else 'drives'} more, {len(fleet)} pictures, "
        "are read where they lie"
    )
    return fleet


def views_of(
    source: PictureSource, count: int, backbone: FrozenBackbone, cache: Path
) -> tuple[FeatureStore, FeatureStore]:
    """Features of what a model is judged by without labels: mirrored pictures, and crops.

    Args:
        source: the pictures.
        count: how many they are.
        backbone: the frozen network.
        cache: folder for features.
    """
    rows = looked_at(count).tolist()
    mirrored, cropped = Mirrored(source, rows), Cropped(source, rows, backbone.patch_size)
    return features_of(mirrored, backbone, cache), features_of(cropped, backbone, cache)


def _check_processes(how: Recipe) -> None:
    """Refuse what several processes would compute otherwise than one."""
    if how.method != "kmeans" and how.network.fusion == "progressive":
        world = Process.current().world
        if world > 1:
            raise ModelError(
                "progressive fusion is trained by one process alone",
                expected="one process: its batch norms have to see the whole batch",
                found=f"{world} processes of torchrun",
                remedy="train it without torchrun, or with another fusion",
            )


def train_model(
    pictures: PictureSource,
    served: PictureSource,
    backbone: FrozenBackbone,
    how: Recipe,
    places: Places,
    *,
    observers: tuple[Observer, ...] = (),
    registration: Mapping[str, str] | None = None,
    known: Mapping[str, Any] | None = None,
    fleet: Fleet | None = None,
) -> Bundle | None:
    """Learn from pictures and write the bundle.

    Under ``torchrun`` every process trains, and rank 0 alone writes; the others get None.

    Args:
        pictures: what is learnt from.
        served: pictures as the robot will see them, at the size to infer at.
        backbone: the frozen network.
        how: the recipe.
        places: where everything goes.
        observers: told how the training goes, beside the progress bar.
        registration: sensor -> how it was registered, filled while the pictures are read.
        known: what else the manifest is to say of the training; JSON types only.
        fleet: features of other drives, to be learnt from as well. What the model is judged by,
            remembers and is exported with are the pictures alone.

    Raises:
        Unim2Error: the pictures, the weights or a place to write to cannot be used.
    """
    check_place(places.out, places.overwrite)
    _check_processes(how)
    store = features_of(pictures, backbone, places.cache)
    report = {"pictures": len(store), "seed": how.trainer.seed, **(known or {})}
    if how.method == "kmeans":
        with console.status("k-means"):
            clusters = cluster_store(store, how.clusters, how.trainer.seed)
        trained = Trained.clusters_of(clusters, backbone, how.title)
    else:
        facts = {"pictures": pictures.fingerprint(), "backbone": backbone.digest}
        if fleet is not None:
            facts["fleet"] = fleet.identity
            report["fleet"] = {
                "drives": len(fleet.shards),
                "pictures": len(fleet),
                "digest": fleet.identity,
            }
        learner = Learner(store, how, fleet)
        if Process.current().rank > 0:
            learner.train(learner.objective(), places.run, facts=facts)
            return None
        mirrored = cropped = None
        if how.choice == "label_free":
            mirrored, cropped = views_of(pictures, len(store), backbone, places.cache)
        with _bar("learning", how.trainer.steps) as bar:
            learned = learner.learn(
                places.run,
                observers=(bar, *observers),
                validate=_validation(learner, store),
                pictures=_shown(learner),
                mirrored=mirrored,
                cropped=cropped,
                facts=facts,
            )
        memory = Memory.of(
            learner.store.only(how.network.modalities),
            None if mirrored is None else mirrored.only(how.network.modalities),
            looked_at(len(store)),
            seed=how.trainer.seed,
        )
        trained = Trained.network_of(learned, backbone, how.title, memory)
    with console.status("graphs"):
        bundle = write_bundle(
            places.out, served, backbone, trained, report, registration, places.overwrite
        )
    if not places.keep_run:
        shutil.rmtree(places.run, ignore_errors=True)
    return bundle


def train_on_drives(
    drives: Sequence[Path],
    rig: Rig,
    modalities: tuple[str, ...],
    places: Places,
    *,
    method: Method = "unim2",
    clusters: int = 12,
    steps: int | None = None,
    frames: int = 100,
    seed: int = 0,
    backbone: str = TINY,
) -> Bundle:
    """Learn from drives on a backbone that comes with the package, in this process alone.

    Args:
        drives: the bags.
        rig: of their sensors.
        modalities: what to look at, the reference first.
        places: where everything goes.
        method: how classes are found.
        clusters: K.
        steps: batches of the training.
        frames: frame sets of each drive, at most.
        seed: of everything that is drawn.
        backbone: ``tiny`` or ``texture``.
    """
    frozen = FrozenBackbone(backbone)
    warn_for_trying(frozen)
    pictures = DrivePictures(
        drives,
        rig,
        encodings_of(modalities),
        patch_size=frozen.patch_size,
        frames=frames,
        warn=warn,
    )
    made = recipe(
        method, modalities, frozen.embed_dim, clusters, steps=steps, seed=seed, baseline=True
    )
    bundle = train_model(
        pictures, pictures, frozen, made, places, registration=pictures.registration
    )
    assert bundle is not None
    return bundle


def _validation(learner: Learner, store: FeatureStore) -> Validate | None:
    """Measure what would be served against labels, where there are any: only to be logged."""
    if store.labels is None:
        return None
    measured = store.take(looked_at(len(store))).only(learner.store.modalities)

    def validate(objective: Objective) -> dict[str, float]:
        scores = label_scores(learner.classifier(objective), measured)
        return {"val/miou": scores.mean_iou, "val/accuracy": scores.accuracy}

    return validate


def label_scores(model: Classifier, store: FeatureStore) -> Scores:
    """Hold a model, at one place a token, against the labels of a store.

    Raises:
        DataError: the store has no labels.
    """

    def predict(tokens: Maps, presence: Maps) -> Integers:
        scores = model.scores(
            {name: torch.from_numpy(part) for name, part in tokens.items()},
            {name: torch.from_numpy(part) for name, part in presence.items()},
        )
        return np.asarray(scores.argmax(dim=1).numpy())

    return tally(predict, store, len(model.prototypes))


def _shown(learner: Learner) -> Pictures:
    """Class maps of a few pictures, one pixel a token."""
    rows = looked_at(len(learner.store))[:: max(1, len(looked_at(len(learner.store))) // PICTURES)]
    colors = color_table(dict(enumerate(distinct_colors(learner.recipe.clusters))))

    def pictures(objective: Objective) -> dict[str, NDArray[np.uint8]]:
        model = learner.classifier(objective)
        found = {}
        for row in rows[:PICTURES]:
            tokens, presence = loaded(learner.store, row[None], model.modalities)
            classes = model.scores(tokens, presence).argmax(dim=1)[0].numpy().astype(np.uint8)
            found[f"classes/{int(row)}"] = colorize(classes, colors)
        return found

    return pictures


class Bar(Observer):
    """The progress bar of a training."""

    def __init__(self, advance: Any) -> None:
        self._advance = advance

    def progress(self, progress: Progress) -> None:
        """A step has been taken."""
        self._advance(progress.done)

    def close(self, status: Status) -> None:
        """Say how it ended, where not well."""
        if status != "finished":
            errors.print(f"training {status}; the same command goes on from the last checkpoint")


@contextmanager
def _bar(description: str, steps: int) -> Iterator[Bar]:
    quiet()
    with progress(description, steps) as advance:
        yield Bar(advance)


def quiet() -> None:
    """What the library says of its own accord is for its developers."""
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
