"""Figures of a model for machines: JSON types only, what is not defined being None."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.evaluation.metrics import UNASSIGNED, Scores
from unim2_core.evaluation.runner import Tally

NO_CLASS = "no class"
"""Row of what clusters without a class were given."""
LABELS = (
    "Labels only report: they had no part in training, in the choice of the model or in what it "
    "answers; the matching of clusters to classes is made for the report alone."
)


def figures(
    found: Tally, classes: Sequence[str], clusters: Sequence[str], matching: Tally | None = None
) -> dict[str, Any]:
    """All figures of one set of pictures.

    Args:
        found: the counts.
        classes: names of the C classes.
        clusters: names of the K clusters.
        matching: the counts that decide the class of each cluster; None: those of ``found``.
    """
    scores = found.scores if matching is None else found.scores_by(matching.scores.classes)
    given = scores.classes[: len(clusters)]
    of_class = {int(label): index for index, label in enumerate(given) if label != UNASSIGNED}
    pixels = scores.confusion.sum(axis=0)
    return {
        "mean_iou": _number(scores.mean_iou),
        "accuracy": _number(scores.accuracy),
        "coverage": _number(found.coverage),
        "labelled_pixels": found.labelled,
        # Of clusters that no class was left for: where there are any, they are one more class in
        # the mean, with an IoU of zero.
        "pixels_without_class": int(scores.confusion[len(classes) :].sum()),
        "classes": [
            {
                "name": name,
                "iou": _number(scores.iou[index]),
                "pixels": int(pixels[index]),
                "cluster": clusters[of_class[index]] if index in of_class else None,
            }
            for index, name in enumerate(classes)
        ],
        "clusters": {
            name: None if label == UNASSIGNED else classes[label]
            for name, label in zip(clusters, given.tolist(), strict=True)
        },
        "confusion": {
            "rows": "predicted",
            "columns": "true",
            "names": [*classes, NO_CLASS][: len(scores.confusion)],
            "pixels": scores.confusion.tolist(),
        },
    }


def confusion_shares(scores: Scores, classes: int) -> NDArray[np.float64]:
    """Where the pixels of each true class went: (C, C) or, with clusters left over, (C, C + 1).

    Rows sum to one; they are NaN where a class does not occur.
    """
    by_truth = scores.confusion.T[:classes].astype(np.float64)
    total = by_truth.sum(axis=1, keepdims=True)
    return np.where(total > 0, by_truth / np.maximum(total, 1), np.nan)


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 6)
