"""Models to be compared: every candidate of a training, and clusterings in the same form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fields import Field
from torch import Tensor

from unim2_core.evaluation.runner import Tally
from unim2_core.learning.features import FeatureStore
from unim2_core.learning.hardware import resolve_device
from unim2_core.learning.kmeans import Clusters, fit_clusters
from unim2_core.learning.learner import Learner
from unim2_core.learning.methods import Recipe
from unim2_core.learning.selection import Criteria, assigned, criteria, loaded, with_peers
from unim2_core.learning.trainer import load_candidate, train
from unim2_core.learning.training_free import PLACES, draw_places
from unim2_core.model.classifier import Classifier
from unim2_core.model.probes import resized

CHUNK = 8
CANDIDATES = 20


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

    cosines = scores


Model = Classifier | KMeans


@torch.no_grad()
def counted(model: Model, store: FeatureStore, clusters: int, without: str | None = None) -> Tally:
    """Counts over a whole store; ``without`` a modality. Scores are resized, not classes."""
    assert store.labels is not None
    assert store.classes is not None
    tally = Tally(clusters, len(store.classes.names))
    for start in range(0, len(store), CHUNK):
        rows = np.arange(start, min(start + CHUNK, len(store)))
        tokens, presence = loaded(store, rows, model.modalities, model.prototypes.device)
        if without is not None:
            presence[without] = torch.zeros_like(presence[without])
        labels = store.labels[rows]
        scores = resized(model.scores(tokens, presence), labels.shape[1:])
        tally.add(scores.argmax(dim=1).cpu().numpy(), labels)
    return tally


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
    device = resolve_device(made.trainer.device)
    for candidate in trained.candidates:
        fresh = learner.objective()
        load_candidate(fresh, candidate.path)
        models.append(learner.classifier(fresh).to(device))
    return models


def judged_without_labels(models: Sequence[Model], where: Field) -> list[Criteria]:
    """All criteria of all candidates."""
    found = [
        criteria(model, where.train, where.mirrored, where.cropped, subsets=True)
        for model in models
    ]  # type: ignore[arg-type]
    return with_peers(found, [assigned(model, where.train) for model in models])  # type: ignore[arg-type]
