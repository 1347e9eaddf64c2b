"""Classes without training: spherical k-means on frozen features, the simplest baseline."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError

Floats = NDArray[np.float32]

ITERATIONS = 100
ATTEMPTS = 4
SMALLEST_DEVIATION = 0.02
"""Of a feature, as a share of the largest of its modality, that is still scaled to one."""
SURE_PERCENTILE = 90
"""The margin that this share of the pixels stays under is shown as full confidence."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """What the cluster head needs, see ``ClusterHead.forward`` for shapes."""

    mean: Floats
    scale: Floats
    prototypes: Floats
    valid: Floats
    full_margin: Floats
    shares: Floats

    def weights(self) -> dict[str, Floats]:
        """The head graph's inputs by name."""
        return {
            "mean": self.mean,
            "scale": self.scale,
            "prototypes": self.prototypes,
            "valid": self.valid,
            "full_margin": self.full_margin,
        }


def fit_clusters(tokens: Floats, presence: Floats, clusters: int, seed: int) -> Clusters:
    """Cluster the tokens of many images.

    Args:
        tokens: (N, M, D) float32, one row a place in an image, zeros where not present.
        presence: (N, M) float32, 1 where that modality was there.
        clusters: K, at least 2.
        seed: for the starting centres.

    Raises:
        ModelError: there are fewer tokens than clusters, or no modality was ever present.
    """
    count, modalities, width = tokens.shape
    if count < clusters or clusters < 2:
        raise ModelError(
            "cannot cluster",
            expected=f"at least {max(clusters, 2)} places in the images and two clusters",
            found=f"{count} places, {clusters} clusters",
            remedy="give more images or ask for another number with --clusters",
        )
    mean, scale, flat = normalized(tokens, presence)
    centres = centers(flat, clusters, seed, ATTEMPTS)
    cosines = flat @ centres.T  # (N, K)
    best = np.partition(cosines, -2, axis=1)[:, -2:]
    margin = float(np.percentile(best[:, 1] - best[:, 0], SURE_PERCENTILE))
    shares = np.bincount(cosines.argmax(1), minlength=clusters) / count
    order = np.argsort(-shares, kind="stable")  # class 0 is the commonest
    return Clusters(
        mean=mean.astype(np.float32),
        scale=scale.astype(np.float32),
        prototypes=centres[order].reshape(clusters, modalities, width).astype(np.float32),
        valid=np.ones(clusters, np.float32),
        full_margin=np.array(max(margin, 1e-6), np.float32),
        shares=shares[order].astype(np.float32),
    )


def normalized(tokens: Floats, presence: Floats) -> tuple[Floats, Floats, Floats]:
    """Standardise tokens, bring those of each modality to one length, and join the modalities.

    Args:
        tokens: (N, M, D) float32, zeros where not present.
        presence: (N, M) float32.

    Returns:
        (M, D) mean, (M, D) scale, and (N, M * D) vectors, of unit length where anything is
        present.
    """
    count, modalities, width = tokens.shape
    seen = presence.sum(0)[:, None].clip(1)  # (M, 1)
    mean = tokens.sum(0) / seen  # (M, D); absent rows are zero
    centred = (tokens - mean) * presence[..., None]
    deviation = np.sqrt((centred**2).sum(0) / seen)  # (M, D)
    # What hardly varies must not be blown up to the weight of what does: it is noise.
    floor = SMALLEST_DEVIATION * deviation.max(axis=1, keepdims=True) + 1e-12
    scale = 1.0 / np.maximum(deviation, floor)
    unit = centred * scale
    unit /= np.linalg.norm(unit, axis=2, keepdims=True).clip(1e-8)
    flat = unit.reshape(count, modalities * width)
    flat /= np.sqrt(presence.sum(1, keepdims=True).clip(1))
    return mean, scale, flat


def centers(vectors: Floats, clusters: int, seed: int, attempts: int) -> Floats:
    """Centres of length 1 of k-means, (K, D), of vectors (N, D)."""
    cv2.setRNGSeed(seed)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_MAX_ITER, ITERATIONS, 1e-4)
    _, _, found = cv2.kmeans(
        vectors.astype(np.float32), clusters, None, criteria, attempts, cv2.KMEANS_PP_CENTERS
    )
    found /= np.linalg.norm(found, axis=1, keepdims=True).clip(1e-8)
    return np.asarray(found, np.float32)
