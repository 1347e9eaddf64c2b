"""Nearest neighbours against the reference release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from unim2_core.evaluation.parity import EXACT, FORWARD, Row, arrays_of, deviation
from unim2_core.learning.neighbors import nearest, pooled


def neighbors_rows(path: Path) -> Iterator[Row]:
    """Compare descriptors and neighbours, also with the channel dropout of the shipped script.

    Args:
        path: ``knn.npz``: ``feature_maps`` (N, C, h, w), ``dropout_mask`` and what is expected.
    """
    golden = arrays_of(path)
    features = torch.from_numpy(golden["feature_maps"])
    masks = torch.from_numpy(golden["dropout_mask"])
    for case, mask, suffix in (("no dropout", None, ""), ("dropout", masks, "_dropout")):
        descriptors = pooled(features, mask)
        name = f"pooled_normalised{suffix}"
        yield Row(path.name, case, name, deviation(descriptors.numpy(), golden[name]), FORWARD)
        name = f"neighbours_top30{suffix}"
        neighbours = nearest(descriptors, golden[name].shape[1])
        yield Row(path.name, case, name, deviation(neighbours.numpy(), golden[name]), EXACT)
