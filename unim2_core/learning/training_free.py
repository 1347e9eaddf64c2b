"""A model without training: k-means on the tokens of a frozen backbone."""

from __future__ import annotations

import numpy as np

from unim2_core.learning.features import FeatureStore, check_presence
from unim2_core.learning.kmeans import Clusters, Floats, fit_clusters

PLACES = 400
"""Tokens drawn from each picture, at most."""
MOST_PLACES = 60_000
"""And of all together: memory must not grow with the number of pictures."""


def cluster_store(store: FeatureStore, clusters: int, seed: int) -> Clusters:
    """Find classes among places drawn from every picture.

    Args:
        store: the features.
        clusters: K, at least 2.
        seed: for the draw of places and the starting centres.

    Raises:
        ModelError: there are too few places, or a modality is in none of the pictures.
    """
    check_presence(store)
    rows = np.arange(0, len(store), max(1, -(-len(store) // MOST_PLACES)))  # taken as a view
    places = min(PLACES, MOST_PLACES // max(1, len(rows)))
    tokens, presence = draw_places(store.take(rows), places, seed)
    return fit_clusters(tokens, presence, clusters, seed)


def draw_places(store: FeatureStore, places: int, seed: int) -> tuple[Floats, Floats]:
    """Draw places without repetition, equally many from every picture.

    Args:
        store: the features.
        places: of each picture, at most.
        seed: of the draw.

    Returns:
        (N, M, D) float32 tokens, zeros where not present, and (N, M) float32 presence.
    """
    draw = np.random.default_rng(seed)
    height, width = store.grid
    count = min(places, height * width)
    tokens = np.zeros((len(store), count, len(store.modalities), store.dim), np.float32)
    presence = np.zeros(tokens.shape[:3], np.float32)
    for row in range(len(store)):
        chosen = draw.choice(height * width, count, replace=False)
        for index, name in enumerate(store.modalities):
            seen = store.presence[name][row].reshape(-1)[chosen]
            drawn = store.tokens[name][row].reshape(-1, store.dim)[chosen]
            tokens[row, :, index] = drawn * seen[:, None]
            presence[row, :, index] = seen
    return tokens.reshape(-1, *tokens.shape[2:]), presence.reshape(-1, presence.shape[2])
