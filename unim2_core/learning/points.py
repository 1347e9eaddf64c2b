"""Features and codes at the points that the correspondence loss compares."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Weighting = Literal["none", "tanh", "sigmoid"]

EPSILON = 1e-10


def sampled(maps: Tensor, points: Tensor, images: Tensor | None = None) -> Tensor:
    """Sample maps bilinearly, with the border's values outside.

    What ``grid_sample`` does, for points that need no gradient. That goes through the channels of
    a map one by one; this adds up the vectors of four cells, which lie in one piece where
    channels are last in memory, and takes a fifth of the time.

    Args:
        maps: (B, C, h, w) float32.
        points: (B, S, S, 2) float32, x and y in [-1, 1], the centres of the corner pixels.
        images: (B,) int64, which map each is sampled from; None = its own.

    Returns:
        (B, C, S, S) float32, channels last in memory; place (r, t) is that of ``points[:, t, r]``.
    """
    batch, channels, height, width = maps.shape
    if images is None:
        images = torch.arange(batch, device=maps.device)
    x, y = points.transpose(1, 2).to(maps.dtype).unbind(dim=3)  # (B, S, S) each
    (left, right, to_right), (top, below, down) = _between(x, width), _between(y, height)
    first = images[:, None, None] * height  # (B, 1, 1), a map's first row of all rows
    rows = torch.stack([first + top, first + top, first + below, first + below], dim=3)
    cells = rows * width + torch.stack([left, right, left, right], dim=3)  # (B, S, S, 4)
    weights = torch.stack([1 - down, 1 - down, down, down], dim=3) * torch.stack(
        [1 - to_right, to_right, 1 - to_right, to_right], dim=3
    )
    vectors = F.embedding_bag(
        cells.view(-1, 4),
        maps.permute(0, 2, 3, 1).reshape(-1, channels),
        per_sample_weights=weights.view(-1, 4),
        mode="sum",
    )
    return vectors.view(*x.shape, channels).permute(0, 3, 1, 2)


def _between(coordinate: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The cells before and after coordinates in [-1, 1], and how far they are from the first."""
    place = ((coordinate + 1) / 2 * (size - 1)).clamp(0, size - 1)
    before = place.long()  # rounds down: it is not negative
    return before, (before + 1).clamp(max=size - 1), place - before


def directions(maps: Tensor, *, reuse: bool = False) -> Tensor:
    """Unit vectors of a sampled map: (B, C, S, S) float32 -> (B, P, C), P = S * S.

    With ``reuse`` they take the place of the vectors, which then need no gradient.
    """
    vectors = maps.flatten(2).transpose(1, 2)  # a view of channels that are last in memory
    return F.normalize(vectors, dim=2, eps=EPSILON, out=vectors if reuse else None)


def magnitude_weights(features: Tensor, weighting: Weighting) -> Tensor:
    """Activation of the mean magnitude: (B, C, h, w) float32 -> (B, 1, h, w) in [0, 1)."""
    magnitude = features.abs().mean(dim=1, keepdim=True)
    return magnitude.tanh() if weighting == "tanh" else magnitude.sigmoid()


class Points(NamedTuple):
    """A batch at P points of each image.

    Attributes:
        features: (B, P, C) float32 at unit length.
        code: (B, P, d) float32 at unit length.
        weights: (B, P) float32, or None.
        present: (B, P) float32, 1 where the modality sees something, else 0; None = everywhere.
    """

    features: Tensor
    code: Tensor
    weights: Tensor | None
    present: Tensor | None = None

    def of(self, sources: Tensor) -> Points:
        """Take the images (B,) of these indices."""
        parts = (None if part is None else part.index_select(0, sources) for part in self)
        return Points(*parts)  # type: ignore[arg-type]


class Maps(NamedTuple):
    """A batch of maps.

    Attributes:
        features: (B, C, h, w) float32.
        code: (B, d, h, w) float32.
        weights: (B, 1, h, w) float32, or None.
        present: (B, h, w) float32, 1 where the modality sees something; None = everywhere.
    """

    features: Tensor
    code: Tensor
    weights: Tensor | None = None
    present: Tensor | None = None

    def at(self, points: Tensor | None, images: Tensor | None = None) -> Points:
        """Sample everything at points (B, S, S, 2), see ``sampled``; None: every cell is one.

        A point counts as seen where at least half of what it is interpolated from is.
        """
        present = None if self.present is None else self.present[:, None]  # (B, 1, h, w)
        features, code, weights = self[:3]
        if points is not None:
            features, code = sampled(features, points, images), sampled(code, points, images)
            weights = None if weights is None else sampled(weights, points, images)
            present = None if present is None else sampled(present, points, images)
        return Points(
            directions(features, reuse=points is not None),
            directions(code),
            None if weights is None else weights.flatten(1),
            None if present is None else (present.flatten(1) >= 0.5).float(),
        )


def negatives(anchors: Maps, at_p: Points, positive: Tensor | None, sources: Tensor) -> Points:
    """What the anchors are compared with at random: anchors of other images (B,), at q.

    Where the maps hold the drawn places only, those of the other image.
    """
    return at_p.of(sources) if positive is None else anchors.at(positive, sources)


def counted_pairs(a: Points, b: Points) -> Tensor | None:
    """(B, P, P) float32, 1 for pairs of places that are both seen, else 0; None = all are."""
    if a.present is None or b.present is None:
        return None
    return a.present[:, :, None] * b.present[:, None]
