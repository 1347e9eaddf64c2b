"""Counts, matching and scores against the reference release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unim2_core.evaluation.metrics import (
    UNASSIGNED,
    classification_scores,
    clustering_scores,
    counts,
)
from unim2_core.evaluation.parity import EXACT, FORWARD, Row, arrays_of, deviation, skipped

INPUTS = {"pred", "label"}


def metrics_rows(path: Path) -> Iterator[Row]:
    """Compare the metric with and without extra clusters, and without matching.

    Args:
        path: ``metrics.npz``: per case ``pred``, ``label`` (N, H, W) and the expected figures, in
            percent.
    """
    golden = arrays_of(path)
    for case in sorted({name.partition("/")[0] for name in golden}):
        arrays = {
            name.removeprefix(f"{case}/"): array
            for name, array in golden.items()
            if name.startswith(f"{case}/")
        }
        found = _found(arrays, matched=case != "linear")
        for name in sorted(set(arrays) - INPUTS):
            expected = arrays[name]
            if expected.size == 0:
                yield skipped(path.name, case, name, "the release stored nothing")
                continue
            tolerance = FORWARD if name in ("mIoU", "Accuracy") else EXACT
            yield Row(path.name, case, name, deviation(found[name], expected), tolerance)


def _found(golden: dict[str, Any], *, matched: bool) -> dict[str, Any]:
    clusters, classes = golden["stats"].shape
    table = counts(golden["pred"], golden["label"], clusters, classes, extra=False)
    scores = clustering_scores(table) if matched else classification_scores(table)
    rows = np.flatnonzero(scores.classes != UNASSIGNED)
    found = {
        "stats": table,
        "assign_rows": rows,
        "assign_cols": scores.classes[rows],
        "histogram": scores.confusion,
        "mIoU": 100 * scores.mean_iou,
        "Accuracy": 100 * scores.accuracy,
    }
    if "mapped_first" in golden:
        found["mapped_first"] = scores.classes[golden["pred"][0]]
    return found
