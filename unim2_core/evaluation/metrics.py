"""How well clusters fit classes: counts over a whole set, Hungarian matching, IoU and accuracy.

As in the protocol of STEGO, Hamilton et al. (2022), https://arxiv.org/abs/2203.08414.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

Integers = NDArray[np.int64]
Labels = NDArray[np.integer[Any]]

UNASSIGNED = -1


@dataclass(frozen=True, eq=False)
class Scores:
    """Figures of one set, as shares in [0, 1].

    Attributes:
        iou: (K,) float64 of each class; NaN where it occurs in neither prediction nor truth.
        mean_iou: over the classes that occur.
        accuracy: share of the labelled pixels that are right.
        confusion: (K, K) int64 counts, row = predicted class, column = true class; with extra
            clusters (K + 1, K + 1), the last row being what no class was given to.
        classes: (K + e,) int64, the class of each cluster, or ``UNASSIGNED``.
    """

    iou: NDArray[np.float64]
    mean_iou: float
    accuracy: float
    confusion: Integers
    classes: Integers


def counts(
    predicted: Labels, truth: Labels, clusters: int, classes: int, *, extra: bool = True
) -> Integers:
    """Count how often each cluster meets each class; counts of several images may be added.

    Args:
        predicted: (...) integers; outside [0, ``clusters``) is not counted.
        truth: the same shape; outside [0, ``classes``), such as 255, is not counted.
        clusters: number of rows, K + e.
        classes: number of columns, K.
        extra: whether pixels of clusters from K on are counted; the release leaves them out,
            which makes extra clusters look better than they are.

    Returns:
        (clusters, classes) int64.
    """
    rows, columns = predicted.astype(np.int64), truth.astype(np.int64)
    limit = clusters if extra else min(clusters, classes)
    counted = (rows >= 0) & (rows < limit) & (columns >= 0) & (columns < classes)
    cells = rows[counted] * classes + columns[counted]
    return np.bincount(cells, minlength=clusters * classes).reshape(clusters, classes)


def matched(table: Integers) -> Integers:
    """Give each class the cluster that makes most pixels right, one to one (Kuhn, 1955).

    Args:
        table: (K + e, K) counts.

    Returns:
        (K + e,) int64, the class of each cluster; ``UNASSIGNED`` for the e that are left.
    """
    rows, columns = linear_sum_assignment(table, maximize=True)
    classes = np.full(len(table), UNASSIGNED, np.int64)
    classes[rows] = columns
    return classes


def clustering_scores(table: Integers, classes: Integers | None = None) -> Scores:
    """Figures of clusters, after matching; (K + e, K) counts.

    Args:
        table: (K + e, K) counts.
        classes: the class of each cluster, where that is settled already; None: matched here.

    Clusters that are left over stand for one more class that never occurs in the truth; where they
    have pixels, its IoU of zero is part of the mean, as in the release.
    """
    classes = matched(table) if classes is None else classes
    order = np.argsort(np.where(classes == UNASSIGNED, len(table), classes), kind="stable")
    size = table.shape[1]
    confusion = table[order[:size]]
    if len(table) > size:
        rest = table[order[size:]].sum(axis=0, keepdims=True)
        confusion = np.pad(np.concatenate([confusion, rest]), ((0, 0), (0, 1)))
    return _scores(confusion, classes)


def classification_scores(table: Integers) -> Scores:
    """Figures of predicted classes; (K, K) counts."""
    return _scores(table, np.arange(len(table)))


def _scores(confusion: Integers, classes: Integers) -> Scores:
    right = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - right
    iou = np.where(union > 0, right / np.maximum(union, 1), np.nan)
    occurs = union > 0
    mean = float(iou[occurs].mean()) if occurs.any() else float("nan")
    total = confusion.sum()
    accuracy = float(right.sum() / total) if total else float("nan")
    return Scores(iou, mean, accuracy, confusion, classes)
