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


def normalized(features: Tensor, kind: Normalization) -> Tensor:
    """Bring the features of one modality to a common scale.

    Args:
        features: (B, D, h, w) float32.
        kind: ``l2``: unit length at each place. ``standardize``: mean 0 and unbiased deviation 1
            of each image. ``minmax``: each image to [0, 1]. ``none``: as they are.

    Returns:
        (B, D, h, w) float32.
    """
    if kind == "l2":
        return F.normalize(features, dim=1, eps=EPSILON)
    if kind == "standardize":
        mean = features.mean(dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        deviation = features.std(dim=(1, 2, 3), keepdim=True)
        return (features - mean) / (deviation + EPSILON)
    if kind == "minmax":
        low = features.amin(dim=(1, 2, 3), keepdim=True)  # (B, 1, 1, 1)
        high = features.amax(dim=(1, 2, 3), keepdim=True)
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

    Args:
        modalities: their names, in the order in which they are concatenated.
        dim: width D of the features.
        kind: how the maps become one.
        normalization: what is done to each before that.
        residual: whether a modality network adds its input.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        kind: FusionKind = "conv",
        normalization: Normalization = "l2",
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.normalization = normalization
        several = modalities if len(modalities) > 1 else ()
        self.networks = nn.ModuleDict({name: ModalityNetwork(dim, residual) for name in several})
        self.layers = fusion_layers(kind, len(several), dim) if several else nn.Sequential()

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Fuse.

        Args:
            features: (B, D, h, w) float32 of each modality.

        Returns:
            (B, D, h, w) float32.
        """
        if not self.networks:
            return next(iter(features.values()))
        maps = [
            normalized(network(features[name]), self.normalization)
            for name, network in self.networks.items()
        ]
        if self.kind in ("conv", "progressive"):
            fused: Tensor = self.layers(torch.cat(maps, dim=1))  # (B, M * D, h, w) -> (B, D, h, w)
            return fused
        stacked = torch.stack(maps)  # (M, B, D, h, w)
        if self.kind == "sum":
            return stacked.sum(dim=0)
        return stacked.mean(dim=0) if self.kind == "mean" else stacked.amax(dim=0)
