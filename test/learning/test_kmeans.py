from __future__ import annotations

import numpy as np
import pytest

from unim2_core.errors import ModelError
from unim2_core.learning.kmeans import fit_clusters


def _blobs(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three groups that only both modalities together tell apart: tokens and group."""
    rng = np.random.default_rng(seed)
    centres = 5 * np.array([[[1, 0], [1, 0]], [[1, 0], [0, 1]], [[0, 1], [0, 1]]], np.float32)
    group = rng.integers(0, 3, count)
    return centres[group] + rng.normal(0, 0.1, (count, 2, 2)).astype(np.float32), group


def test_groups_are_found() -> None:
    tokens, group = _blobs(300)
    clusters = fit_clusters(tokens, np.ones((300, 2), np.float32), 3, seed=0)
    unit = (tokens - clusters.mean) * clusters.scale
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    assigned = np.einsum("nmd,kmd->nk", unit, clusters.prototypes).argmax(1)
    pairs = {(int(a), int(b)) for a, b in zip(assigned, group, strict=True)}
    assert len(pairs) == 3


def test_equal_seeds_give_equal_clusters_commonest_first() -> None:
    tokens, _ = _blobs(200)
    presence = np.ones((200, 2), np.float32)
    one, two = (fit_clusters(tokens, presence, 4, seed=3) for _ in range(2))
    for name, array in one.weights().items():
        np.testing.assert_array_equal(array, two.weights()[name])
    assert (np.diff(one.shares) <= 0).all()
    assert one.shares.sum() == pytest.approx(1)


def test_a_missing_modality_does_not_shift_the_mean() -> None:
    tokens, _ = _blobs(300)
    presence = np.ones((300, 2), np.float32)
    presence[::3, 1] = 0
    tokens[::3, 1] = 0
    clusters = fit_clusters(tokens, presence, 3, seed=0)
    np.testing.assert_allclose(clusters.mean[1], tokens[presence[:, 1] > 0, 1].mean(0), rtol=1e-5)


def test_constant_features_are_no_division_by_zero() -> None:
    tokens = np.ones((50, 1, 4), np.float32)
    tokens[:25, 0, 0] = 2
    clusters = fit_clusters(tokens, np.ones((50, 1), np.float32), 2, seed=0)
    assert all(np.isfinite(array).all() for array in clusters.weights().values())


@pytest.mark.parametrize(("places", "clusters"), [(3, 4), (0, 2), (10, 1)])
def test_too_little_is_refused(places: int, clusters: int) -> None:
    with pytest.raises(ModelError, match="cannot cluster"):
        fit_clusters(
            np.zeros((places, 1, 2), np.float32), np.ones((places, 1), np.float32), clusters, 0
        )
