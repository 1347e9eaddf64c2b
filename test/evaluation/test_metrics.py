"""Counts and scores against loops, the matching against all permutations."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="scipy is not installed: pip install 'unim2[train]'")

from unim2_core.evaluation.metrics import (
    UNASSIGNED,
    classification_scores,
    clustering_scores,
    counts,
    matched,
)


@given(
    classes=st.integers(1, 5),
    extra=st.integers(0, 2),
    size=st.integers(0, 30),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=50)
def test_counts_equal_loops(classes: int, extra: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted = rng.integers(0, classes + extra + 1, size).astype(np.uint8)
    truth = rng.choice([*range(classes), 255], size).astype(np.uint8)
    for counted in (True, False):
        expected = np.zeros((classes + extra, classes), int)
        for p, t in zip(predicted.tolist(), truth.tolist(), strict=True):
            if t < classes and p < (classes + extra if counted else classes):
                expected[p, t] += 1
        found = counts(predicted, truth, classes + extra, classes, extra=counted)
        np.testing.assert_array_equal(found, expected)


@given(classes=st.integers(1, 4), extra=st.integers(0, 2), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=50)
def test_matching_is_the_best_of_all(classes: int, extra: int, seed: int) -> None:
    table = np.random.default_rng(seed).integers(0, 50, (classes + extra, classes))
    best = max(
        sum(table[cluster, k] for k, cluster in enumerate(chosen))
        for chosen in permutations(range(classes + extra), classes)
    )
    given_classes = matched(table)
    assert sorted(given_classes.tolist()) == [UNASSIGNED] * extra + list(range(classes))
    right = sum(table[cluster, k] for cluster, k in enumerate(given_classes) if k != UNASSIGNED)
    assert right == best
    scores = clustering_scores(table)
    if table.sum():
        assert scores.accuracy == pytest.approx(best / table.sum())
    assert np.diag(scores.confusion)[:classes].sum() == best
    assert scores.confusion.sum() == table.sum()


@given(classes=st.integers(1, 5), seed=st.integers(0, 999))
@settings(deadline=None, max_examples=30)
def test_iou_equals_sets(classes: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    predicted, truth = rng.integers(0, classes, 40), rng.integers(0, max(classes - 1, 1), 40)
    scores = classification_scores(counts(predicted, truth, classes, classes))
    ious = []
    for k in range(classes):
        ours = set(np.flatnonzero(predicted == k))
        theirs = set(np.flatnonzero(truth == k))
        if ours | theirs:
            ious.append(len(ours & theirs) / len(ours | theirs))
            assert scores.iou[k] == pytest.approx(ious[-1])
        else:
            assert np.isnan(scores.iou[k])
    assert scores.mean_iou == pytest.approx(sum(ious) / len(ious))
    assert scores.accuracy == pytest.approx((predicted == truth).mean())


def test_clusters_left_over_count_against_the_mean() -> None:
    table = np.array([[8, 0], [0, 8], [2, 2]])
    scores = clustering_scores(table)
    assert scores.classes.tolist() == [0, 1, UNASSIGNED]
    assert scores.confusion.tolist() == [[8, 0, 0], [0, 8, 0], [2, 2, 0]]
    assert scores.iou == pytest.approx([0.8, 0.8, 0.0])
    assert scores.mean_iou == pytest.approx(1.6 / 3)
    assert scores.accuracy == pytest.approx(0.8)


def test_nothing_labelled_has_no_score() -> None:
    scores = clustering_scores(np.zeros((3, 3), np.int64))
    assert np.isnan(scores.mean_iou) and np.isnan(scores.accuracy)
