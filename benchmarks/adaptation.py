"""What adapting to new drives gives and costs, and what the guard lets through.

    python benchmarks/adaptation.py gain --seeds 3          # day to night, beside the alternatives
    python benchmarks/adaptation.py ids                     # five adaptations in a row
    python benchmarks/adaptation.py poison                  # poisoned drives
    python benchmarks/adaptation.py accept --drives 20      # and good ones
    python benchmarks/adaptation.py rate                    # gradient steps a second
    python benchmarks/adaptation.py gain --seeds 1 --seconds 10 --steps 60     # small

All on the synthetic world, on the small backbone that comes with the package, with which the
classes are far from good: gaps are small and noisy. mIoU is in percent after Hungarian matching on
whole test drives, which nothing was learnt from.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from unim2_core.cli.adapting import Adaptation, Plan, adapt_model
from unim2_core.cli.drive_samples import Eye, drives_of, samples
from unim2_core.cli.training import Places, train_model
from unim2_core.data.drive_labels import SYNTHETIC
from unim2_core.data.drive_pictures import DrivePictures, encodings_of
from unim2_core.data.synthetic import DriveConfig, default_rig, write_drive
from unim2_core.evaluation.runner import Tally
from unim2_core.inference.engine import Engine
from unim2_core.learning.adapter import Adapter, AdapterConfig
from unim2_core.learning.buffer import Sample
from unim2_core.learning.feature_cache import open_features
from unim2_core.learning.features import FeatureStore
from unim2_core.learning.identity import kept_share
from unim2_core.learning.learner import refitted
from unim2_core.learning.memory import Memory
from unim2_core.learning.methods import recipe
from unim2_core.learning.outcome import assigned_to, codes_of
from unim2_core.learning.selection import loaded
from unim2_core.model.bundle import MEMORY, Bundle
from unim2_core.model.classifier import Classifier
from unim2_core.model.frozen import FrozenBackbone
from unim2_core.model.probes import resized
from unim2_core.sensing.rig import Rig

MODALITIES = ("rgb", "thermal")
RATE_HZ = 2.0
CLUSTERS = 12
console = Console(width=150, highlight=False)


@dataclass(frozen=True, eq=False)
class Setting:
    """Where everything is, and how large.

    Attributes:
        folder: of drives, features and models.
        seconds: length of a drive.
        steps: of the first training.
        size: height and width that pictures are encoded at.
    """

    folder: Path
    seconds: float
    steps: int
    size: tuple[int, int]

    @property
    def rig(self) -> Rig:
        """Of all drives."""
        return default_rig(DriveConfig(rate_hz=RATE_HZ))

    def drive(self, seed: int, condition: str, seconds: float | None = None) -> Path:
        """A drive, rendered where it is not there yet."""
        length = self.seconds if seconds is None else seconds
        path = self.folder / f"drive-{seed}-{condition}-{length:g}"
        if not path.exists():
            write_drive(
                path,
                DriveConfig(
                    seed=seed,
                    condition=condition,  # type: ignore[arg-type]
                    duration_s=length,
                    rate_hz=RATE_HZ,
                    sensors=MODALITIES,
                ),
            )
        return path

    def pictures(self, *bags: Path, labels: bool = False) -> DrivePictures:
        """The pictures of drives."""
        return DrivePictures(
            bags,
            self.rig,
            encodings_of(MODALITIES),
            size=self.size,
            patch_size=8,
            labels=SYNTHETIC if labels else None,
        )

    def features(self, *bags: Path) -> FeatureStore:
        """Features of drives, with labels."""
        return open_features(
            self.pictures(*bags, labels=True), FrozenBackbone(), self.folder / "cache"
        )

    def model(self, name: str, seed: int, *bags: Path) -> Path:
        """A model trained on drives."""
        path = self.folder / f"{name}-{seed}-{self.steps}.unim2"
        if path.exists():
            return path
        source, backbone = self.pictures(*bags), FrozenBackbone()
        how = recipe(
            "unim2",
            MODALITIES,
            backbone.embed_dim,
            CLUSTERS,
            steps=self.steps,
            seed=seed,
            baseline=True,
        )
        places = Places(path, self.folder / "cache", self.folder / f"{path.name}.run")
        train_model(source, source, backbone, how, places)
        return path

    def adapted(self, model: Path, bags: Sequence[Path], seed: int = 0) -> Adaptation:
        """Adapt a model in its place."""
        with tempfile.TemporaryDirectory() as run:
            plan = Plan(bags, self.rig, Path(run), config=AdapterConfig(seed=seed))
            return adapt_model(model, plan)


@torch.no_grad()
def miou(model: Classifier, store: FeatureStore) -> float:
    """Percent, over a whole store, scores being resized to the labels."""
    assert store.labels is not None
    assert store.classes is not None
    tally = Tally(len(model.prototypes), len(store.classes.names))
    for start in range(0, len(store), 8):
        rows = np.arange(start, min(start + 8, len(store)))
        labels = store.labels[rows]
        scores = resized(model.scores(*loaded(store, rows, model.modalities)), labels.shape[1:])
        tally.add(scores.argmax(dim=1).numpy(), labels)
    return 100 * tally.scores.mean_iou


def plainly_tuned(model: Path, bags: Sequence[Path], setting: Setting, seed: int) -> Classifier:
    """Fine-tuned on new drives alone: no old pictures, no staying, no guard.

    Two old pictures remain, because a batch needs two from the first step on.
    """
    bundle = Bundle(model)
    memory = Memory.load(bundle.file(MEMORY))
    few = replace(memory, rehearsed=memory.rehearsed.take([0, 1]))
    eye = Eye.of(Engine(bundle), bundle, memory, 0)
    source = drives_of(bundle, bags, setting.rig, 200)
    config = AdapterConfig(seed=seed, staying=0.0, old_share=0.02)
    adapter = Adapter(bundle, few, config, source.limit)
    for sample in samples(source, eye):
        adapter.take(sample)
    made, _ = adapter.adapted()
    made.prototypes = refitted(codes_of(made, adapter.buffer.new), CLUSTERS, seed)
    return made


def gain(setting: Setting, seeds: int) -> None:
    """Day to night, beside plain fine-tuning and training from nothing on both."""
    day_test = setting.features(setting.drive(101, "day", setting.seconds / 2))
    night_test = setting.features(setting.drive(102, "night", setting.seconds / 2))
    figures: dict[str, list[tuple[float, float]]] = {}
    verdicts = []
    for seed in range(seeds):
        day, night = setting.drive(10 + seed, "day"), setting.drive(20 + seed, "night")
        model = setting.model("day", seed, day)
        copy = fresh(model, "gain")
        made = setting.adapted(copy, [night], seed)
        assert made.served is not None and made.adapted is not None and made.judgement is not None
        verdicts.append(made.judgement.verdict)
        both = Classifier.load(Bundle(setting.model("both", seed, day, night)))
        models = {
            "served before, trained on day": made.served,
            "adapted on night": made.adapted,
            "plain fine-tuning on night": plainly_tuned(model, [night], setting, seed),
            "trained from nothing on both": both,
        }
        for name, classifier in models.items():
            pair = (miou(classifier, night_test), miou(classifier, day_test))
            figures.setdefault(name, []).append(pair)
            console.print(f"seed {seed}, {name}: night {pair[0]:.1f}, day {pair[1]:.1f}")
    table = Table(
        *("model", "night mIoU %", "day mIoU %"),
        title=f"mean (deviation) of {seeds} seeds, drives of {setting.seconds:g} s; "
        f"verdicts: {', '.join(verdicts)}",
    )
    for name, pairs in figures.items():
        columns = np.array(pairs).T
        table.add_row(name, *(f"{part.mean():.1f} ({part.std():.1f})" for part in columns))
    console.print(table)
    means = {name: np.mean(pairs, axis=0) for name, pairs in figures.items()}
    before, after, _, best = means.values()
    gap = best[0] - before[0]
    closed = f"{100 * (after[0] - before[0]) / gap:.0f} %" if gap > 0 else "no gap to close"
    console.print(f"of the gap on night closed: {closed}; day: {after[1] - before[1]:+.1f} points")


def fresh(model: Path, name: str) -> Path:
    """A copy of a model that may be changed."""
    copy = model.with_name(f"{name}-{model.name}")
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(model, copy)
    return copy


def ids(setting: Setting, rounds: int = 5) -> None:
    """How many places keep their id over adaptations in a row, accepted or not."""
    day_test = setting.features(setting.drive(101, "day", setting.seconds / 2))
    model = fresh(setting.model("day", 0, setting.drive(10, "day")), "ids")
    first = assigned_to(Classifier.load(Bundle(model)), day_test)
    table = Table(
        *("adaptation", "verdict", "served", "keep their id, of the served before %"),
        *("of the first %", "day mIoU %"),
        title="held-out day drive, places that both models assign",
    )
    before = first
    for number in range(rounds):
        condition = ("night", "day")[number % 2]
        made = setting.adapted(model, [setting.drive(20 + number, condition)], number)
        assert made.judgement is not None
        now = Classifier.load(made.bundle)
        after = assigned_to(now, day_test)
        table.add_row(
            f"{number + 1}: {condition}",
            made.judgement.verdict,
            str(made.bundle.manifest.number),
            f"{100 * kept_share(before, after):.1f}",
            f"{100 * kept_share(first, after):.1f}",
            f"{miou(now, day_test):.1f}",
        )
        before = after
    console.print(table)


def accept(setting: Setting, drives: int) -> None:
    """What the guard says of good drives, half of them by night; each from the same model."""
    model = setting.model("day", 0, setting.drive(10, "day"))
    verdicts: dict[str, list[str]] = {"day": [], "night": []}
    reasons: list[str] = []
    for number in range(drives):
        condition = ("day", "night")[number % 2]
        made = setting.adapted(fresh(model, "accept"), [setting.drive(30 + number, condition)])
        assert made.judgement is not None
        verdicts[condition].append(made.judgement.verdict)
        reasons += [reason.partition(",")[0] for reason in made.judgement.reasons]
        console.print(f"{number + 1} {condition}: {made.judgement.verdict} {reasons[-1:]}")
    table = Table("drives", "accepted", "review", "rejected", title="good drives")
    for condition, found in verdicts.items():
        counts = (str(found.count(name)) for name in ("accepted", "review", "rejected"))
        table.add_row(f"{len(found)} {condition}", *counts)
    console.print(table)


def poison(setting: Setting) -> None:
    """What the guard says of poisoned drives, and what is served afterwards."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "test"))
    import adaptation_samples as bad

    model = setting.model("day", 0, setting.drive(10, "day"))
    good, other = setting.drive(31, "night"), setting.drive(32, "day")
    changes = {
        "black frames": bad.black,
        "black colour": bad.black_colour,
        "saturated thermal": bad.saturated,
        "thermal of another drive": bad.shuffled(other),
        "ten frames only": bad.few,
        "one repeated frame": bad.repeated(good, MODALITIES),
    }
    table = Table("drive", "verdict", "served afterwards", "first reason")
    for name, change in changes.items():
        copy = fresh(model, "poison")
        before = Bundle(copy).sha256
        with tempfile.TemporaryDirectory() as folder:
            drive = bad.rewritten(good, Path(folder) / "drive", change)
            made = setting.adapted(copy, [drive])
        assert made.judgement is not None
        same = Bundle(copy).sha256 == before
        table.add_row(
            name,
            made.judgement.verdict,
            "the same model" if same else "THE ADAPTED MODEL",
            next(iter(made.judgement.reasons), "-"),
        )
    console.print(table)


def rate(setting: Setting, batch: int) -> None:
    """Gradient steps a second on what is remembered, RGB and thermal."""
    bundle = Bundle(setting.model("day", 0, setting.drive(10, "day")))
    memory = Memory.load(bundle.file(MEMORY))
    table = Table(
        "threads", "precision", "steps a second", title=f"batch {batch}, cached features"
    )
    for threads in (1, 2):
        torch.set_num_threads(threads)
        adapter = Adapter(bundle, memory, AdapterConfig(batch=batch), 200)
        pictures = memory.rehearsed
        seconds = steps = 0.0
        for row in range(12):
            one = pictures.take([row])
            noise = np.random.default_rng(row)
            tokens = {
                name: (part[0] + noise.normal(0, 0.1, part[0].shape)).astype(np.float16)
                for name, part in one.tokens.items()
            }
            sample = Sample(tokens, {name: part[0] for name, part in one.presence.items()})
            began = time.perf_counter()
            taken = len(adapter.take(sample))
            if row >= 6:
                seconds += time.perf_counter() - began
                steps += taken
        table.add_row(str(threads), adapter.precision, f"{steps / seconds:.1f}")
    console.print(table)


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("gain", "ids", "poison", "accept", "rate"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a drive")
    parser.add_argument("--steps", type=int, default=300, help="of the first training")
    parser.add_argument("--drives", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", default="112x160", help="HEIGHTxWIDTH to encode at")
    parser.add_argument("--folder", type=Path, help="keeps drives, features and models")
    given = parser.parse_args()
    height, width = (int(part) for part in given.size.split("x"))
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        setting = Setting(folder, given.seconds, given.steps, (height, width))
        if given.what == "gain":
            gain(setting, given.seeds)
        elif given.what == "ids":
            ids(setting)
        elif given.what == "poison":
            poison(setting)
        elif given.what == "accept":
            accept(setting, given.drives)
        else:
            rate(setting, given.batch)


if __name__ == "__main__":
    main()
