"""Neighbours against comparing every two pictures, and batches against looking them up."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from unim2_core.errors import ModelError
from unim2_core.learning import neighbors, pairs
from unim2_core.learning.features import FeatureStore, Standardization
from unim2_core.learning.pairs import Batches, NeighborConfig, describe, find_neighbors

DIM = 5
SECOND = 1_000_000_000


def store(
    count: int, *, crops: int = 1, seed: int = 0, stamps: bool = False, missing: bool = False
) -> FeatureStore:
    """Random features; two drives where there are stamps, one picture a second."""
    rng = np.random.default_rng(seed)
    shape = (count, 2, 3)
    sources = np.arange(count) // crops
    presence = {
        "rgb": np.ones(shape, np.bool_),
        "depth": rng.random(shape) < 0.7 if missing else np.ones(shape, np.bool_),
    }
    if missing:
        presence["depth"][0] = False
    tokens = {
        name: (rng.standard_normal((*shape, DIM)) * there[..., None]).astype(np.float16)
        for name, there in presence.items()
    }
    middle = sources.max() // 2 + 1
    return FeatureStore(
        tokens,
        presence,
        sources,
        sources // middle if stamps else np.zeros_like(sources),
        sources % middle * SECOND if stamps else np.full_like(sources, -1),
        rng.integers(0, 3, (count, 4, 6)).astype(np.uint8),
    )


def standardization(seed: int = 0) -> Standardization:
    rng = np.random.default_rng(seed)
    mean, scale = rng.standard_normal((2, 2, DIM)).astype(np.float32)
    return Standardization(mean, np.abs(scale))


def slow_descriptor(features: FeatureStore, row: int, how: Standardization) -> np.ndarray:
    """The unit mean of what each modality sees, side by side, at unit length."""
    parts = []
    for index, name in enumerate(features.modalities):
        seen = features.tokens[name][row][features.presence[name][row]].astype(np.float64)
        if not len(seen):
            parts.append(np.zeros(DIM))
            continue
        mean = ((seen - how.mean[index]) * how.scale[index]).mean(0)
        parts.append(mean / np.linalg.norm(mean))
    joined = np.concatenate(parts)
    return joined / np.linalg.norm(joined)


@pytest.mark.parametrize("block", [1, 4, 64])
def test_pictures_are_described_by_what_is_seen(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pairs, "BLOCK", block)
    features, how = store(9, missing=True), standardization()
    found = describe(features, NeighborConfig(), how)
    expected = [slow_descriptor(features, row, how) for row in range(9)]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    reference = describe(features, NeighborConfig.paper(), how)
    assert reference.shape == (9, DIM)
    assert (found[0, DIM:] == 0).all()  # a modality that is missing says nothing


@given(
    count=st.integers(2, 40),
    crops=st.integers(1, 5),
    gap_s=st.sampled_from([0.0, 0.5, 1.0, 2.5]),
    stamps=st.booleans(),
    wanted=st.integers(1, 7),
    rows=st.integers(1, 9),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=80)
def test_neighbours_equal_comparing_all_with_all(
    count: int, crops: int, gap_s: float, stamps: bool, wanted: int, rows: int, seed: int
) -> None:
    made = store(count, crops=crops, seed=seed, stamps=stamps)
    features = made.take(np.random.default_rng(seed).permutation(count))  # in any order
    how = standardization(seed)
    descriptors = np.array([slow_descriptor(features, row, how) for row in range(count)])
    similarity = descriptors @ descriptors.T

    def others(i: int, gap: float) -> list[int]:
        """Of another source, and of another drive or as far apart in time."""
        far = []
        for j in range(count):
            apart_s = abs(features.stamps_ns[i] - features.stamps_ns[j]) / SECOND
            same_drive = features.sequences[i] == features.sequences[j]
            near = stamps and same_drive and apart_s < gap
            if features.sources[i] != features.sources[j] and not near:
                far.append(j)
        return far

    config = NeighborConfig(wanted, "all", True, gap_s)
    fewest = min(len(others(i, 0.0)) for i in range(count))
    if not fewest:
        with pytest.raises(ModelError, match="too few images"):
            find_neighbors(features, config, how)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "BLOCK_BYTES", 4 * count * rows)
        found = find_neighbors(features, config, how)
    kept = found.min_gap_s
    assert found.indices.shape == (count, min(wanted, fewest))
    assert kept in [0.0, *(gap_s / 2**n for n in range(8))]
    if stamps and kept < gap_s:  # twice as far apart, some picture would have too few
        assert min(len(others(i, 2 * kept)) for i in range(count)) < found.indices.shape[1]
    for i, row in enumerate(found.indices):
        best = sorted(others(i, kept), key=lambda j: -similarity[i, j])[: len(row)]
        assert set(row) <= set(others(i, kept)) and len(set(row)) == len(row)
        np.testing.assert_allclose(similarity[i, row], similarity[i, best], atol=1e-5)


def test_published_neighbours_are_all_others_by_the_reference() -> None:
    features, how = store(12, crops=4), Standardization.identity(2, DIM)
    found = find_neighbors(features, NeighborConfig.paper(), how).indices
    only = features.only(["rgb"])
    vectors = np.array([slow_descriptor(only, row, how) for row in range(12)])
    for row, similarity in enumerate(vectors @ vectors.T):
        order = np.argsort(-similarity)
        assert order[0] == row
        assert found[row].tolist() == order[1:8].tolist()
    with pytest.raises(ModelError, match="too few images"):
        find_neighbors(store(7), NeighborConfig.paper(), how)


def batches(features: FeatureStore, **options: object) -> Batches:
    rows = np.random.default_rng(1).integers(len(features), size=(len(features), 3))
    return Batches(features, rows, standardization(), **options)  # type: ignore[arg-type]


def test_a_batch_is_what_the_store_holds() -> None:
    features, how = store(10, crops=2, missing=True), standardization()
    made = batches(features, batch=4, labels=True)
    for step in (0, 3):
        batch = made(step)
        assert batch.indices is not None and batch.presence is not None
        rows = batch.indices.tolist()
        assert batch.sources.tolist() == features.sources[rows].tolist()
        np.testing.assert_array_equal(batch.labels, features.labels[rows])
        for index, name in enumerate(("rgb", "depth")):
            tokens = features.tokens[name][rows].astype(np.float32)
            there = features.presence[name][rows]
            expected = (tokens - how.mean[index]) * how.scale[index] * there[..., None]
            found = batch.anchors[name]
            assert found.dtype == torch.float32
            assert found.is_contiguous(memory_format=torch.channels_last)
            np.testing.assert_allclose(found.permute(0, 2, 3, 1), expected, rtol=1e-6)
            np.testing.assert_array_equal(batch.presence[0][name], there)


def test_positives_are_drawn_from_all_neighbours() -> None:
    features = store(6)
    features.tokens["rgb"][:] = np.arange(6)[:, None, None, None]
    rows = np.stack([(np.arange(6) + shift) % 6 for shift in (1, 2, 4)], axis=1)
    made = Batches(features, rows, Standardization.identity(2, DIM), batch=6)
    shifts = set()
    for step in range(20):
        batch = made(step)
        positive = batch.positives["rgb"][:, 0, 0, 0].long()
        found = ((positive - batch.indices) % 6).tolist()
        shifts.add(tuple(found))
        assert set(found) <= {1, 2, 4}
    assert len(shifts) > 10
    assert batch.presence is None  # every modality sees everything


@given(count=st.integers(4, 30), size=st.integers(4, 40), world=st.integers(1, 3))
@settings(deadline=None, max_examples=30)
def test_every_epoch_shows_every_picture_once(count: int, size: int, world: int) -> None:
    features = store(count)
    ranks = [batches(features, batch=size, rank=rank, world=world) for rank in range(world)]
    sizes = [len(made(0).indices) for made in ranks]
    assert sum(sizes) == min(size, count) and max(sizes) - min(sizes) <= 1
    drawn = [int(i) for step in range(2 * count) for made in ranks for i in made(step).indices]
    for epoch in range(3):
        assert sorted(drawn[epoch * count : (epoch + 1) * count]) == list(range(count))
    if count > 8:
        assert drawn[:count] != drawn[count : 2 * count]


def test_a_batch_depends_on_seed_and_step_alone() -> None:
    features = store(20, missing=True)
    made = batches(features, batch=8, samples=2, seed=3)
    later = made(5)
    assert_equal(batches(features, batch=8, samples=2, seed=3)(5), later)
    for other in (made(6), batches(features, batch=8, samples=2, seed=4)(5)):
        assert not other.anchors["rgb"].equal(later.anchors["rgb"])
    ranks = [
        batches(features, batch=8, samples=2, seed=3, world=3, rank=rank)(5) for rank in range(3)
    ]
    for name in ("rgb", "depth"):
        for part in (0, 1):  # anchors, positives
            assert torch.cat([rank[part][name] for rank in ranks]).equal(later[part][name])
            assert torch.cat([rank.presence[part][name] for rank in ranks]).equal(
                later.presence[part][name]
            )
    assert torch.cat([rank.indices for rank in ranks]).equal(later.indices)
    assert all(rank.sources.equal(later.sources) and rank.total == 8 for rank in ranks)


def assert_equal(one: object, other: object) -> None:
    for a, b in zip(one, other, strict=True):  # type: ignore[call-overload]
        parts = [tuple(x.values()) if isinstance(x, dict) else x for x in (a, b)]
        if isinstance(parts[0], tuple):
            assert_equal(*parts)
        else:
            assert (a is None and b is None) or (a == b if isinstance(a, int) else a.equal(b))


@given(samples=st.integers(1, 4), seed=st.integers(0, 50))
@settings(deadline=None, max_examples=20)
def test_drawn_places_are_the_same_in_every_modality(samples: int, seed: int) -> None:
    features = store(5)
    place = np.arange(6).reshape(2, 3)
    for tokens in features.tokens.values():
        tokens[:] = place[..., None]
    features.presence["depth"][:, 0, 0] = False
    made = Batches(
        features,
        np.ones((5, 1), np.int64),
        Standardization.identity(2, DIM),
        batch=5,
        samples=samples,
        seed=seed,
        labels=True,
    )
    batch = made(seed)
    assert batch.labels is None  # those of whole pictures
    for maps, presence in zip((batch.anchors, batch.positives), batch.presence, strict=True):
        assert maps["rgb"].shape == (5, DIM, samples, samples)
        cells = maps["rgb"][:, 0]
        seen = cells != 0
        assert maps["depth"][:, 0].equal(cells * seen)
        assert presence["depth"].equal(seen.float())
        for row in cells.flatten(1).tolist():  # each place once, where there are enough
            assert len(set(row)) == samples**2 or samples**2 > 6


def test_too_few_pictures_for_a_batch_are_refused() -> None:
    with pytest.raises(ModelError, match="two pictures"):
        batches(store(1))
    with pytest.raises(ModelError, match="two pictures"):
        batches(store(9), batch=1)
    with pytest.raises(ModelError, match="two pictures"):
        batches(store(3), world=4)
    assert batches(store(3)).group.total == 3


@pytest.mark.parametrize("options", [{"count": 0}, {"modalities": "depth"}, {"min_gap_s": -1.0}])
def test_what_cannot_be_a_neighbour_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="neighbours"):
        NeighborConfig(**options)  # type: ignore[arg-type]
