"""From frozen features to a model: train, refit the clusters, choose a candidate."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unim2_core.errors import DataError, ModelError
from unim2_core.learning.ahead import Ahead
from unim2_core.learning.features import (
    Features,
    FeatureStore,
    Read,
    Standardization,
    check_presence,
)
from unim2_core.learning.hardware import meet, resolve_device
from unim2_core.learning.joined import Joined, check_alike
from unim2_core.learning.methods import Recipe
from unim2_core.learning.objective import Batch, Objective
from unim2_core.learning.observers import Observer
from unim2_core.learning.pairs import Batches, find_neighbors
from unim2_core.learning.selection import (
    DEFAULT_RULE,
    Criteria,
    chosen,
    criteria,
    loaded,
    looked_at,
)
from unim2_core.learning.shards import Fleet
from unim2_core.learning.shifts import measured_shifts, with_shifts
from unim2_core.learning.trainer import (
    Candidate,
    Pictures,
    Process,
    Trained,
    Validate,
    load_candidate,
    train,
)
from unim2_core.model.classifier import Classifier, full_margin
from unim2_core.model.segmenter import start_evenly

PLACES = 200
"""Codes drawn from each picture when clusters are refitted."""
MOST_CODES = 20_000
CODED = 16
"""Pictures that are read at once for that."""
ITERATIONS, ATTEMPTS = 50, 3


@dataclass(frozen=True, eq=False)
class Learned:
    """A model, and how it came about.

    Attributes:
        classifier: the model; clusters are in the order of their size.
        full_margin: the margin that is shown as full confidence.
        shares: (K,) float64, of the places.
        objective: the network with its harmonizers and probes, to go on learning from.
        report: for people and manifests; JSON types only.
    """

    classifier: Classifier
    full_margin: float
    shares: NDArray[np.float64]
    objective: Objective
    report: dict[str, Any]


class Learner:
    """Learns a model from a store of features, and from those of a fleet where they are given.

    Under ``torchrun`` the processes meet here: what has to see every picture once is shared out.

    Args:
        store: the features of pictures at hand: learnt from, and what the model is judged by.
        recipe: how.
        fleet: features of other pictures, only learnt from.

    Attributes:
        store: the features at hand.
        all: these and the fleet's, what is learnt from.

    Raises:
        ModelError: a modality is in none of the pictures, or there are too few of them.
        DataError: features of the fleet cannot be read or are damaged, or another process sees
            others.
    """

    def __init__(self, store: FeatureStore, recipe: Recipe, fleet: Joined | None = None) -> None:
        self.group = meet(recipe.trainer.device)
        self.recipe = recipe
        self.store = store.only(recipe.network.modalities)
        self.all: Features = self.store
        if fleet is not None:
            check_alike(fleet, self.store)
            chosen_parts = fleet.only(recipe.network.modalities).parts
            self.all = Joined([self.store, *chosen_parts])
        self._check_agreed(fleet)
        check_presence(self.all)
        places = len(self.all) * int(np.prod(self.all.grid))
        if places < recipe.clusters:
            raise ModelError(
                "there are fewer places in the pictures than clusters",
                expected=f"at least {recipe.clusters} places",
                found=f"{places}",
                remedy="give more frames, or ask for fewer with --clusters",
            )
        count = len(self.all.modalities)
        self.standardization = (
            self.group.from_first(lambda: Standardization.of(self.all))
            if recipe.standardize
            else Standardization.identity(count, self.all.dim)
        )
        self.neighbors = find_neighbors(
            self.all, recipe.neighbors, self.standardization, self.group
        )

    def _check_agreed(self, fleet: Joined | None) -> None:
        """Check that this process sees what the first one sees: they would wait for each other.

        Raises:
            DataError: it does not.
        """
        own = {
            "pictures": str(len(self.all)),
            "times": f"{zlib.crc32(self.all.stamps_ns.tobytes()):08x}",
            "fleet": fleet.identity if isinstance(fleet, Fleet) else "none",
        }
        first = self.group.from_first(lambda: own)
        for what, found in own.items():
            if found != first[what]:
                raise DataError(
                    "the processes of this training do not see the same features",
                    expected=f"{what} as process 0: {first[what]}",
                    found=found,
                    remedy="give all of them the same --bag and --features, in places all can see",
                )

    def objective(self) -> Objective:
        """The objective with its first weights, which the seed decides."""
        recipe = self.recipe
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.trainer.seed)
            objective = Objective(recipe.network, recipe.objective, recipe.clusters)
            if recipe.start == "even":
                start_evenly(objective.segmenter)
            if recipe.shares is not None:
                shares, batches = recipe.shares, self._batches(Process())  # not split
                shifts = self.group.from_first(
                    lambda: measured_shifts(objective, batches, shares, recipe.trainer.seed)
                )
                objective.config = with_shifts(recipe.objective, shifts)
        return objective

    def batches(self) -> Callable[[int], Batch]:
        """This process's part of the batch of each step."""
        batches = self._batches(Process.current())
        return Ahead(batches, self.recipe.trainer.steps) if self.all.remote else batches

    def _batches(self, process: Process) -> Batches:
        return Batches(
            self.all,
            self.neighbors.indices,
            self.standardization,
            batch=self.recipe.batch,
            samples=self.recipe.samples,
            labels=self.recipe.preset == "paper",
            seed=self.recipe.trainer.seed,
            rank=process.rank,
            world=process.world,
        )

    def classifier(self, objective: Objective) -> Classifier:
        """What would be served of these weights, the largest cluster first."""
        mean, scale = (
            torch.from_numpy(part)
            for part in (self.standardization.mean, self.standardization.scale)
        )
        objective = deepcopy(objective).cpu()  # it may be in training, on another device
        probe = objective.cluster_probe.centers.detach()
        made = Classifier(objective.segmenter, probe, mean, scale)
        codes = self._codes(made)
        if self.recipe.prototypes == "refitted":
            made.prototypes = refitted(codes, self.recipe.clusters, self.recipe.trainer.seed)
        shares = _shares(codes, made.prototypes)
        made.prototypes = made.prototypes[torch.from_numpy(np.argsort(-shares, kind="stable"))]
        return made

    def shares(self, classifier: Classifier) -> NDArray[np.float64]:
        """The share of the places in each cluster, (K,)."""
        return _shares(self._codes(classifier), classifier.prototypes)

    def _codes(self, classifier: Classifier) -> Tensor:
        """(N, d) unit codes of places drawn from pictures that are spread evenly.

        What no modality sees has a code, too, but says nothing of the world: it is left out.
        """
        found = []
        for tokens, presence in self._places:
            drawn = {
                name: torch.from_numpy(part)[:, None].float() for name, part in tokens.items()
            }
            seen = {name: torch.from_numpy(p)[:, None].float() for name, p in presence.items()}
            there = torch.stack(list(seen.values())).amax(dim=0)[0, 0] > 0  # (places,)
            found.append(classifier.codes(drawn, seen)[0, :, 0].T[there])  # (n, d)
        return F.normalize(torch.cat(found), dim=1)

    @cached_property
    def _places(self) -> list[Read]:
        """The places that codes are of, picture by picture, (1, C, D) and (1, C); read once."""
        total = int(np.prod(self.all.grid))
        places = min(PLACES, total)
        count = min(len(self.all), max(1, MOST_CODES // places))
        rows = np.unique(np.linspace(0, len(self.all) - 1, count).round().astype(np.int64))
        draw = np.random.default_rng(self.recipe.trainer.seed)
        cells = np.stack([draw.choice(total, places, replace=False) for _ in rows])
        found = []
        for start in range(0, len(rows), CODED):
            several = slice(start, start + CODED)
            tokens, presence = self.all.read(rows[several], cells[several])
            for index in range(len(rows[several])):
                one = slice(index, index + 1)
                found.append(
                    Read(
                        {name: part[one] for name, part in tokens.items()},
                        {name: part[one] for name, part in presence.items()},
                    )
                )
        return found

    def learn(
        self,
        run: Path,
        *,
        observers: Sequence[Observer] = (),
        validate: Validate | None = None,
        pictures: Pictures | None = None,
        mirrored: FeatureStore | None = None,
        cropped: FeatureStore | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> Learned:
        """Train, or go on in a run directory, and choose the model that is served.

        Args:
            run: the run directory.
            observers: told how it goes.
            validate: see ``train``; its figures are only ever logged.
            pictures: see ``train``.
            mirrored: features of the pictures ``looked_at``, left and right swapped.
            cropped: features of the middle of these.
            facts: what else decides the weights.

        Raises:
            ModelError: the loss is not finite, or the run directory holds another training.
        """
        objective = self.objective()
        trained = self.train(objective, run, observers, validate, pictures, facts)
        found = self.measured(trained, objective, mirrored, cropped)
        last = len(trained.candidates) - 1
        best = chosen(found) if self.recipe.choice == "label_free" else last
        load_candidate(objective, trained.candidates[best].path)
        classifier = self.classifier(objective)
        return Learned(
            classifier,
            self._full_margin(classifier),
            self.shares(classifier),
            objective,
            self._report(trained, trained.candidates[best], found, best),
        )

    def train(
        self,
        objective: Objective,
        run: Path,
        observers: Sequence[Observer] = (),
        validate: Validate | None = None,
        pictures: Pictures | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> Trained:
        """Train only; under ``torchrun`` that is all that processes other than rank 0 do."""
        recipe = self.recipe
        own = {"batch": recipe.batch, "samples": recipe.samples, "start": recipe.start}
        return train(
            objective,
            self.batches(),
            self.recipe.trainer,
            run,
            observers=observers,
            validate=validate,
            pictures=pictures,
            facts={**own, "neighbors": asdict(self.recipe.neighbors), **(facts or {})},
        )

    def measured(
        self,
        trained: Trained,
        objective: Objective,
        mirrored: FeatureStore | None,
        cropped: FeatureStore | None = None,
    ) -> list[Criteria]:
        """The criteria of every candidate; of the last one only, where no choice is to be made."""
        wanted = trained.candidates
        if self.recipe.choice == "last":
            wanted = wanted[-1:]
        device = resolve_device(self.recipe.trainer.device)
        found = []
        for candidate in wanted:
            load_candidate(objective, candidate.path)
            classifier = self.classifier(objective).to(device)
            found.append(criteria(classifier, self.store, mirrored, cropped))
        return found

    def _full_margin(self, classifier: Classifier) -> float:
        margins = [
            classifier.margins(*loaded(self.store, row[None], classifier.modalities)).flatten()
            for row in looked_at(len(self.store))
        ]
        return full_margin(torch.cat(margins).numpy())

    def _report(
        self, trained: Trained, candidate: Candidate, found: Sequence[Criteria], best: int
    ) -> dict[str, Any]:
        recipe = self.recipe
        report = {
            "preset": recipe.preset,
            "steps": recipe.trainer.steps,
            "start": recipe.start,
            "batch": min(recipe.batch, len(self.all)),
            "seconds": round(trained.seconds, 1),
            "precision": trained.precision,
            "chosen": {
                "step": candidate.step,
                "by": f"{DEFAULT_RULE}, without labels"
                if recipe.choice == "label_free"
                else "the last step",
                "candidates": len(trained.candidates),
                "criteria": found[min(best, len(found) - 1)].as_json(),
            },
        }
        if recipe.neighbors.min_gap_s:
            report["neighbors_apart_s"] = self.neighbors.min_gap_s
        return report


def _shares(codes: Tensor, prototypes: Tensor) -> NDArray[np.float64]:
    """The share of unit codes (N, d) that is nearest to each of the prototypes (K, d): (K,)."""
    best = (codes @ prototypes.T).argmax(dim=1).numpy()
    return np.asarray(np.bincount(best, minlength=len(prototypes)) / len(best))


def refitted(codes: Tensor, clusters: int, seed: int) -> Tensor:
    """Prototypes (K, d) of unit codes (N, d), by spherical k-means."""
    cv2.setRNGSeed(seed)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, ITERATIONS, 1e-4)
    _, _, centres = cv2.kmeans(
        codes.numpy(), clusters, None, criteria, ATTEMPTS, cv2.KMEANS_PP_CENTERS
    )
    return F.normalize(torch.from_numpy(centres), dim=1)
