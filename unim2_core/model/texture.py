"""A training-free baseline: colour and texture statistics in four windows, as one graph.

It stands in for a trained backbone where no weights are at hand: good enough to try every command,
not for a robot. Everything that it produces says so, by the name ``texture``.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WINDOWS = (1, 3, 7, 15)
"""Side of each window in patches: 8, 24, 56 and 120 pixels."""
ORIENTATIONS = 6
OPPONENT = ((0.299, 0.587, 0.114), (0.5, -0.5, 0.0), (-0.25, -0.25, 0.5))
"""Luminance, red-green and blue-yellow from normalised red, green and blue."""


class TextureFeatures(nn.Module):
    """Mean and deviation of opponent colours and a histogram of gradient orientations.

    Attributes:
        patch_size: pixels of a patch's side.
        embed_dim: numbers per patch.
    """

    patch_size = 8
    opponent: Tensor
    gradient: Tensor
    directions: Tensor
    embed_dim = len(WINDOWS) * (2 * len(OPPONENT) + ORIENTATIONS)

    def __init__(self) -> None:
        super().__init__()
        sobel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
        angles = torch.arange(ORIENTATIONS) * math.pi / ORIENTATIONS
        self.register_buffer("opponent", torch.tensor(OPPONENT)[:, :, None, None])
        self.register_buffer("gradient", torch.stack([sobel, sobel.T])[:, None])
        self.register_buffer(
            "directions", torch.stack([angles.cos(), angles.sin()], dim=1)[:, :, None, None]
        )

    def forward(self, images: Tensor) -> Tensor:
        """Compute the statistics of each patch and of the windows around it.

        Args:
            images: (B, 3, H, W) float32, normalised; H and W multiples of ``patch_size``.

        Returns:
            (B, H / 8, W / 8, embed_dim) float32.
        """
        colours = F.conv2d(images, self.opponent)  # (B, 3, H, W)
        slopes = F.conv2d(F.pad(colours[:, :1], (1, 1, 1, 1), mode="replicate"), self.gradient)
        energy = F.conv2d(slopes, self.directions).square()  # (B, O, H, W)
        moments = torch.cat([colours, colours.square(), energy], dim=1)
        patches = F.avg_pool2d(moments, self.patch_size)  # (B, 6 + O, h, w)
        return torch.cat([self._window(patches, side) for side in WINDOWS], dim=1).permute(
            0, 2, 3, 1
        )

    @staticmethod
    def _window(patches: Tensor, side: int) -> Tensor:
        pooled = F.avg_pool2d(patches, side, 1, side // 2, count_include_pad=False)
        mean, square, energy = pooled[:, :3], pooled[:, 3:6], pooled[:, 6:]
        deviation = (square - mean.square()).clamp(min=0).add(1e-6).sqrt()
        return torch.cat([mean, deviation, energy.add(1e-6).sqrt()], dim=1)
