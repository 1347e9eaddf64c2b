from __future__ import annotations

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="learning needs torch: pip install 'unim2[train]'")

from unim2_core.learning.features import FeatureStore
from unim2_core.learning.selection import (
    ROWS,
    RULES,
    Criteria,
    agreement,
    assigned,
    chosen,
    combined,
    criteria,
    looked_at,
    rank_correlation,
    regret,
    steady,
    with_peers,
)

NAN = float("nan")


def _counted_pairs(first: np.ndarray, second: np.ndarray) -> float:
    """The adjusted Rand index from its definition, pair by pair."""
    together = [(a[0] == a[1], b[0] == b[1]) for a, b in _pairs(first, second)]
    both = sum(a and b for a, b in together)
    one, other = sum(a for a, _ in together), sum(b for _, b in together)
    expected = one * other / len(together)
    return (both - expected) / ((one + other) / 2 - expected)


def _pairs(first: np.ndarray, second: np.ndarray) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    return [
        ((first[i], first[j]), (second[i], second[j]))
        for i, j in itertools.combinations(range(len(first)), 2)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_agreement_is_the_adjusted_rand_index(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 4, 30)
    second = np.where(rng.random(30) < 0.6, first, rng.integers(0, 3, 30))
    assert agreement(first, second) == pytest.approx(_counted_pairs(first, second), abs=1e-12)


def test_agreement_by_hand() -> None:
    # Pairs: 2 of 6 together in the first, 2 in the second, 1 in both; 2 * 2 / 6 by chance.
    first, second = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    assert agreement(first, second) == pytest.approx((1 - 2 * 1 / 6) / ((2 + 1) / 2 - 2 * 1 / 6))
    assert agreement(first, 1 - first) == 1.0  # names do not matter


def test_a_constant_assignment_agrees_with_nothing() -> None:
    constant = np.zeros(20, np.int64)
    assert agreement(constant, constant) == 0
    assert agreement(constant, np.arange(20) % 3) == 0


def test_chance_agrees_with_nothing() -> None:
    first, second = np.random.default_rng(0).integers(0, 5, (2, 20_000))
    assert abs(agreement(first, second)) < 0.005


@pytest.mark.parametrize(
    ("scores", "truth", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 1000], 1),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1),
        ([1, 2, 2, 3], [1, 2, 3, 4], 4.5 / np.sqrt(4.5 * 5)),  # ranks 0, 1.5, 1.5, 3
        ([1, 2, 3], [2, 1, 3], 0.5),
    ],
)
def test_rank_correlation_is_spearmans(
    scores: list[float], truth: list[float], expected: float
) -> None:
    assert rank_correlation(np.array(scores), np.array(truth)) == pytest.approx(expected)


def test_what_does_not_tell_apart_has_no_rank_correlation() -> None:
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4.0)))


def _found(
    margin: float,
    entropy: float = 0.9,
    subsets: float = NAN,
    flips: float = NAN,
    crops: float = NAN,
) -> Criteria:
    return Criteria(margin, entropy, subsets, flips, crops)


def test_ranks_are_averaged_and_equal_values_share_theirs() -> None:
    found = [_found(0.1, subsets=0.5), _found(0.3, subsets=0.5), _found(0.2, subsets=0.9)]
    np.testing.assert_allclose(combined(found), [(0 + 0.5) / 2, (2 + 0.5) / 2, (1 + 2) / 2])
    assert chosen(found, "combined") == 2


def test_the_default_asks_other_views_of_a_picture_and_nothing_else() -> None:
    found = [_found(0.9, 0.9, 0.9, flips=0.2, crops=0.6), _found(0.1, 0.6, 0.1, 0.3, 0.7)]
    np.testing.assert_allclose(steady(found), [0, 1])
    assert chosen(found) == 1
    np.testing.assert_allclose(steady([_found(0.2), _found(0.1)]), [0, 0])  # no views: the last
    assert chosen([_found(0.2), _found(0.1)]) == 1


def test_a_collapsed_candidate_comes_last_however_sure_it_is() -> None:
    found = [_found(0.9, 0.1, 1, 1), _found(0.1, 0.8, 0.1, 0.1), _found(0.2, 0.9, 0.2, 0.2)]
    assert combined(found).argmin() == steady(found).argmin() == 0
    assert chosen(found) == 2


def test_a_criterion_that_is_not_known_of_all_is_ignored() -> None:
    found = [_found(0.2, subsets=0.1, flips=0.9), _found(0.1, subsets=0.2)]
    np.testing.assert_allclose(combined(found), [0.5, 0.5])
    alone = [_found(0.2), _found(0.1)]
    np.testing.assert_allclose(combined(alone), [1, 0])


def test_of_equal_candidates_the_last_is_chosen() -> None:
    assert chosen([_found(0.2), _found(0.2), _found(0.1)], "margin") == 1


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_scores_every_candidate(rule: str) -> None:
    found = [_found(0.2, 0.7, 0.1, 0.3, 0.1), _found(0.3, 0.8, 0.2, 0.4, 0.2)]
    assert RULES[rule](found).shape == (2,)
    assert chosen(found, rule) == 1


def test_pictures_that_are_looked_at_are_spread_over_all() -> None:
    rows = looked_at(1000)
    assert len(rows) == ROWS
    assert rows[0] == 0
    assert rows[-1] == 999
    assert np.diff(rows).max() - np.diff(rows).min() <= 1
    np.testing.assert_array_equal(looked_at(5), np.arange(5))


class _Lookup:
    """Stands in for a model: a cluster for each value of the first channel of a modality."""

    def __init__(self, by: str, clusters: int = 4) -> None:
        self.modalities = ("rgb", "nir")
        self.prototypes = torch.eye(clusters)
        self._by = by

    def scores(self, tokens: dict, presence: dict) -> object:
        seen = tokens[self._by][..., 0] * presence[self._by]
        one_hot = torch.nn.functional.one_hot(seen.long(), len(self.prototypes))
        return one_hot.permute(0, 3, 1, 2).float()

    cosines = scores


def test_regret_is_what_is_missing_to_the_best() -> None:
    truth = np.array([0.2, 0.5, 0.4])
    assert regret(2, truth) == pytest.approx(0.1)
    assert regret(1, truth) == 0


def _store(values: np.ndarray) -> FeatureStore:
    tokens = np.repeat(values[..., None], 2, axis=-1).astype(np.float16)
    present, numbers = np.ones(values.shape, np.bool_), np.arange(len(values), dtype=np.int64)
    return FeatureStore(
        {"rgb": tokens, "nir": tokens},
        {"rgb": present, "nir": present},
        numbers,
        numbers,
        numbers,
    )


def test_criteria_of_models_that_need_a_modality_and_that_do_not() -> None:
    values = np.random.default_rng(0).integers(0, 4, (10, 6, 8))
    store, mirrored = _store(values), _store(values[:, :, ::-1])
    found = criteria(_Lookup("rgb"), store, mirrored, subsets=True)  # type: ignore[arg-type]
    assert found.margin == 1
    assert found.entropy == pytest.approx(1, abs=0.01)
    assert found.subsets == found.flips == 1
    lost = criteria(_Lookup("nir"), store, subsets=True)  # type: ignore[arg-type]
    assert lost.subsets == 0  # without it, all is one cluster
    assert np.isnan(lost.flips)
    assert lost.as_json()["flips"] is None
    elsewhere = criteria(_Lookup("rgb"), store, _store(values))  # type: ignore[arg-type]
    assert abs(elsewhere.flips) < 0.1


def test_a_model_with_one_cluster_is_not_balanced() -> None:
    found = criteria(_Lookup("rgb"), _store(np.zeros((3, 4, 4), np.int64)))  # type: ignore[arg-type]
    assert found.entropy == 0
    assert np.isnan(found.subsets)  # nobody asked


def test_a_model_that_looks_beyond_a_crop_is_not_steady() -> None:
    values = np.random.default_rng(0).integers(0, 4, (10, 6, 8))
    store = _store(values)
    same = values[:, 1:4, 2:6]  # half of the rows and columns, the middle
    found = criteria(_Lookup("rgb"), store, cropped=_store(same))  # type: ignore[arg-type]
    assert found.crops == 1
    other = criteria(_Lookup("rgb"), store, cropped=_store(3 - same[::-1]))  # type: ignore[arg-type]
    assert abs(other.crops) < 0.15


def test_pictures_are_looked_at_in_chunks_and_in_order() -> None:
    values = np.random.default_rng(0).integers(0, 4, (100, 2, 3))
    found = assigned(_Lookup("rgb"), _store(values))  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, values[looked_at(100)])
    blind = assigned(_Lookup("rgb"), _store(values), without="rgb")  # type: ignore[arg-type]
    assert not blind.any()


def test_peers_agree_with_one_another_whatever_their_clusters_are_called() -> None:
    first = np.random.default_rng(0).integers(0, 3, (4, 5, 6))
    stranger = np.random.default_rng(1).integers(0, 3, first.shape)
    collapsed = np.zeros_like(first)
    found = with_peers(
        [_found(0.1 * number) for number in range(4)],
        [first, (first + 1) % 3, stranger, collapsed],
    )
    assert [one.margin for one in found] == [0, 0.1, 0.2, pytest.approx(0.3)]
    chance = agreement(first, stranger)
    assert found[0].peers == found[1].peers == pytest.approx((1 + chance) / 3)
    assert found[2].peers == pytest.approx(2 * chance / 3)
    assert found[3].peers == 0
    (alone,) = with_peers([_found(0.1)], [first])
    assert np.isnan(alone.peers)
