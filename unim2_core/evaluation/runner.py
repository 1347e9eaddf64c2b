"""Figures of a whole set of pictures: predictions of every kind are counted in one way.

Labels only report: nothing that is measured here goes back into a model or the choice of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import DataError
from unim2_core.evaluation.metrics import Scores, clustering_scores, counts
from unim2_core.learning.features import FeatureStore

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float32]
Integers = NDArray[np.integer[Any]]
Maps = Mapping[str, Floats]
Predict = Callable[[Maps, Maps], Integers]
"""Tokens (B, h, w, D) and presence (B, h, w) of each modality -> clusters (B, H, W), any size."""


class Tally:
    """How often each cluster meets each class, picture after picture.

    Args:
        clusters: number of clusters K.
        classes: number of classes C, fewer or more than clusters.
    """

    def __init__(self, clusters: int, classes: int) -> None:
        self._clusters, self._classes = clusters, classes
        # Where there are fewer clusters, rows of none stand for the classes that get none.
        self._table = np.zeros((max(clusters, classes), classes), np.int64)
        self._labelled = 0

    def add(self, predicted: Integers, labels: NDArray[np.uint8]) -> None:
        """Count pictures.

        Args:
            predicted: (B, H', W') clusters, resized to the labels by the nearest; from K on, as
                255 where no modality sees the place, there is no answer, which is not counted.
            labels: (B, H, W) classes; from C on, as 255, they are ignored.
        """
        rows, columns = (
            np.arange(length) * given // length
            for length, given in zip(labels.shape[1:], predicted.shape[1:], strict=True)
        )
        resized = predicted[:, rows[:, None], columns]
        self._table[: self._clusters] += counts(resized, labels, self._clusters, self._classes)
        self._labelled += int((labels < self._classes).sum())

    @property
    def table(self) -> NDArray[np.int64]:
        """(K or C, C) counts: rows are clusters, columns are classes."""
        return self._table

    @property
    def labelled(self) -> int:
        """How many pixels had a label."""
        return self._labelled

    @property
    def coverage(self) -> float:
        """The share of these that got an answer; NaN where there are none."""
        return float(self._table.sum() / self._labelled) if self._labelled else float("nan")

    @property
    def scores(self) -> Scores:
        """The figures, after matching; those of K clusters or C classes, whichever is more."""
        return clustering_scores(self._table)

    def scores_by(self, classes: Integers) -> Scores:
        """The figures with the class of each cluster given.

        A robot that loses a sensor keeps the names of its classes.
        """
        return clustering_scores(self._table, np.asarray(classes, np.int64))


def tally(predict: Predict, store: FeatureStore, clusters: int, batch: int = 8) -> Scores:
    """Hold predictions from frozen features against the labels of a store.

    Args:
        predict: see ``Predict``; what it gives is resized to the labels by the nearest.
        store: the features, with labels.
        clusters: number of clusters K; a prediction from K on is not counted.
        batch: pictures that are predicted at once.

    Raises:
        DataError: the store has no labels.
    """
    if store.labels is None or store.classes is None:
        raise DataError(
            "there is nothing to measure against",
            expected="features of pictures that have labels",
            found="no labels",
            remedy="give the labels in the data set's file",
        )
    found = Tally(clusters, len(store.classes.names))
    for start in range(0, len(store), batch):
        rows = slice(start, start + batch)
        tokens = {name: array[rows].astype(np.float32) for name, array in store.tokens.items()}
        presence = {name: array[rows].astype(np.float32) for name, array in store.presence.items()}
        found.add(predict(tokens, presence), store.labels[rows])
    return found.scores


def head_predictions(head: nn.Module, weights: Maps) -> Predict:
    """What a head that would be exported predicts. Needs torch.

    Args:
        head: ``ClusterHead``, which takes the modalities in the order in which they are given, or
            ``SegmenterHead``, which knows their order.
        weights: its inputs apart from tokens and presence.
    """
    import torch

    from unim2_core.inference.bundling import head_arguments
    from unim2_core.model.segmenter_head import SegmenterHead

    @torch.inference_mode()
    def predict(tokens: Maps, presence: Maps) -> Integers:
        names = head.config.modalities if isinstance(head, SegmenterHead) else tuple(tokens)
        every = torch.from_numpy(np.stack([tokens[name] for name in names], axis=1))
        seen = torch.from_numpy(np.stack([presence[name] for name in names], axis=1))
        answers = [
            head(**head_arguments(one, there, weights, head))[0]
            for one, there in zip(every, seen, strict=True)
        ]
        classes: NDArray[np.uint8] = torch.stack(answers).numpy()
        return classes

    return predict
