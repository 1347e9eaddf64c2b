"""How many clusters features ask for: the most that are found again in other places.

The places are split into three parts. K-means on the first and on the second give two ways to
assign the third; how well these agree (adjusted Rand index) is the stability of K (Lange et al.,
2004; Tibshirani and Walther, 2005, measure it in other units). Three things make a choice of it:

- Few clusters are stable on any data, also where there are none to be found. So the stability of
  places without structure, drawn from a normal distribution with the same principal axes, is taken
  off, and what is left is put on a scale whose top, 1, is perfect agreement.
- The curve is noisy, so it is the mean over several splits, and its standard error is known.
- Of all K within one standard error of the best, the largest is suggested. Two clusters too many
  can be given one name; one too few cannot be told apart any more.

It is a suggestion: on real features the curve is flat, and several K are about as good.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError
from unim2_core.learning.features import FeatureStore, check_presence
from unim2_core.learning.kmeans import Floats, centers, normalized
from unim2_core.learning.selection import agreement
from unim2_core.learning.training_free import draw_places

CANDIDATES = (4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18, 20, 24, 28, 32)
PLACES = 6000
SPLITS = 4
ATTEMPTS = 3
AXES = 32
"""Principal axes that are looked along; what is beyond them is mostly noise."""
PER_CLUSTER = 5
"""Places in each part for every cluster; fewer say nothing about stability."""


@dataclass(frozen=True)
class ClusterCount:
    """A suggested number of clusters, and the curve that it was read from.

    Attributes:
        clusters: the suggestion.
        candidates: every K that was tried.
        stability: of each, mean over splits; 1 at most, about 0 without structure.
        error: standard error of each.
    """

    clusters: int
    candidates: tuple[int, ...]
    stability: tuple[float, ...]
    error: tuple[float, ...]

    def as_json(self) -> dict[str, object]:
        """For manifests."""
        return {
            "clusters": self.clusters,
            "by": "stability under resampling, without labels",
            "curve": [
                {"clusters": k, "stability": round(s, 4), "error": round(e, 4)}
                for k, s, e in zip(self.candidates, self.stability, self.error, strict=True)
            ],
        }


def cluster_count_of(store: FeatureStore, seed: int = 0) -> ClusterCount:
    """Suggest a number of clusters for a store of features.

    Raises:
        ModelError: there are too few places, or a modality is in none of the pictures.
    """
    check_presence(store)
    pictures = np.unique(np.linspace(0, len(store) - 1, PLACES // 10).round().astype(np.int64))
    tokens, presence = draw_places(store.take(pictures), -(-PLACES // len(pictures)), seed)
    return suggest_clusters(tokens, presence, seed)


def suggest_clusters(tokens: Floats, presence: Floats, seed: int = 0) -> ClusterCount:
    """Suggest a number of clusters for places, see the module; equal seeds, equal suggestions.

    Args:
        tokens: (N, M, D) float32, zeros where not present; ``PLACES`` of them are looked at.
        presence: (N, M) float32.
        seed: of all draws.

    Raises:
        ModelError: there are too few places for any candidate.
    """
    draw = np.random.default_rng(seed)
    rows = draw.permutation(len(tokens))[:PLACES]
    candidates = tuple(k for k in CANDIDATES if 3 * PER_CLUSTER * k <= len(rows))
    if not candidates:
        raise ModelError(
            "there are too few places to suggest a number of clusters",
            expected=f"at least {3 * PER_CLUSTER * CANDIDATES[0]}",
            found=str(len(rows)),
            remedy="give more pictures, or a number with --clusters",
        )
    _, _, vectors = normalized(tokens[rows], presence[rows])
    seen, structureless = _views(vectors, draw)
    chance = _stability(structureless, candidates, draw).mean(axis=1, keepdims=True)
    found = (_stability(seen, candidates, draw) - chance) / (1 - chance)  # (K's, splits)
    mean, error = found.mean(axis=1), found.std(axis=1, ddof=1) / np.sqrt(SPLITS)
    best = int(mean.argmax())
    good = np.flatnonzero(mean >= mean[best] - error[best])
    return ClusterCount(
        candidates[int(good[-1])],
        candidates,
        tuple(mean.tolist()),
        tuple(error.tolist()),
    )


def _views(vectors: Floats, draw: np.random.Generator) -> tuple[Floats, Floats]:
    """Places along their principal axes, (N, axes), and as many without structure."""
    centred = vectors - vectors.mean(axis=0)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    along = centred @ axes[:, ::-1][:, :AXES]
    spread = np.sqrt(variances[::-1][:AXES].clip(0))
    return _unit(along), _unit(draw.normal(size=along.shape) * spread)


def _unit(vectors: NDArray[np.floating]) -> Floats:
    length = np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-8)
    return np.asarray(vectors / length, np.float32)


def _stability(
    vectors: Floats, candidates: tuple[int, ...], draw: np.random.Generator
) -> NDArray[np.float64]:
    """Agreement of two fits on places that neither has seen, (candidates, splits)."""
    found = np.zeros((len(candidates), SPLITS))
    for split in range(SPLITS):
        *halves, third = np.array_split(draw.permutation(len(vectors)), 3)
        for row, clusters in enumerate(candidates):
            first, second = (
                (vectors[third] @ centers(vectors[half], clusters, seed, ATTEMPTS).T).argmax(1)
                for seed, half in enumerate(halves)
            )
            found[row, split] = agreement(first, second)
    return found
