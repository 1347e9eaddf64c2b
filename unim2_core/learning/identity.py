"""Class ids across versions of a model: what was class 3 stays class 3.

Clusters have no names, and a clustering that is found again comes in another order. So the new
clusters are matched to the old classes by how many places they share, one to one (Kuhn, "The
Hungarian method for the assignment problem", 1955). One that shares too little with any is the
class that it began as: of a small class the old model may have said a lot that was wrong. What
began as none is a new class and gets a new id; the id of a class without a cluster is reserved: it
never means something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.model.bundle import Label
from unim2_core.showing.palette import distinct_colors

SMALLEST_OVERLAP = 0.1
"""Intersection over union of a class and its counterpart."""
MOST_IDS = 254


@dataclass(frozen=True, eq=False)
class Identity:
    """Which class each cluster of a new model is.

    Attributes:
        ids: (K,) int64, of each new cluster.
        overlaps: (K,) float64, intersection over union with the old class; 0 of new classes.
        fresh: ids that are new.
        vanished: ids of old classes that no cluster is any more; they stay reserved.
        count: ids up to the highest of this model, the reserved ones included.
    """

    ids: NDArray[np.int64]
    overlaps: NDArray[np.float64]
    fresh: tuple[int, ...]
    vanished: tuple[int, ...]
    count: int

    @property
    def changed(self) -> bool:
        """Whether the table of labels changes."""
        return bool(self.fresh)

    def placed(self, prototypes: Tensor) -> tuple[Tensor, Tensor]:
        """Prototypes (K, d) at the rows of their ids, zeros elsewhere, and which are in use.

        Returns:
            (count, d) float32 and (count,) float32, 1 where in use.
        """
        rows = torch.zeros(self.count, prototypes.shape[1])
        valid = torch.zeros(self.count)
        where = torch.from_numpy(self.ids)
        rows[where] = prototypes.float()
        valid[where] = 1.0
        return rows, valid


def matched(
    old: NDArray[np.int64],
    new: NDArray[np.int64],
    clusters: int,
    in_use: NDArray[np.bool_],
    began: NDArray[np.int64],
    free: int,
    smallest: float = SMALLEST_OVERLAP,
) -> Identity:
    """Match the clusters of a new model to the classes of the old one.

    Args:
        old: (N,) ids that the old model gives to some places.
        new: (N,) clusters that the new one gives to the same places.
        clusters: K, of the new model.
        in_use: (ids,) bool, False where an id is reserved.
        began: (K,) int64, the class that each cluster began as, -1 = none.
        free: the first id that no version of the model has given out.
        smallest: overlap below which a pair is none.

    Raises:
        ModelError: there are no ids left for new classes.
    """
    ids = len(in_use)
    free = max(ids, free)
    both = np.zeros((clusters, ids))
    np.add.at(both, (new, old), 1)
    union = both.sum(1, keepdims=True) + both.sum(0, keepdims=True) - both
    overlap = both / np.maximum(union, 1)
    overlap[:, ~in_use] = 0
    found = np.full(clusters, -1)
    for cluster, known in zip(*linear_sum_assignment(-overlap), strict=True):
        if overlap[cluster, known] >= smallest:
            found[cluster] = known
    for cluster in np.flatnonzero(found < 0):
        if began[cluster] >= 0 and began[cluster] not in found:
            found[cluster] = began[cluster]
    fresh = np.flatnonzero(found < 0)
    if len(fresh) and free + len(fresh) > MOST_IDS:
        raise ModelError(
            "there are no ids left for new classes",
            expected=f"at most {MOST_IDS}, those of vanished classes included",
            found=f"{free} and {len(fresh)} new ones",
            remedy="train a model anew from all drives",
        )
    overlaps = np.where(found >= 0, overlap[np.arange(clusters), found], 0.0)
    found[fresh] = free + np.arange(len(fresh))
    gone = np.setdiff1d(np.flatnonzero(in_use), found)
    return Identity(
        found,
        overlaps,
        tuple(int(value) for value in found[fresh]),
        tuple(int(value) for value in gone),
        free + len(fresh) if len(fresh) else ids,
    )


def carried_over(labels: Sequence[Label], identity: Identity) -> tuple[Label, ...]:
    """The table of labels with the new classes at its end; nothing else changes."""
    colors = distinct_colors(identity.count)
    return (
        *labels,
        *(
            Label(id=number, name=f"cluster {number}", color=colors[number])
            for number in identity.fresh
        ),
    )


def kept_share(old: NDArray[np.int64], new: NDArray[np.int64], unlabelled: int = 255) -> float:
    """Share of the places, of those that both models assign, that keep their id; 1 of none."""
    both = (old != unlabelled) & (new != unlabelled)
    return float((old == new)[both].mean()) if both.any() else 1.0
