"""The shifts b of the loss, taken from the features instead of being searched for.

How alike two places are depends on the backbone and the modality: a cosine of 0.5 is much for one
and little for the other. What carries over is a share: which part of all pairs is to be pulled
together. So a shift is the correspondence that this part of the pairs exceeds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from unim2_core.learning.correspondence import Shifts, centered, cosines
from unim2_core.learning.objective import Batch, Objective, ObjectiveConfig, side_by_side
from unim2_core.learning.points import Maps, Points, counted_pairs, negatives

STEPS = 8
"""Batches that are looked at."""


class PulledShares(NamedTuple):
    """The share of the pairs that each term pulls together, each between 0 and 1."""

    own: float
    knn: float
    random: float


@torch.no_grad()
def measured_shifts(
    objective: Objective, batches: Callable[[int], Batch], shares: PulledShares, seed: int
) -> dict[str, Shifts]:
    """Shifts of each modality at which each term pulls its share of the pairs together.

    Args:
        objective: how points and pairs are drawn; its shifts are not looked at.
        batches: step -> batch.
        shares: of the pairs.
        seed: of the draws.

    Returns:
        Modality -> shifts, of every modality that has a loss; 0 for what is never seen. The same
        to the bit whatever the number of threads: a training is known by them when it goes on.
    """
    with _one_thread():
        return _measured(objective, batches, shares, seed)


def _measured(
    objective: Objective, batches: Callable[[int], Batch], shares: PulledShares, seed: int
) -> dict[str, Shifts]:
    config = objective.config.correspondence
    found: dict[str, list[list[Tensor]]] = {}
    for step in range(STEPS):
        batch = batches(step)
        draws = objective.draw(batch, generator=torch.Generator().manual_seed(seed + step))
        for name, (anchors, positives) in _compared(objective, batch).items():
            points = draws.correspondence[name]
            at_p, at_q = anchors.at(points.anchor), positives.at(points.positive)
            others = negatives(anchors, at_p, points.positive, points.sources[0])
            terms = found.setdefault(name, [[], [], []])
            for values, second in zip(terms, (at_p, at_q, others), strict=True):
                values.append(_correspondence(at_p, second, pointwise=config.pointwise))
    return {
        name: Shifts(
            *(
                _exceeded_by(torch.cat(values), share)
                for values, share in zip(terms, shares, strict=True)
            )
        )
        for name, terms in found.items()
    }


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums are cut by the number of threads, and rounded where they are cut."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def _compared(objective: Objective, batch: Batch) -> dict[str, tuple[Maps, Maps]]:
    """What the loss of each modality compares, of anchors and positives; codes are not used."""
    names = objective.segmenter.config.modalities
    if objective.config.joint:
        seen = batch.presence or (None, None)
        first, second = (
            side_by_side(maps, names, there)
            for maps, there in zip((batch.anchors, batch.positives), seen, strict=True)
        )
        return {names[0]: (Maps(first, first[:, :1]), Maps(second, second[:, :1]))}
    found = {}
    for name in names:
        first, second = batch.anchors[name], batch.positives[name]
        there, other = batch.presence_of(name)
        found[name] = (
            Maps(first, first[:, :1], present=there),
            Maps(second, second[:, :1], present=other),
        )
    return found


def with_shifts(config: ObjectiveConfig, shifts: dict[str, Shifts]) -> ObjectiveConfig:
    """The objective with these shifts."""
    return replace(
        config,
        modalities={
            name: replace(loss, shifts=shifts.get(name, loss.shifts))
            for name, loss in config.modalities.items()
        },
    )


def _correspondence(a: Points, b: Points, *, pointwise: bool) -> Tensor:
    """Feature correspondences of the pairs that count, (n,) float32."""
    counted = counted_pairs(a, b)
    values = cosines(a.features, b.features)
    if pointwise:
        values = centered(values, counted)
    return values.flatten() if counted is None else values[counted > 0]


def _exceeded_by(values: Tensor, share: float) -> float:
    """The value that this share of all exceeds; 0 of nothing."""
    if not len(values):
        return 0.0
    rank = round((1 - share) * (len(values) - 1)) + 1
    return float(values.kthvalue(rank).values)
