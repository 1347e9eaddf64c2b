"""Heads: from the tokens of all modalities to classes; their weights are inputs of the graph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

UNLABELLED = 255
"""Class of a place that no modality sees."""


class ClusterHead(nn.Module):
    """Nearest cluster centre by cosine over the modalities that are present.

    Tokens are standardised and L2-normalised per modality; a missing modality drops out of the
    token and of the centre alike, so one set of centres serves every subset of the sensors.

    Args:
        patch_size: pixels of a token's side.
        stride: the classes come at one pixel in ``stride``; it divides ``patch_size``.
    """

    def __init__(self, patch_size: int, stride: int) -> None:
        super().__init__()
        self.upsampling = patch_size // stride

    def forward(
        self,
        tokens: Tensor,
        presence: Tensor,
        mean: Tensor,
        scale: Tensor,
        prototypes: Tensor,
        valid: Tensor,
        full_margin: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Classify every output pixel.

        Args:
            tokens: (M, h, w, D) float32, registered into the reference camera.
            presence: (M, h, w) float32, 1 where the modality sees that place, else 0.
            mean: (M, D) float32, subtracted from the tokens.
            scale: (M, D) float32, multiplied after that.
            prototypes: (K, M, D) float32, K >= 2.
            valid: (K,) float32, 1 where the prototype is in use, else 0.
            full_margin: () float32, the margin between best and second cosine that counts as sure.

        Returns:
            classes and confidence, both (h * patch / stride, w * patch / stride) uint8; a place
            that no modality sees has class 255 and confidence 0.
        """
        tokens = (tokens - mean[:, None, None]) * scale[:, None, None]
        tokens = F.normalize(tokens, dim=3) * presence[..., None]
        dots = tokens.permute(1, 2, 0, 3).flatten(2) @ prototypes.flatten(1).T  # (h, w, K)
        seen = presence.permute(1, 2, 0)  # (h, w, M): the squared length of each part of a token
        length = (seen @ prototypes.square().sum(2).T) * seen.sum(2, keepdim=True)
        cosines = dots / length.clamp(min=1e-12).sqrt()
        cosines = cosines - 4.0 * (1.0 - valid)  # below every true cosine
        maps = cosines.permute(2, 0, 1)[None]  # (1, K, h, w)
        size = [tokens.shape[1] * self.upsampling, tokens.shape[2] * self.upsampling]
        maps = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)[0]
        best, classes = maps.topk(2, dim=0)  # (2, H, W)
        margin = (best[0] - best[1]) / full_margin
        confidence = (margin.clamp(0, 1) * 255).round()
        blind = (seen.sum(2) == 0).float()[None, None]
        blind = F.interpolate(blind, size=size, mode="nearest")[0, 0] > 0
        classes = classes[0].masked_fill(blind, UNLABELLED)
        confidence = confidence.masked_fill(blind, 0.0)
        return classes.to(torch.uint8), confidence.to(torch.uint8)
