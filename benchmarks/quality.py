"""How good the classes are, method by method, chosen without labels and by an oracle.

    python benchmarks/quality.py                          # the synthetic world
    python benchmarks/quality.py --cwfid ../shared/data   # and real red and near infrared images
    python benchmarks/quality.py --backbone weights.pth   # with a trained backbone

Every training leaves candidates. Labels measure all of them on other drives, and so there are four
figures: of the candidate that was chosen without labels, of the last, of one taken at random (the
mean of all), and of the best, which only an oracle could choose. All are mIoU in percent after
Hungarian matching, over whole test sets, means over the seeds; the spread is the best minus the
worst candidate. Where a modality is missing, clusters keep the classes that they have with all.
With the untrained baseline as backbone the figures compare methods on simple features; they say
little about a robot.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unim2_core.data.data_sets import open_data_set
from unim2_core.data.drive_labels import SYNTHETIC
from unim2_core.data.drive_pictures import DrivePictures, encodings_of
from unim2_core.data.pictures import PictureSource
from unim2_core.data.synthetic import WORLD_VERSION, DriveConfig, default_rig, write_drive
from unim2_core.data.views import Cropped, Mirrored
from unim2_core.evaluation.runner import Tally
from unim2_core.learning.feature_cache import open_features
from unim2_core.learning.features import FeatureStore
from unim2_core.learning.kmeans import Clusters, fit_clusters
from unim2_core.learning.learner import Learner
from unim2_core.learning.methods import Method, Recipe, recipe
from unim2_core.learning.selection import (
    DEFAULT_RULE,
    RULES,
    Criteria,
    assigned,
    chosen,
    criteria,
    loaded,
    looked_at,
    rank_correlation,
    with_peers,
)
from unim2_core.learning.trainer import load_candidate, train
from unim2_core.learning.training_free import PLACES, draw_places
from unim2_core.model.classifier import Classifier
from unim2_core.model.frozen import FrozenBackbone
from unim2_core.model.probes import resized
from unim2_core.sensing.modalities import Preset

MODALITIES = ("rgb", "depth", "thermal", "nir")
CHUNK = 8
CANDIDATES = 20
console = Console(width=150, highlight=False)


@dataclass(frozen=True, eq=False)
class Field:
    """Features to learn from and to measure on."""

    name: str
    train: FeatureStore
    mirrored: FeatureStore
    cropped: FeatureStore
    test: FeatureStore
    clusters: int


@dataclass
class Row:
    """One line of the table: a figure of each seed."""

    label_free: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    random: list[float] = field(default_factory=list)
    oracle: list[float] = field(default_factory=list)
    spread: list[float] = field(default_factory=list)

    def add(self, figures: Sequence[float], choice: int) -> None:
        """Take in the figures of one seed's candidates."""
        self.label_free.append(figures[choice])
        self.last.append(figures[-1])
        self.random.append(float(np.mean(figures)))
        self.oracle.append(max(figures))
        self.spread.append(max(figures) - min(figures))


class KMeans:
    """Clusters of tokens in the form that criteria take."""

    def __init__(self, clusters: Clusters, modalities: tuple[str, ...]) -> None:
        self.modalities = modalities
        self.prototypes = torch.from_numpy(clusters.prototypes)  # (K, M, D)
        self._mean, self._scale = map(torch.from_numpy, (clusters.mean, clusters.scale))

    def scores(self, tokens: Mapping[str, Tensor], presence: Mapping[str, Tensor]) -> Tensor:
        """Cosines over what is present, (B, K, h, w), as ``ClusterHead`` has them."""
        dots: Tensor | float = 0.0
        length: Tensor | float = 0.0
        seen: Tensor | float = 0.0
        for index, name in enumerate(self.modalities):
            unit = F.normalize((tokens[name] - self._mean[index]) * self._scale[index], dim=3)
            there = presence[name][..., None]
            dots = dots + (unit * there) @ self.prototypes[:, index].T
            length = length + there * self.prototypes[:, index].square().sum(1)
            seen = seen + there
        cosines = dots / (length * seen).clamp(min=1e-12).sqrt()  # type: ignore[union-attr]
        return cosines.permute(0, 3, 1, 2)

    def margins(self, tokens: Mapping[str, Tensor], presence: Mapping[str, Tensor]) -> Tensor:
        """Best minus second cosine, (B, h, w)."""
        best = self.scores(tokens, presence).topk(2, dim=1).values
        return best[:, 0] - best[:, 1]


Model = Classifier | KMeans


@torch.no_grad()
def counted(model: Model, store: FeatureStore, clusters: int, without: str | None = None) -> Tally:
    """Counts over a whole store; ``without`` a modality. Scores are resized, not classes."""
    assert store.labels is not None
    assert store.classes is not None
    tally = Tally(clusters, len(store.classes.names))
    for start in range(0, len(store), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(store)))
        tokens, presence = loaded(store, rows, model.modalities)
        if without is not None:
            presence[without] = torch.zeros_like(presence[without])
        labels = store.labels[rows]
        scores = resized(model.scores(tokens, presence), labels.shape[1:])
        tally.add(scores.argmax(dim=1).numpy(), labels)
    return tally


def synthetic(arguments: argparse.Namespace, backbone: FrozenBackbone, cache: Path) -> Field:
    """Two drives to learn from and two to measure on, each by day and by night."""
    drives: dict[str, list[Path]] = {"train": [], "test": []}
    for part, first, seconds in (("train", 1, arguments.seconds), ("test", 101, 25.0)):
        for offset, condition in enumerate(("day", "night")):
            drive = DriveConfig(
                seed=first + offset, condition=condition, duration_s=seconds, rate_hz=2.0
            )
            path = cache / f"world{WORLD_VERSION}_{first + offset}_{condition}_{seconds:g}s"
            if not path.exists():
                console.print(f"rendering {path.name}")
                write_drive(path, drive)
            drives[part].append(path)
    rig = default_rig(DriveConfig())

    def source(part: str) -> DrivePictures:
        return DrivePictures(
            drives[part],
            rig,
            encodings_of(MODALITIES),
            size=(240, 320),
            patch_size=backbone.patch_size,
            labels=SYNTHETIC,
        )

    return opened("synthetic world", source("train"), source("test"), backbone, cache)


CWFID = """modalities:
  rgb: {as: rgb, glob: 'cwfid/images/*.png', channels: [0, 0, 0]}
  nir: {as: nir, glob: 'cwfid/images/*.png', channels: [1]}
labels:
  glob: 'cwfid/annotations/*.png'
  colors: {'0,0,0': 0, '0,255,0': 1, '255,0,0': 2}
classes: [soil, crop, weed]
split: {train: [0, 12], test: [12, 20]}
"""


def cwfid(data: Path, backbone: FrozenBackbone, cache: Path) -> Field:
    """Crops and weeds in red and near infrared, real."""
    folder = cache / "cwfid"  # a link: globs are relative to the YAML file
    folder.unlink(missing_ok=True)
    folder.symlink_to((data / "cwfid").resolve())
    (cache / "cwfid.yaml").write_text(CWFID)
    parts = [
        open_data_set(str(cache / "cwfid.yaml"), split=split, crops=crops, size=size)
        for split, crops, size in (("train", "five", (240, 320)), ("test", "none", (480, 640)))
    ]
    return opened("cwfid, real", parts[0], parts[1], backbone, cache)


def opened(
    name: str,
    train_on: PictureSource,
    test_on: PictureSource,
    backbone: FrozenBackbone,
    cache: Path,
) -> Field:
    """Features of both parts."""
    store = open_features(train_on, backbone, cache)
    rows = looked_at(len(store)).tolist()
    mirrored = open_features(Mirrored(train_on, rows), backbone, cache)
    middles = Cropped(train_on, rows, backbone.patch_size)
    cropped = open_features(middles, backbone, cache)
    test = open_features(test_on, backbone, cache)
    assert test.classes is not None
    return Field(name, store, mirrored, cropped, test, len(test.classes.names))


def kmeans_candidates(where: Field, seed: int) -> list[Model]:
    """As many clusterings, each of other places and from other starting centres."""
    models: list[Model] = []
    for attempt in range(CANDIDATES):
        own = 1000 * seed + attempt
        drawn = draw_places(where.train, PLACES // 4, own)
        models.append(KMeans(fit_clusters(*drawn, where.clusters, own), where.train.modalities))
    return models


def trained_candidates(where: Field, made: Recipe, run: Path) -> list[Model]:
    """Every candidate of one training."""
    learner = Learner(where.train, made)
    objective = learner.objective()
    trained = train(objective, learner.batches(), made.trainer, run)
    models: list[Model] = []
    for candidate in trained.candidates:
        fresh = learner.objective()
        load_candidate(fresh, candidate.path)
        models.append(learner.classifier(fresh))
    return models


def judged_without_labels(models: Sequence[Model], where: Field) -> list[Criteria]:
    """All criteria of all candidates."""
    found = [criteria(model, where.train, where.mirrored, where.cropped) for model in models]  # type: ignore[arg-type]
    return with_peers(found, [assigned(model, where.train) for model in models])  # type: ignore[arg-type]


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="texture", help="texture, or a file of weights")
    parser.add_argument("--cwfid", type=Path, help="folder that holds cwfid/")
    parser.add_argument("--real-only", action="store_true", help="leave the synthetic world out")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="batches of each training")
    parser.add_argument("--seconds", type=float, default=45.0, help="length of a training drive")
    parser.add_argument("--cache", type=Path, help="keeps drives and features")
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    arguments = parser.parse_args()
    if arguments.real_only and not arguments.cwfid:
        parser.error("--real-only leaves nothing to measure on; expected --cwfid with it")
    backbone = FrozenBackbone(arguments.backbone)
    found: dict[str, dict[str, Row]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        cache = arguments.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        places = []
        if not arguments.real_only:
            places.append(synthetic(arguments, backbone, cache))
        if arguments.cwfid:
            places.append(cwfid(arguments.cwfid, backbone, cache))
        for where in places:
            found[where.name] = measure(where, backbone, arguments)
    if arguments.json:
        content = {name: {k: vars(row) for k, row in rows.items()} for name, rows in found.items()}
        arguments.json.write_text(json.dumps(content, indent=2))


METHODS: tuple[tuple[str, Method, Preset], ...] = (
    ("k-means", "kmeans", "robot"),
    ("reference only (STEGO)", "rgb_only", "robot"),
    ("naive fusion", "naive_fusion", "robot"),
    ("UniM2 paper", "unim2", "paper"),
    ("UniM2 robot", "unim2", "robot"),
)


def measure(
    where: Field, backbone: FrozenBackbone, arguments: argparse.Namespace
) -> dict[str, Row]:
    """All methods and seeds on one field."""
    rows: dict[str, Row] = {}
    rules: dict[str, list[tuple[float, float]]] = {rule: [] for rule in RULES}
    started = time.monotonic()
    for title, method, preset in METHODS:
        for seed in range(arguments.seeds):
            if method == "kmeans":
                models = kmeans_candidates(where, seed)
            else:
                made = recipe(
                    method,
                    where.train.modalities,
                    backbone.embed_dim,
                    where.clusters,
                    preset=preset,
                    steps=arguments.steps,
                    seed=seed,
                    baseline=backbone.baseline,
                )
                with tempfile.TemporaryDirectory() as run:
                    models = trained_candidates(where, made, Path(run))
            judged = judged_without_labels(models, where)
            tallies = [counted(model, where.test, where.clusters) for model in models]
            figures = [100 * tally.scores.mean_iou for tally in tallies]
            choice = chosen(judged)
            rows.setdefault(title, Row()).add(figures, choice)
            if method == "unim2":
                for rule, score in RULES.items():
                    values = score(judged)
                    if not np.isnan(values).any():
                        best = figures[chosen(judged, rule)]
                        rules[rule].append((rank_correlation(values, np.array(figures)), best))
            if title == "UniM2 robot":
                for name in where.train.modalities:
                    left = [counted(m, where.test, where.clusters, name) for m in models]
                    without = [
                        100 * tally.scores_by(whole.scores.classes).mean_iou
                        for tally, whole in zip(left, tallies, strict=True)
                    ]
                    rows.setdefault(f"UniM2 robot without {name}", Row()).add(without, choice)
            console.print(
                f"{where.name}, {title}, seed {seed}: {figures[choice]:.1f} "
                f"({time.monotonic() - started:.0f} s)"
            )
    show(where, rows, rules, arguments, backbone)
    return rows


def show(
    where: Field,
    rows: Mapping[str, Row],
    rules: Mapping[str, Sequence[tuple[float, float]]],
    arguments: argparse.Namespace,
    backbone: FrozenBackbone,
) -> None:
    """Print the table, and how well each rule chooses among the candidates of UniM2."""
    table = Table(
        *("method", "label-free", "last", "random", "oracle (labels)", "spread"),
        title=f"{where.name}, backbone {backbone.name}: mIoU %, mean (deviation) of "
        f"{arguments.seeds} seeds, {CANDIDATES} candidates each, {arguments.steps} steps; "
        f"{len(where.train)} pictures to learn from, {len(where.test)} to measure on",
    )
    for title, row in rows.items():
        table.add_row(
            title,
            *(f"{np.mean(part):.1f} ({np.std(part):.1f})" for part in vars(row).values()),
        )
    console.print(table)
    table = Table(
        "rule",
        "rank correlation with mIoU",
        "mIoU % of its choice",
        title=f"choosing without labels among the candidates of UniM2; default: {DEFAULT_RULE}",
    )
    for rule, values in rules.items():
        if values:
            correlations, figures = np.array(values).T
            table.add_row(rule, f"{np.nanmean(correlations):+.2f}", f"{figures.mean():.1f}")
    console.print(table)


if __name__ == "__main__":
    main()
