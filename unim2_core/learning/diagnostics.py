"""What is shown of a batch beside its loss: use of the clusters, and correspondences."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.learning.correspondence import cosines
from unim2_core.learning.objective import Batch, Objective, StepDraws
from unim2_core.learning.points import Maps, Points, counted_pairs, negatives

SHOWN_IMAGES = 4
"""Correspondences are shown of that many images: each gives S^4 of them."""


class Diverged(ModelError):
    """A loss or a gradient that is not finite."""


def cluster_use(assigned: Tensor, clusters: int) -> dict[str, float]:
    """How evenly clusters are used.

    Args:
        assigned: integers below ``clusters``, any shape.
        clusters: K.

    Returns:
        Number of clusters in use, the largest share, and the entropy of the shares divided by
        log K: 0 is a collapse to one cluster, 1 an even use of all.
    """
    shares = torch.bincount(assigned.flatten(), minlength=clusters).float() / assigned.numel()
    entropy = float(torch.special.entr(shares).sum())
    return {
        "clusters/used": float((shares > 0).sum()),
        "clusters/largest_share": float(shares.max()),
        "clusters/entropy": entropy / math.log(clusters) if clusters > 1 else 0.0,
    }


@torch.no_grad()
def assigned_clusters(objective: Objective, batch: Batch) -> Tensor:
    """(B, h, w) int64: the cluster of each place of the anchors, as the network is now."""
    presence = None if batch.presence is None else batch.presence[0]
    code = objective.segmenter(batch.anchors, None, presence).code
    return objective.cluster_probe.scores(code).argmax(dim=1)


@torch.no_grad()
def correspondences(objective: Objective, batch: Batch, draws: StepDraws) -> dict[str, Tensor]:
    """Cosines of a few images' features and codes, at the points drawn for the loss.

    Returns:
        Flat float32 in [-1, 1] by ``correspondence/<term>/<features or code>/<modality>``, the
        features' before centring; of places that the modality sees. A batch of one image has no
        term ``random``.
    """
    segmenter = objective.segmenter
    seen = batch.presence or (None, None)
    parts = [
        (maps, segmenter.supervised_codes(segmenter(maps, None, present).code))
        for maps, present in zip((batch.anchors, batch.positives), seen, strict=True)
    ]
    found: dict[str, Tensor] = {}
    for name in segmenter.config.modalities:
        drawn = draws.correspondence[name]
        present = batch.presence_of(name)
        anchors, positives = (
            Maps(maps[name], codes[name], None, there)
            for (maps, codes), there in zip(parts, present, strict=True)
        )
        at_p, at_q = anchors.at(drawn.anchor), positives.at(drawn.positive)
        terms = {"own": at_p, "knn": at_q}
        if len(at_p.code) > 1:
            terms["random"] = negatives(anchors, at_p, drawn.positive, drawn.sources[0])
        for term, other in terms.items():
            one, two = _first(at_p), _first(other)
            counted = counted_pairs(one, two)
            for kind in ("features", "code"):
                values = cosines(getattr(one, kind), getattr(two, kind))
                chosen = values.flatten() if counted is None else values[counted > 0]
                found[f"correspondence/{term}/{kind}/{name}"] = chosen
    return found


def _first(points: Points) -> Points:
    count = len(points.code)
    return points.of(torch.arange(min(SHOWN_IMAGES, count), device=points.code.device))


def not_finite(
    objective: Objective, batch: Batch, log: Mapping[str, Tensor], step: int
) -> Diverged:
    """The error for a step whose loss or gradient is not finite.

    Args:
        objective: with the gradients of the step.
        batch: of the step.
        log: the scalars of the step; the first that is not finite is named.
        step: its number, from 0.
    """
    bad = [name for name, value in log.items() if not torch.isfinite(value).all()]
    found = []
    if bad:
        found.append(f"{bad[0]} is {float(log[bad[0]])}")
    else:
        names = [
            name
            for name, parameter in objective.named_parameters()
            if parameter.grad is not None and not torch.isfinite(parameter.grad).all()
        ]
        found.append(f"the gradient of {names[0]}" if names else "the loss of another process")
    for kind, maps in (("anchors", batch.anchors), ("positives", batch.positives)):
        for name, features in maps.items():
            rows = (~torch.isfinite(features.flatten(1)).all(dim=1)).nonzero().flatten()
            if len(rows):
                places = ", ".join(str(int(row)) for row in rows[:8])
                found.append(f"features of {name} are not finite in {kind} {places} of the batch")
    if batch.indices is not None:
        found.append("pictures " + " ".join(str(int(index)) for index in batch.indices))
    return Diverged(
        f"training stopped at step {step}: the loss or its gradient is not finite",
        expected="finite numbers",
        found="; ".join(found),
    )
