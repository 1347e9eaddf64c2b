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
        return decided(
            cosines,
            torch.ones_like(cosines[..., :1]),
            valid,
            presence,
            full_margin,
            self.upsampling,
        )


def decided(
    scores: Tensor,
    length: Tensor,
    valid: Tensor,
    presence: Tensor,
    full_margin: Tensor,
    upsampling: int,
) -> tuple[Tensor, Tensor]:
    """The class of every output pixel and how sure it is; scores are resized, not classes.

    Args:
        scores: (h, w, K) float32, cosines times ``length``.
        length: (h, w, 1) float32, positive.
        valid: (K,) float32, 1 where the prototype is in use, else 0.
        presence: (M, h, w) float32, 1 where the modality sees that place, else 0.
        full_margin: () float32, the margin of cosines that counts as sure.
        upsampling: output pixels of a token's side.

    Returns:
        classes and confidence, both (h * upsampling, w * upsampling) uint8.
    """
    size = [scores.shape[0] * upsampling, scores.shape[1] * upsampling]
    scores = scores - 4.0 * length * (1.0 - valid)  # below every true one
    # Classes last, and resizing as two products: what a CPU takes the two largest of lies in one
    # piece, which is faster than maps, class by class.
    tall = _stretching(scores, 0, upsampling) @ scores.permute(1, 0, 2)  # (w, H, K)
    maps = _stretching(scores, 1, upsampling) @ tall.permute(1, 0, 2)  # (H, W, K)
    best, classes = maps.topk(2, dim=2)  # (H, W, 2)
    first, second = (part.squeeze(2) for part in torch.split(best, 1, dim=2))
    chosen = torch.split(classes, 1, dim=2)[0].squeeze(2).float()
    lengths = F.interpolate(
        length.permute(2, 0, 1)[None], size=size, mode="bilinear", align_corners=False
    )[0, 0]
    margin = (first - second) / (lengths * full_margin)
    confidence = (margin.clamp(0, 1) * 255).round()
    blind = (presence.sum(0) == 0).float()[None, None]
    blind = F.interpolate(blind, size=size, mode="nearest")[0, 0]
    # In float32: TensorRT 10 converts to uint8 from nothing else.
    chosen = torch.maximum(chosen, blind * float(UNLABELLED))
    confidence = confidence * (1 - blind)
    return chosen.to(torch.uint8), confidence.to(torch.uint8)


def _stretching(maps: Tensor, axis: int, upsampling: int) -> Tensor:
    """(n * upsampling, n), which resizes an axis of n places bilinearly, pixels being areas.

    Of no operation but resizing it takes a size: another stride is another factor there.
    """
    cells = torch.arange(maps.shape[axis], dtype=maps.dtype, device=maps.device)
    line = cells.view(1, 1, *((-1, 1) if axis == 0 else (1, -1)))
    size = [line.shape[2] * upsampling, line.shape[3] * upsampling]
    plane = F.interpolate(line, size=size, mode="bilinear", align_corners=False)[0, 0]
    places = plane[:, 0] if axis == 0 else plane[0]  # of each pixel, in cells
    return (1 - (places[:, None] - cells).abs()).clamp(min=0)
