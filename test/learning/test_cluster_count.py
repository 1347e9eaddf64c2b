from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="learning needs torch: pip install 'unim2[train]'")

from unim2_core.errors import ModelError
from unim2_core.learning.cluster_count import CANDIDATES, cluster_count_of, suggest_clusters
from unim2_core.learning.features import FeatureStore


def _blobs(groups: int, count: int, seed: int, noise: float = 0.15) -> np.ndarray:
    """Places of two modalities around directions that are far apart: (N, 2, 8) float32."""
    rng = np.random.default_rng(seed)
    centres = np.linalg.qr(rng.normal(size=(16, 16)))[0][:groups].reshape(groups, 2, 8)
    chosen = rng.integers(0, groups, count)
    return (centres[chosen] + noise * rng.normal(size=(count, 2, 8)) / 4).astype(np.float32)


@pytest.mark.parametrize(("groups", "seed"), [(5, 0), (7, 1), (9, 2)])
def test_groups_that_are_far_apart_are_counted(groups: int, seed: int) -> None:
    tokens = _blobs(groups, 1200, seed)
    found = suggest_clusters(tokens, np.ones((1200, 2), np.float32), seed)
    assert found.clusters == groups
    curve = dict(zip(found.candidates, found.stability, strict=True))
    assert curve[groups] == pytest.approx(1, abs=1e-6)
    assert max(curve.values()) == curve[groups]


def test_without_structure_no_number_looks_stable() -> None:
    tokens = np.random.default_rng(0).normal(size=(1500, 1, 8)).astype(np.float32)
    found = suggest_clusters(tokens, np.ones((1500, 1), np.float32))
    assert max(found.stability) < 0.3


def test_equal_seeds_give_equal_curves() -> None:
    tokens, presence = _blobs(6, 700, 3, noise=0.8), np.ones((700, 2), np.float32)
    one, two = (suggest_clusters(tokens, presence, seed=4) for _ in range(2))
    assert one == two
    assert one.as_json()["clusters"] == one.clusters


def test_candidates_end_where_places_do() -> None:
    presence = np.ones((150, 2), np.float32)
    found = suggest_clusters(_blobs(5, 150, 0), presence)
    assert found.candidates == tuple(k for k in CANDIDATES if k <= 10)


def test_fewer_places_than_clusters_are_an_error() -> None:
    with pytest.raises(ModelError, match="too few places"):
        suggest_clusters(_blobs(5, 20, 0), np.ones((20, 2), np.float32))


def test_groups_in_pictures_are_counted() -> None:
    tokens = _blobs(6, 12 * 100, 0).reshape(12, 10, 10, 2, 8).astype(np.float16)
    present = np.ones((12, 10, 10), np.bool_)
    numbers = np.arange(12, dtype=np.int64)
    store = FeatureStore(
        {"rgb": tokens[..., 0, :], "nir": tokens[..., 1, :]},
        {"rgb": present, "nir": present},
        numbers,
        np.zeros_like(numbers),
        numbers,
    )
    assert cluster_count_of(store).clusters == 6
