"""What can be said of clusters without labels: how large and sure, what is alike, what touches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float64]

NEIGHBOURS = 4
"""Clusters that are named as alike or as touching."""
LEAST_AFFINITY = 0.4
"""Of two clusters that are proposed to be one class."""


class ClusterCounts:
    """Counts over pictures.

    Attributes:
        clusters: K.
        pixels: (K,) int64 of each cluster.
        confidence: (K,) float64, summed over these, 0 to 255 each.
        borders: (K, K) int64 pairs of pixels, beside or above each other, of two clusters;
            symmetric.
        pictures: (K,) int64, in how many pictures a cluster is.
    """

    def __init__(self, clusters: int) -> None:
        self.clusters = clusters
        self.pixels = np.zeros(clusters, np.int64)
        self.confidence = np.zeros(clusters, np.float64)
        self.borders = np.zeros((clusters, clusters), np.int64)
        self.pictures = np.zeros(clusters, np.int64)

    def add(self, classes: Image, confidence: Image) -> None:
        """Count a picture.

        Args:
            classes: (h, w) uint8 clusters; from K on, as 255, they are not counted.
            confidence: (h, w) uint8.
        """
        flat, count = classes.ravel(), self.clusters
        found = np.bincount(flat, minlength=256)[:count]
        self.pixels += found
        self.pictures += found > 0
        self.confidence += np.bincount(flat, confidence.ravel(), minlength=256)[:count]
        for one, other in (
            (classes[:, :-1], classes[:, 1:]),
            (classes[:-1], classes[1:]),
        ):
            border = (one != other) & (one < count) & (other < count)
            cells = one[border].astype(np.int64) * count + other[border]
            pairs = np.bincount(cells, minlength=count**2).reshape(count, count)
            self.borders += pairs + pairs.T


@dataclass(frozen=True, eq=False)
class ClusterFacts:
    """What the page tells of clusters.

    Attributes:
        share: (K,) of all pixels with a cluster, [0, 1].
        confidence: (K,) mean, [0, 1]; 0 where a cluster is nowhere.
        pictures: (K,) in how many a cluster is.
        cosines: (K, K) between prototypes.
        touching: (K, K) share of the border of the row's cluster that is with the column's.
    """

    share: Floats
    confidence: Floats
    pictures: NDArray[np.int64]
    cosines: Floats
    touching: Floats

    @classmethod
    def of(cls, counts: ClusterCounts, prototypes: NDArray[np.float32]) -> ClusterFacts:
        """Facts out of counts.

        Args:
            counts: over all pictures.
            prototypes: (K, ...) float32, flattened to compare them.
        """
        flat = prototypes.reshape(len(prototypes), -1).astype(np.float64)
        unit = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
        return cls(
            counts.pixels / max(counts.pixels.sum(), 1),
            counts.confidence / np.maximum(counts.pixels, 1) / 255,
            counts.pictures,
            unit @ unit.T,
            counts.borders / np.maximum(counts.borders.sum(axis=1, keepdims=True), 1),
        )

    def alike(self, cluster: int) -> list[tuple[int, float]]:
        """The clusters with the nearest prototypes, and their cosines where positive."""
        cosines = self.cosines[cluster].copy()
        cosines[cluster] = 0
        return _largest(cosines)

    def neighbours(self, cluster: int) -> list[tuple[int, float]]:
        """The clusters with the longest common border, and its share."""
        return _largest(self.touching[cluster])

    @property
    def affinity(self) -> Floats:
        """(K, K) symmetric, [0, 1]: alike and side by side, as parts of one surface are.

        The geometric mean of cosine and common border, as a share of the shorter border.
        """
        common = np.maximum(self.touching, self.touching.T)
        affinity = np.sqrt(np.clip(self.cosines, 0, 1) * common)
        np.fill_diagonal(affinity, 0)
        return affinity

    def merges(self, least: float = LEAST_AFFINITY) -> list[tuple[int, int, float]]:
        """Pairs to be looked at as one class, the nearest first; the larger cluster is first.

        Args:
            least: affinity of a pair.
        """
        affinity = self.affinity
        pairs = []
        for cluster, other in np.argwhere(np.triu(affinity >= least)).tolist():
            first, second = sorted((cluster, other), key=lambda one: -self.share[one])
            pairs.append((first, second, float(affinity[cluster, other])))
        return sorted(pairs, key=lambda pair: -pair[2])


def _largest(values: NDArray[Any]) -> list[tuple[int, float]]:
    order = np.argsort(-values, kind="stable")[:NEIGHBOURS]
    return [(int(k), float(values[k])) for k in order if values[k] > 0]
