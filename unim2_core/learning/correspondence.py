"""CMCS, the cross-modal correspondence loss of UniM2, for one modality.

Codes are pulled together where the frozen features of that modality correspond more than a shift,
and pushed apart where they correspond less; l = -mean[max(Sd, 0) (Fd - b)]. After STEGO, Hamilton
et al. (2022), https://arxiv.org/abs/2203.08414. All randomness can be passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, get_args

import torch
from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.learning.group import ALONE, Group
from unim2_core.learning.points import (
    Maps,
    Points,
    Weighting,
    counted_pairs,
    magnitude_weights,
    negatives,
)

SALIENT_SHARE = 0.9


@dataclass(frozen=True)
class CorrespondenceConfig:
    """How the loss is formed.

    Attributes:
        samples: S; S x S points are drawn in each image.
        negatives: how many times the batch is paired at random.
        pointwise: whether feature correspondences are centred over the second image's points.
        clamp_negative: whether code correspondences below zero count as zero.
        clamp_above: code correspondences above it count as it; None for no limit.
        weighting: of the points by the activation of the mean magnitude of their features.
        weight_reference: whether the reference modality is weighted, too.
        salience: draw 90 % of the points from the non-zero pixels of a mask.
        cells: the maps hold only the S x S places that were drawn, the same for all modalities,
            so that the network need not run on the others; a negative is seen at its own places.
        distinct_sources: negatives are a derangement that pairs no two pictures of one source.
    """

    samples: int = 11
    negatives: int = 5
    pointwise: bool = True
    clamp_negative: bool = True
    clamp_above: float | None = None
    weighting: Weighting = "none"
    weight_reference: bool = False
    salience: bool = False
    cells: bool = False
    distinct_sources: bool = False

    def __post_init__(self) -> None:
        if self.samples < 1 or self.negatives < 1 or self.weighting not in get_args(Weighting):
            raise ModelError(
                "the correspondence loss cannot be formed",
                expected=f"samples and negatives from 1, weighting one of {get_args(Weighting)}",
                found=f"{self.samples}, {self.negatives}, {self.weighting!r}",
            )

    def weights(self, *, reference: bool) -> bool:
        """Whether points of the reference modality, or of another one, are weighted."""
        return self.weighting != "none" and (self.weight_reference or not reference)


class Draws(NamedTuple):
    """The random part of one modality's loss.

    Attributes:
        anchor: p, (B, S, S, 2) float32 in [-1, 1]: x and y of the points of the anchors; None
            where the maps hold the points only.
        positive: q, the same of the positives, and of the negatives.
        sources: (N, B) int64: index of the image that each is paired with, in the whole batch.
    """

    anchor: Tensor | None
    positive: Tensor | None
    sources: Tensor

    def of(self, rows: slice) -> Draws:
        """Those of some of the anchors."""
        anchor, positive = (None if part is None else part[rows] for part in self[:2])
        return Draws(anchor, positive, self.sources[:, rows])

    def paired_by_turns(self) -> Draws:
        """The same points; each image is paired with the one before it among those here."""
        count = self.sources.shape[1]
        turned = torch.arange(count, device=self.sources.device).roll(1)
        return self._replace(sources=turned[None])


class Shifts(NamedTuple):
    """b of each term: how much features must correspond for codes to be pulled together."""

    own: float
    knn: float
    random: float


class Terms(NamedTuple):
    """The three terms, each a scalar: with itself, with a neighbour, with images at random."""

    own: Tensor
    knn: Tensor
    random: Tensor


def draw(
    batch: int,
    config: CorrespondenceConfig,
    salience: tuple[Tensor, Tensor] | None = None,
    sources: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Draws:
    """Draw points and pairs for a batch.

    Args:
        batch: B, at least 2.
        config: how many.
        salience: (B, H, W) masks of the anchors and the positives, where ``config`` asks for it.
        sources: (B,) int64, the picture that each anchor was cut from; None = all different.
        generator: source of randomness, of ``device``.
        device: where the draws are wanted.

    Raises:
        ModelError: the batch has one image only, or masks are asked for but not given.
    """
    if batch < 2 or (config.salience and salience is None):
        raise ModelError(
            "nothing to draw from",
            expected="two images or more in a batch, and salience masks where they are asked for",
            found=f"{batch} images, {'no masks' if salience is None else 'masks'}",
            remedy="use a larger batch; switch salience off",
        )
    anchor, positive = None, None
    if not config.cells:
        masks = salience if config.salience and salience is not None else (None, None)
        anchor, positive = (
            _draw_points(batch, config.samples, mask, generator, device) for mask in masks
        )
    if config.distinct_sources:
        of = torch.arange(batch, device=device) if sources is None else sources
        pairs = [derangement(of, generator=generator) for _ in range(config.negatives)]
        return Draws(anchor, positive, torch.stack(pairs))
    permutations = [
        torch.randperm(batch, generator=generator, device=device) for _ in range(config.negatives)
    ]
    return Draws(anchor, positive, self_avoiding(torch.stack(permutations)))


def _draw_points(
    batch: int,
    samples: int,
    mask: Tensor | None,
    generator: torch.Generator | None,
    device: torch.device | None,
) -> Tensor:
    shape = (batch, samples, samples)
    uniform = torch.rand(*shape, 2, generator=generator, device=device) * 2 - 1
    if mask is None:
        return uniform
    # A mask of zeros only has no salient pixels: all of them are as good.
    chances = (mask != 0).flatten(1).float()  # (B, H * W)
    chances = torch.where(chances.sum(dim=1, keepdim=True) > 0, chances, 1.0)
    chosen = torch.multinomial(chances, samples**2, replacement=True, generator=generator)
    height, width = mask.shape[1:]
    x = chosen % width / width * 2 - 1
    y = torch.div(chosen, width, rounding_mode="floor") / height * 2 - 1
    salient = torch.stack([x, y], dim=-1).view(*shape, 2)
    keep = torch.rand(shape, generator=generator, device=device) < SALIENT_SHARE
    return torch.where(keep[..., None], salient, uniform)


def self_avoiding(permutations: Tensor) -> Tensor:
    """Move the fixed points of permutations (..., B) to the next index, modulo B.

    The result pairs no image with itself but is no permutation: indices may repeat.
    """
    batch = permutations.shape[-1]
    fixed = permutations == torch.arange(batch, device=permutations.device)
    return (permutations + fixed.long()) % batch


def derangement(sources: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
    """Pair every picture with one of another source, each being taken once.

    Pictures in random order, those of a source side by side, are turned by at least as many
    places as the largest source has. Where one source has more than half of all, that cannot be;
    then no picture is paired with itself, which is all that can be asked for.

    Args:
        sources: (B,) int64, B >= 2.
        generator: source of randomness, of the device of ``sources``.

    Returns:
        (B,) int64, a permutation.
    """
    batch, device = len(sources), sources.device
    _, group, sizes = torch.unique(sources, return_inverse=True, return_counts=True)
    largest = int(sizes.max())
    if 2 * largest > batch:
        group, largest = torch.arange(batch, device=device), 1
    shuffled = torch.randperm(batch, generator=generator, device=device)
    place = torch.randperm(int(group.max()) + 1, generator=generator, device=device)
    order = shuffled[place[group[shuffled]].argsort(stable=True)]  # random groups, side by side
    turn = int(
        torch.randint(largest, batch - largest + 1, (1,), generator=generator, device=device)
    )
    paired = torch.empty_like(order)
    paired[order] = order.roll(-turn)
    return paired


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each vector of one map with each of another: two (B, P, C) -> (B, P, P)."""
    return a @ b.transpose(1, 2)


def centered(
    correspondence: Tensor, counted: Tensor | None = None, group: Group = ALONE
) -> Tensor:
    """Pointwise centring: each place of the first map loses its mean over the second map.

    After that the mean of all is zero, so adding the mean that it was is all that is left to do.

    Args:
        correspondence: (B, P, P) float32.
        counted: (B, P, P) float32, 1 for a pair that counts in the means, else 0; None = all.
        group: the processes that hold the whole batch.

    Returns:
        (B, P, P) float32, whose mean over everything that counts is what it was.
    """
    whole = group.summed(part_of_mean(correspondence, counted, group)) / group.world
    return correspondence + (whole - mean_of(correspondence, counted, dim=2))  # + (B, P, 1)


def part_of_mean(values: Tensor, counted: Tensor | None, group: Group) -> Tensor:
    """What a process's (B, P, P) add to the mean over all that counts in the whole batch.

    The mean over the processes of what each returns is that mean.
    """
    return group.weighed(mean_of(values, counted), None if counted is None else counted.sum)


def mean_of(values: Tensor, counted: Tensor | None, dim: int | None = None) -> Tensor:
    """Mean of (B, P, P) over what counts: a scalar, or (B, P, 1) along ``dim``; 0 for nothing."""
    if counted is None:
        return values.mean() if dim is None else values.mean(dim=dim, keepdim=True)
    if dim is None:
        return (values * counted).sum() / counted.sum().clamp(min=1)
    total = (values * counted).sum(dim=dim, keepdim=True)
    return total / counted.sum(dim=dim, keepdim=True).clamp(min=1)


def pair_loss(
    a: Points, b: Points, shift: float, config: CorrespondenceConfig, group: Group = ALONE
) -> Tensor:
    """The loss of each pair of places, (B, P, P) float32, not reduced.

    Args:
        a: of the anchors.
        b: of what they are compared with.
        shift: b of the formula.
        config: centring, clamps.
        group: the processes that hold the whole batch.
    """
    with torch.no_grad():
        target = cosines(a.features, b.features)  # (B, P, P)
        if config.pointwise:
            target = centered(target, counted_pairs(a, b), group)
        target = shift - target
        if a.weights is not None and b.weights is not None:
            target = target * a.weights[:, :, None] * b.weights[:, None]
    code = cosines(a.code, b.code)
    if config.clamp_negative or config.clamp_above is not None:
        code = code.clamp(0.0 if config.clamp_negative else None, config.clamp_above)
    return code * target


def correspondence_terms(
    features: tuple[Tensor, Tensor],
    codes: tuple[Tensor, Tensor],
    draws: Draws,
    shifts: Shifts,
    config: CorrespondenceConfig,
    *,
    weighted: bool = False,
    presence: tuple[Tensor, Tensor] | tuple[None, None] = (None, None),
    group: Group = ALONE,
) -> Terms:
    """The three terms for one modality; of many processes, what this one adds to their mean.

    Args:
        features: (B, C, h, w) float32 frozen features of the anchors and of their positives.
        codes: (B, d, h, w) float32, of the same.
        draws: points and pairs.
        shifts: b of each term.
        config: everything else.
        weighted: whether ``config.weighting`` applies to this modality.
        presence: (B, h, w) float32 of both, 1 where the modality sees something; pairs with a
            place that it does not see are left out of every mean.
        group: the processes that hold the whole batch; all that is given is of its own rows.
    """
    anchors, positives = (
        Maps(
            feature.detach(),
            code,
            magnitude_weights(feature.detach(), config.weighting) if weighted else None,
            present,
        )
        for feature, code, present in zip(features, codes, presence, strict=True)
    )
    at_p, at_q = anchors.at(draws.anchor), positives.at(draws.positive)

    def term(others: Points, shift: float) -> Tensor:
        loss = pair_loss(at_p, others, shift, config, group)
        return part_of_mean(loss, counted_pairs(at_p, others), group)

    pool = _pool(anchors, at_p, draws, group)
    random = [
        term(negatives(*pool, draws.positive, sources), shifts.random) for sources in draws.sources
    ]
    return Terms(term(at_p, shifts.own), term(at_q, shifts.knn), torch.stack(random).mean())


def _pool(anchors: Maps, at_p: Points, draws: Draws, group: Group) -> tuple[Maps, Points]:
    """What negatives are taken from, of all processes: whole maps, or the drawn places only."""

    def whole(parts: Sequence[Tensor | None]) -> list[Any]:
        return [None if part is None else group.gathered(part) for part in parts]

    if draws.positive is None:
        return anchors, Points(*whole(at_p))
    return Maps(*whole(anchors)), at_p
