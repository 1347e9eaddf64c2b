"""From the frozen features of each modality to one fused map.

UniM2 (ECCV 2026), section on modality-specific networks and fusion: a small network per modality,
a normalisation that makes their scales equal, then a fusion that is learnt or a plain reduction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Normalization = Literal["l2", "standardize", "minmax", "none"]
FusionKind = Literal["conv", "progressive", "sum", "mean", "max"]

EPSILON = 1e-8


class ModalityNetwork(nn.Module):
    """Two convolutions of one pixel: D -> D / 2 -> D.

    Args:
        dim: width D of the features.
        residual: add the input to the output.
    """

    def __init__(self, dim: int, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.conv1 = nn.Conv2d(dim, dim // 2, 1)
        self.conv2 = nn.Conv2d(dim // 2, dim, 1)

    def forward(self, features: Tensor) -> Tensor:
        """(B, D, h, w) float32 -> (B, D, h, w), not yet normalised."""
        refined: Tensor = self.conv2(F.relu(self.conv1(features)))
        return refined + features if self.residual else refined


def normalized(features: Tensor, kind: Normalization, seen: Tensor | None = None) -> Tensor:
    """Bring the features of one modality to a common scale.

    Args:
        features: (B, D, h, w) float32.
        kind: ``l2``: unit length at each place. ``standardize``: mean 0 and unbiased deviation 1
            of each image. ``minmax``: each image to [0, 1]. ``none``: as they are.
        seen: (B, 1, h, w) float32, 1 where the modality sees something, else 0: what is not seen
            takes no part in what is taken over an image. None = everything.

    Returns:
        (B, D, h, w) float32; finite, but without meaning where nothing is seen.
    """
    if kind == "l2":
        return F.normalize(features, dim=1, eps=EPSILON)
    image = (1, 2, 3)
    share = features.new_ones(())
    if seen is not None and kind in ("standardize", "minmax"):
        # In place of what is not seen, the mean of what is: so extremes and squares stay.
        share = seen.mean(dim=image, keepdim=True)  # (B, 1, 1, 1)
        mean = (features * seen).mean(dim=image, keepdim=True) / share.clamp(min=EPSILON)
        features = torch.where(seen > 0, features, mean)
    if kind == "standardize":
        mean = features.mean(dim=image, keepdim=True)  # (B, 1, 1, 1)
        count = features[0].numel()
        lacking = (count - 1) / (share * count - 1).clamp(min=1)  # squares there are all zero
        deviation = features.std(dim=image, keepdim=True) * lacking.sqrt()
        return (features - mean) / (deviation + EPSILON)
    if kind == "minmax":
        low = features.amin(dim=image, keepdim=True)  # (B, 1, 1, 1)
        high = features.amax(dim=image, keepdim=True)
        return (features - low) / (high - low + EPSILON)
    return features


def fusion_layers(kind: FusionKind, count: int, dim: int) -> nn.Sequential:
    """The learnt part of a fusion of ``count`` maps of width ``dim``; empty where there is none.

    ``conv`` goes from count * D by floor((count * D + D) / 2) to D; ``progressive`` takes one D
    away at a time, each time with a batch norm.
    """
    if kind == "conv":
        hidden = (count * dim + dim) // 2
        return nn.Sequential(
            nn.Conv2d(count * dim, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, dim, 1)
        )
    if kind == "progressive":
        layers: list[nn.Module] = []
        for width in range(count * dim, dim, -dim):
            layers += [nn.Conv2d(width, width - dim, 1), nn.BatchNorm2d(width - dim), nn.ReLU()]
        return nn.Sequential(*layers, nn.Conv2d(dim, dim, 1))
    return nn.Sequential()


class ModalityFusion(nn.Module):
    """Modality networks, normalisation and fusion; one modality alone passes as it is.

    Where a modality sees nothing, its stand-in takes its place: a learnt vector, or zeros.

    Args:
        modalities: their names, in the order in which they are concatenated.
        dim: width D of the features.
        kind: how the maps become one.
        normalization: what is done to each before that.
        residual: whether a modality network adds its input.
        networks: whether there are modality networks; without, features are only normalised.
        stand_in: whether the stand-ins are learnt.
    """

    stand_in: Tensor

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        kind: FusionKind = "conv",
        normalization: Normalization = "l2",
        residual: bool = False,
        networks: bool = True,
        stand_in: bool = False,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.normalization = normalization
        self.modalities = tuple(modalities)
        several = self.modalities if len(self.modalities) > 1 else ()
        self.networks = nn.ModuleDict(
            {name: ModalityNetwork(dim, residual) for name in several if networks}
        )
        self.layers = fusion_layers(kind, len(several), dim) if several else nn.Sequential()
        if stand_in and several:
            self.stand_in = nn.Parameter(torch.zeros(len(several), dim))
        else:
            self.register_buffer("stand_in", torch.zeros(len(several), dim), persistent=False)

    def forward(
        self, features: Mapping[str, Tensor], presence: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Fuse.

        Args:
            features: (B, D, h, w) float32 of each modality.
            presence: (B, h, w) float32 of each, 1 where it sees something, else 0; None =
                everywhere.

        Returns:
            (B, D, h, w) float32.
        """
        if len(self.modalities) == 1:
            return features[self.modalities[0]]
        maps = []
        for index, name in enumerate(self.modalities):
            refined = self.networks[name](features[name]) if self.networks else features[name]
            seen = (
                None if presence is None else presence[name][:, None].to(refined)
            )  # (B, 1, h, w)
            refined = normalized(refined, self.normalization, seen)
            if seen is not None:
                stand_in = self.stand_in[index, :, None, None].to(refined)  # (D, 1, 1)
                # Cast once more: under autocast a GPU normalises in float32, whatever came in.
                refined = torch.lerp(stand_in, refined, seen.to(refined))  # exactly one of both
            maps.append(refined)
        if self.kind in ("conv", "progressive"):
            fused: Tensor = self.layers(torch.cat(maps, dim=1))  # (B, M * D, h, w) -> (B, D, h, w)
            return fused
        stacked = torch.stack(maps)  # (M, B, D, h, w)
        if self.kind == "sum":
            return stacked.sum(dim=0)
        return stacked.mean(dim=0) if self.kind == "mean" else stacked.amax(dim=0)
