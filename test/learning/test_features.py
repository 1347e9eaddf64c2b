"""Parts of stores of features, and their standardisation."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from picture_samples import Means, Pictures

pytest.importorskip("torch", reason="the cache runs a backbone")

from unim2_core.errors import ModelError
from unim2_core.learning.feature_cache import open_features
from unim2_core.learning.features import FeatureStore, Standardization, check_presence
from unim2_core.learning.kmeans import SMALLEST_DEVIATION


def test_subsets_are_views_where_they_can_be(tmp_path: Path) -> None:
    store = open_features(Pictures(), Means(), tmp_path)
    for indices in (range(2, 8), range(1, 9, 3), [4], [7, 3, 3], np.array([9, 0]), []):
        part = store.take(indices)
        chosen = list(indices)
        assert len(part) == len(chosen)
        assert part.names == tuple(store.names[index] for index in chosen)
        np.testing.assert_array_equal(part.tokens["thermal"], store.tokens["thermal"][chosen])
        np.testing.assert_array_equal(part.labels, store.labels[chosen])
        np.testing.assert_array_equal(part.stamps_ns, store.stamps_ns[chosen])
    assert np.shares_memory(store.take(range(2, 8)).tokens["rgb"], store.tokens["rgb"])
    with pytest.raises(ModelError, match="0 to 9"):
        store.take([10])
    thermal = store.only(["thermal"])
    assert thermal.modalities == ("thermal",)
    assert thermal.tokens["thermal"] is store.tokens["thermal"]
    with pytest.raises(ModelError, match="sonar"):
        store.only(["rgb", "sonar"])


def made_store(tokens: np.ndarray, presence: np.ndarray | None = None) -> FeatureStore:
    count = len(tokens)
    present = np.ones(tokens.shape[:3], np.bool_) if presence is None else presence
    numbers = np.arange(count)
    return FeatureStore(
        {"rgb": tokens.astype(np.float16)}, {"rgb": present}, numbers, numbers, numbers
    )


def test_standardised_channels_have_mean_zero_and_deviation_one() -> None:
    rng = np.random.default_rng(0)
    tokens = rng.normal([3, -700, 1], [2, 10, 0.5], (40, 4, 5, 3)).astype(np.float16)
    presence = rng.random((40, 4, 5)) < 0.7
    found = Standardization.of(made_store(tokens, presence))
    seen = tokens[presence].astype(np.float64)
    np.testing.assert_allclose(found.mean[0], seen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found.scale[0], 1 / seen.std(0), rtol=1e-5)
    assert found.mean.shape == found.scale.shape == (1, 3)
    assert found.mean.dtype == found.scale.dtype == np.float32


def test_a_constant_channel_says_nothing_whatever_comes_later() -> None:
    rng = np.random.default_rng(0)
    tokens = np.zeros((20, 4, 5, 4))
    tokens[..., 1] = 1234.5
    tokens[..., 2] = 1000 + rng.normal(0, 0.1, (20, 4, 5))  # float16 keeps halves of that
    tokens[..., 3] = rng.normal(0, 1, (20, 4, 5))
    found = Standardization.of(made_store(tokens))
    assert found.scale[0, :3].tolist() == [0, 0, 0] and found.scale[0, 3] > 0.5


def test_what_hardly_varies_is_not_blown_up() -> None:
    tokens = np.random.default_rng(0).normal(0, [4, 1e-5], (20, 4, 5, 2))
    found = Standardization.of(made_store(tokens))
    assert found.scale[0, 0] == pytest.approx(0.25, rel=0.1)
    assert found.scale[0, 1] == pytest.approx(found.scale[0, 0] / SMALLEST_DEVIATION)


def test_the_draw_is_bounded_and_depends_on_the_seed_alone() -> None:
    tokens = np.random.default_rng(0).normal(size=(300, 2, 2, 3))
    store = made_store(tokens)

    class Counted(np.ndarray):
        rows = 0

        def __getitem__(self, key):
            Counted.rows += len(key) if isinstance(key, np.ndarray) else 1
            return np.asarray(super().__getitem__(key))

    counted = replace(store, tokens={"rgb": store.tokens["rgb"].view(Counted)})
    one = Standardization.of(counted, places=40, seed=1)
    assert Counted.rows == 10
    two, other = (Standardization.of(store, places=40, seed=seed) for seed in (1, 2))
    np.testing.assert_array_equal(one.mean, two.mean)
    assert not np.array_equal(one.mean, other.mean)


def test_a_modality_that_is_nowhere_is_an_error() -> None:
    store = made_store(np.ones((3, 2, 2, 3)), np.zeros((3, 2, 2), np.bool_))
    for check in (check_presence, Standardization.of):
        with pytest.raises(ModelError, match="none of rgb"):
            check(store)
