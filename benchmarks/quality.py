"""How good the classes are, method by method, chosen without labels and by an oracle.

    python benchmarks/quality.py                          # the synthetic world
    python benchmarks/quality.py --cwfid ../shared/data   # and real red and near infrared images
    python benchmarks/quality.py --backbone weights.pth   # with a trained backbone
    python benchmarks/quality.py --journal figures.jsonl  # goes on where it was stopped

Every training leaves candidates. Labels measure all of them on other drives, and so there are four
figures: of the candidate that was chosen without labels, of the last, of one taken at random (the
mean of all), and of the best, which only an oracle could choose. All are mIoU in percent after
Hungarian matching, over whole test sets, means over the seeds; the spread is the best minus the
worst candidate. Where a modality is missing, clusters keep the classes that they have with all.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from candidates import (
    CANDIDATES,
    Model,
    counted,
    judged_without_labels,
    kmeans_candidates,
    trained_candidates,
)
from fields import Field, console, cwfid, synthetic
from rich.table import Table

from unim2_core.learning.methods import Method, recipe
from unim2_core.learning.selection import (
    DEFAULT_RULE,
    RULES,
    Criteria,
    chosen,
    rank_correlation,
    regret,
)
from unim2_core.model.frozen import FrozenBackbone
from unim2_core.sensing.modalities import Preset

METHODS: tuple[tuple[str, Method, Preset], ...] = (
    ("k-means", "kmeans", "robot"),
    ("reference only (STEGO)", "rgb_only", "robot"),
    ("naive fusion", "naive_fusion", "robot"),
    ("UniM2 paper", "unim2", "paper"),
    ("UniM2 robot", "unim2", "robot"),
)
ROBOT = METHODS[-1]


@dataclass(frozen=True)
class Found:
    """What is known of the candidates of one training.

    Attributes:
        criteria: without labels.
        miou: with them, percent.
        without: modality -> the same where it is missing.
    """

    criteria: Sequence[Criteria]
    miou: Sequence[float]
    without: Mapping[str, Sequence[float]]

    def as_json(self) -> dict[str, Any]:
        """As a journal has it."""
        return asdict(self) | {"criteria": [one.as_json() for one in self.criteria]}

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Found:
        """Out of a journal."""
        known = [
            {name: float("nan") if value is None else value for name, value in one.items()}
            for one in content["criteria"]
        ]
        return cls([Criteria(**one) for one in known], content["miou"], content["without"])


class Journal:
    """Results as JSON lines; what is there is not computed again."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        self._known = {line["key"]: line for line in map(json.loads, lines)}

    def get(self, key: str) -> Found | None:
        """What is known under a key."""
        return Found.of_json(self._known[key]) if key in self._known else None

    def add(self, key: str, found: Found) -> Found:
        """Keep a result; returns it as it will be read again."""
        self._known[key] = {"key": key, **found.as_json()}
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps(self._known[key]) + "\n")
        return Found.of_json(self._known[key])


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


def main() -> None:
    """Print a table for each field."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="tiny", help="tiny, texture, or a file of weights")
    parser.add_argument("--cwfid", type=Path, help="folder that holds cwfid/")
    parser.add_argument("--real-only", action="store_true", help="leave the synthetic world out")
    parser.add_argument("--fallbacks", action="store_true", help="and trained without each sensor")
    titles = [title for title, *_ in METHODS]
    parser.add_argument("--only", action="append", choices=titles, help="these rows; repeatable")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="batches of each training")
    parser.add_argument("--seconds", type=float, default=45.0, help="length of a training drive")
    parser.add_argument("--cache", type=Path, help="keeps drives and features")
    parser.add_argument("--journal", type=Path, help="keeps all figures; goes on from there")
    arguments = parser.parse_args()
    if arguments.real_only and not arguments.cwfid:
        parser.error("--real-only leaves nothing to measure on; expected --cwfid with it")
    backbone = FrozenBackbone(arguments.backbone)
    journal = Journal(arguments.journal)
    with tempfile.TemporaryDirectory() as scratch:
        cache = arguments.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        places = []
        if not arguments.real_only:
            places.append(synthetic(backbone, cache, arguments.seconds))
        if arguments.cwfid:
            places += [cwfid(arguments.cwfid, backbone, cache, count) for count in (3, 2)]
        for where in places:
            measure(where, backbone, arguments, journal)


def measure(
    where: Field, backbone: FrozenBackbone, arguments: argparse.Namespace, journal: Journal
) -> None:
    """All methods and seeds on one field."""
    started = time.monotonic()
    found: dict[str, list[Found]] = {}

    def run(title: str, place: Field, method: Method, preset: Preset) -> None:
        for seed in range(arguments.seeds):
            facts = (where.name, backbone.digest[:12], arguments.steps, arguments.seconds)
            key = json.dumps([*facts, title, seed])
            one = journal.get(key)
            if one is None:
                models = candidates(place, backbone, method, preset, arguments.steps, seed)
                one = journal.add(key, held(models, place, missing=title == ROBOT[0]))
            found.setdefault(title, []).append(one)
            console.print(
                f"{where.name}, {title}, seed {seed}: {one.miou[chosen(one.criteria)]:.1f} "
                f"({time.monotonic() - started:.0f} s)"
            )

    for title, method, preset in METHODS:
        if not arguments.only or title in arguments.only:
            run(title, where, method, preset)
    if arguments.fallbacks:
        for name in where.train.modalities:
            rest = [other for other in where.train.modalities if other != name]
            method: Method = "unim2" if len(rest) > 1 else "rgb_only"
            run(f"{ROBOT[0]} trained without {name}", where.only(rest), method, ROBOT[2])
    show(where, found, arguments, backbone)


def candidates(
    where: Field, backbone: FrozenBackbone, method: Method, preset: Preset, steps: int, seed: int
) -> list[Model]:
    """Everything that one training leaves to choose from."""
    if method == "kmeans":
        return kmeans_candidates(where, seed)
    made = recipe(
        method,
        where.train.modalities,
        backbone.embed_dim,
        where.clusters,
        preset=preset,
        steps=steps,
        seed=seed,
        baseline=backbone.baseline,
    )
    with tempfile.TemporaryDirectory() as run:
        return trained_candidates(where, made, Path(run))


def held(models: Sequence[Model], where: Field, *, missing: bool) -> Found:
    """Hold candidates against labels, and against themselves; ``missing``: each modality, too."""
    judged = judged_without_labels(models, where)
    tallies = [counted(model, where.test, where.clusters) for model in models]
    without = {}
    for name in where.train.modalities if missing else ():
        left = [counted(model, where.test, where.clusters, name) for model in models]
        without[name] = [
            100 * tally.scores_by(whole.scores.classes).mean_iou
            for tally, whole in zip(left, tallies, strict=True)
        ]
    return Found(judged, [100 * tally.scores.mean_iou for tally in tallies], without)


def show(
    where: Field,
    found: Mapping[str, Sequence[Found]],
    arguments: argparse.Namespace,
    backbone: FrozenBackbone,
) -> None:
    """Print the table, and how well each rule chooses among the candidates of UniM2."""
    rows: dict[str, Row] = {}
    rules: dict[str, list[tuple[float, float, float]]] = {}
    for title, seeds in found.items():
        for one in seeds:
            choice = chosen(one.criteria)
            rows.setdefault(title, Row()).add(one.miou, choice)
            for name, figures in one.without.items():
                rows.setdefault(f"{title}, {name} missing", Row()).add(figures, choice)
            for rule, score in RULES.items() if title.startswith("UniM2") else ():
                values = score(one.criteria)
                if not np.isnan(values).any():
                    truth, choice = np.array(one.miou), chosen(one.criteria, rule)
                    order = rank_correlation(values, truth)
                    entry = (order, one.miou[choice], regret(choice, truth))
                    rules.setdefault(rule, []).append(entry)
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
        *("rule", "rank correlation with mIoU", "mIoU % of its choice", "below the oracle"),
        title=f"choosing without labels among the candidates of UniM2; default: {DEFAULT_RULE}",
    )
    for rule, entries in rules.items():
        orders, figures, regrets = np.array(entries).T
        table.add_row(
            rule, f"{np.nanmean(orders):+.2f}", f"{figures.mean():.1f}", f"{regrets.mean():.1f}"
        )
    console.print(table)


if __name__ == "__main__":
    main()
