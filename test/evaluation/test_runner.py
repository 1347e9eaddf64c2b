"""Figures of whole sets: by hand, under renamed clusters, and from the heads that are exported."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from picture_samples import CLASSES

pytest.importorskip("scipy", reason="scipy is not installed: pip install 'unim2[train]'")

from unim2_core.errors import DataError
from unim2_core.evaluation.runner import Tally, head_predictions, tally
from unim2_core.learning.features import FeatureStore

GRID, DIM = (2, 3), 4
LABELS = np.array(
    [
        [[0, 0, 1], [0, 1, 1]],
        [[1, 1, 1], [0, 255, 255]],
        [[0, 0, 0], [0, 0, 0]],
    ],
    np.uint8,
)


def store_of(labels: np.ndarray | None, names: tuple[str, ...] = ("rgb", "thermal")) -> object:
    """Tokens that are one-hot in the label."""
    count = len(LABELS)
    known = LABELS.astype(int) % 255
    tokens = np.eye(DIM, dtype=np.float16)[known]
    numbers = np.arange(count)
    return FeatureStore(
        dict.fromkeys(names, tokens),
        {name: np.ones((count, *GRID), np.bool_) for name in names},
        numbers,
        numbers,
        numbers,
        labels,
        CLASSES,
    )


@pytest.mark.parametrize("batch", [1, 2, 8])
@pytest.mark.parametrize("turn", [0, 1, 2])
def test_clusters_that_are_classes_under_other_names_are_perfect(batch: int, turn: int) -> None:
    def predict(tokens: dict, presence: dict) -> np.ndarray:
        assert tokens["rgb"].dtype == presence["rgb"].dtype == np.float32
        return (tokens["rgb"].argmax(-1) + turn) % 3

    scores = tally(predict, store_of(LABELS), clusters=3, batch=batch)
    assert scores.mean_iou == scores.accuracy == 1.0
    assert scores.classes[turn] == 0


def test_figures_are_those_computed_by_hand() -> None:
    found = Tally(clusters=3, classes=2)
    labels = np.array([[[0, 0, 0, 1], [1, 1, 255, 0]]], np.uint8)
    found.add(np.array([[[2, 2, 1, 1], [1, 0, 1, 255]]]), labels)
    # Cluster 2 is class 0 and cluster 1 class 1; one pixel has no answer and one no label.
    scores = found.scores
    assert scores.classes.tolist() == [-1, 1, 0]
    assert scores.confusion.tolist() == [[2, 0, 0], [1, 2, 0], [0, 1, 0]]
    np.testing.assert_allclose(scores.iou, [2 / 3, 2 / 4, 0])
    assert scores.mean_iou == pytest.approx((2 / 3 + 2 / 4) / 3)
    assert scores.accuracy == pytest.approx(4 / 6)
    assert (found.labelled, found.coverage) == (7, pytest.approx(6 / 7))


def test_fewer_clusters_than_classes_leave_classes_without_one() -> None:
    found = Tally(clusters=2, classes=3)
    found.add(np.array([[[0, 1, 1]]]), np.array([[[2, 0, 1]]], np.uint8))
    scores = found.scores
    assert scores.classes[0] == 2
    assert scores.accuracy == pytest.approx(2 / 3)
    assert sorted(scores.iou.tolist()) == pytest.approx([0, 0.5, 1])


def test_predictions_of_another_size_are_resized_by_the_nearest() -> None:
    labels = np.repeat(np.repeat(LABELS, 2, axis=1), 2, axis=2)
    found = Tally(2, 2)
    found.add(LABELS, labels)
    assert found.scores.accuracy == 1.0
    found.add(np.repeat(np.repeat(labels, 2, axis=1), 3, axis=2), labels)
    assert found.scores.accuracy == 1.0
    assert found.scores.confusion.sum() == 2 * (labels < 2).sum()


def test_without_labels_there_is_nothing_to_measure() -> None:
    with pytest.raises(DataError, match="nothing to measure"):
        tally(lambda tokens, presence: LABELS, store_of(None), clusters=2)


def test_heads_predict_what_they_do_picture_by_picture() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    from unim2_core.inference.bundling import head_arguments
    from unim2_core.model.classifier import Classifier
    from unim2_core.model.heads import ClusterHead
    from unim2_core.model.segmenter import Segmenter, SegmenterConfig
    from unim2_core.model.segmenter_head import SegmenterHead

    torch.manual_seed(0)
    config = SegmenterConfig(("thermal", "rgb"), DIM, 3, stand_in=True)
    mean, scale = torch.zeros(2, DIM), torch.ones(2, DIM)
    classifier = Classifier(Segmenter(config), torch.randn(3, 3), mean, scale)
    prototypes = np.zeros((3, 2, DIM), np.float32)
    prototypes[range(3), :, range(3)] = 1.0
    clusters = {
        "mean": mean.numpy(),
        "scale": scale.numpy(),
        "prototypes": prototypes,
        "valid": np.ones(3, np.float32),
        "full_margin": np.array(1, np.float32),
    }
    heads = (
        (SegmenterHead(config, 8, 4), classifier.head_inputs(1.0)),
        (ClusterHead(8, 8), clusters),
    )
    rng = np.random.default_rng(0)
    store = store_of(LABELS)
    store = replace(
        store,
        tokens={"rgb": store.tokens["rgb"], "thermal": rng.normal(size=(3, *GRID, DIM))},
        presence={**store.presence, "thermal": rng.random((3, *GRID)) < 0.5},
    )
    for head, weights in heads:
        order = ("thermal", "rgb") if isinstance(head, SegmenterHead) else ("rgb", "thermal")
        predict, answers = head_predictions(head, weights), []
        for row in range(3):
            tokens = np.stack([store.tokens[name][row] for name in order]).astype(np.float32)
            presence = np.stack([store.presence[name][row] for name in order])
            arguments = (torch.from_numpy(tokens), torch.from_numpy(presence).float())
            answers.append(head(**head_arguments(*arguments, weights, head))[0].numpy())
        found = predict(
            {name: store.tokens[name].astype(np.float32) for name in store.modalities},
            {name: store.presence[name].astype(np.float32) for name in store.modalities},
        )
        np.testing.assert_array_equal(found, np.stack(answers))
    only_rgb = replace(store, presence={**store.presence, "thermal": np.zeros((3, *GRID), bool)})
    assert tally(head_predictions(*heads[1]), only_rgb, clusters=3).mean_iou == 1.0
