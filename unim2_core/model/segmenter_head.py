"""The trained network as a head: tokens of all modalities to classes, its weights being inputs.

It computes what ``Segmenter`` and ``ClusterProbe`` do in evaluation mode, as plain matrix products
over places. So a model that has learnt more is a copy of its weights, not another graph.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unim2_core.model.fusion import EPSILON
from unim2_core.model.heads import decided
from unim2_core.model.segmenter import Segmenter, SegmenterConfig


class SegmenterHead(nn.Module):
    """Classes by the nearest prototype of each place's code.

    Args:
        config: form of the network; it decides the graph.
        patch_size: pixels of a token's side.
        stride: the classes come at one pixel in ``stride``; it divides ``patch_size``.
    """

    def __init__(self, config: SegmenterConfig, patch_size: int, stride: int) -> None:
        super().__init__()
        self.config = config
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
        weights: dict[str, Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Classify every output pixel.

        Args:
            tokens: (M, h, w, D) float32, registered into the reference camera.
            presence: (M, h, w) float32, 1 where the modality sees that place, else 0.
            mean: (M, D) float32, subtracted from the tokens.
            scale: (M, D) float32, multiplied after that.
            prototypes: (K, d) float32 at unit length, K >= 2.
            valid: (K,) float32, 1 where the prototype is in use, else 0.
            full_margin: () float32, the margin between best and second cosine that counts as sure.
            weights: of the network, from ``head_weights``.

        Returns:
            classes and confidence, both (h * patch / stride, w * patch / stride) uint8; a place
            that no modality sees has class 255 and confidence 0.
        """
        tokens = (tokens - mean[:, None, None]) * scale[:, None, None]
        seen = presence[..., None]  # (M, h, w, 1)
        code = self._code(self._fused(tokens * seen, seen, weights), weights)  # (h, w, d)
        scores = code @ prototypes.T  # (h, w, K): cosines times the code's length
        length = code.norm(dim=2, keepdim=True).clamp(min=1e-12)  # (h, w, 1)
        return decided(scores, length, valid, presence, full_margin, self.upsampling)

    def _fused(self, tokens: Tensor, seen: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """(M, h, w, D) -> (h, w, D)."""
        config = self.config
        if len(config.modalities) == 1:
            return tokens[0]
        maps = tokens
        if config.networks:
            count, height, width, dim = tokens.shape
            flat = tokens.reshape(count, height * width, dim)  # (M, h * w, D)
            inner = F.relu(flat @ weights["network_in"] + weights["network_in_bias"][:, None])
            maps = inner @ weights["network_out"] + weights["network_out_bias"][:, None]
            maps = maps.reshape(tokens.shape)
            maps = maps + tokens if config.residual else maps
        maps = self._normalized(maps, seen)
        maps = seen * maps + (1 - seen) * weights["stand_in"][:, None, None]
        if config.fusion == "sum":
            return maps.sum(dim=0)
        if config.fusion == "mean":
            return maps.mean(dim=0)
        if config.fusion == "max":
            return maps.amax(dim=0)
        fused = maps.permute(1, 2, 0, 3).flatten(2)  # (h, w, M * D)
        layers = len(config.modalities) if config.fusion == "progressive" else 2
        for layer in range(layers):
            fused = fused @ weights[f"fusion_{layer}"] + weights[f"fusion_{layer}_bias"]
            if layer < layers - 1:
                fused = F.relu(fused)
        return fused

    def _normalized(self, maps: Tensor, seen: Tensor) -> Tensor:
        """As ``fusion.normalized``, channels last: (M, h, w, D), seen (M, h, w, 1)."""
        kind = self.config.normalization
        over = (1, 2, 3)
        if kind == "l2":
            return F.normalize(maps, dim=3, eps=EPSILON)
        if kind == "none":
            return maps
        count = seen.sum(dim=over, keepdim=True) * maps.shape[3]  # (M, 1, 1, 1)
        mean = (maps * seen).sum(dim=over, keepdim=True) / count.clamp(min=1)
        filled = torch.where(seen > 0, maps, mean)
        if kind == "standardize":
            squares = (filled - mean).square().sum(dim=over, keepdim=True)
            deviation = (squares / (count - 1).clamp(min=1)).sqrt()
            return (filled - mean) / (deviation + EPSILON)
        low, high = filled.amin(dim=over, keepdim=True), filled.amax(dim=over, keepdim=True)
        return (filled - low) / (high - low + EPSILON)

    def _code(self, fused: Tensor, weights: dict[str, Tensor]) -> Tensor:
        """(h, w, D) -> (h, w, d)."""
        code = fused @ weights["linear"] + weights["linear_bias"]
        if self.config.projection == "nonlinear":
            inner = F.relu(fused @ weights["nonlinear_in"] + weights["nonlinear_in_bias"])
            code = code + inner @ weights["nonlinear_out"] + weights["nonlinear_out_bias"]
        return code


def head_inputs(
    head: nn.Module, tensors: Mapping[str, Tensor]
) -> dict[str, Tensor | dict[str, Tensor]]:
    """What ``forward`` of a head takes, from the inputs of its graph.

    Args:
        head: ``ClusterHead``, or ``SegmenterHead``, whose network's weights are one mapping.
        tensors: all inputs by name.
    """
    if not isinstance(head, SegmenterHead):
        return dict(tensors)
    own = inspect.signature(head.forward).parameters
    weights = {name: tensor for name, tensor in tensors.items() if name not in own}
    return {name: tensor for name, tensor in tensors.items() if name in own} | {"weights": weights}


def head_weights(segmenter: Segmenter) -> dict[str, Tensor]:
    """The network's weights as the head takes them, float32, contiguous.

    Matrices are transposed for products from the left; a batch norm is folded into the
    convolution before it.
    """
    config = segmenter.config
    found: dict[str, Tensor] = {}

    def add(name: str, layer: nn.Module, norm: nn.Module | None = None) -> None:
        matrix, bias = _matrix(layer, norm)
        found[name], found[f"{name}_bias"] = matrix, bias

    if len(config.modalities) > 1:
        if config.networks:
            networks = [segmenter.fusion.networks[name] for name in config.modalities]
            for name, part in (("network_in", "conv1"), ("network_out", "conv2")):
                pairs = [_matrix(network.get_submodule(part), None) for network in networks]
                found[name] = torch.stack([matrix for matrix, _ in pairs])
                found[f"{name}_bias"] = torch.stack([bias for _, bias in pairs])
        found["stand_in"] = segmenter.fusion.stand_in.detach()
        layers = [layer for layer in segmenter.fusion.layers if not isinstance(layer, nn.ReLU)]
        convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
        norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
        for index, layer in enumerate(convolutions):
            add(f"fusion_{index}", layer, norms[index] if index < len(norms) else None)
    add("linear", segmenter.linear)
    if segmenter.nonlinear is not None:
        add("nonlinear_in", segmenter.nonlinear[0])
        add("nonlinear_out", segmenter.nonlinear[2])
    return {name: tensor.detach().float().contiguous() for name, tensor in found.items()}


def _matrix(layer: nn.Module, norm: nn.Module | None) -> tuple[Tensor, Tensor]:
    """(in, out) matrix and (out,) bias of a convolution of one pixel."""
    assert isinstance(layer, nn.Conv2d)
    weight = layer.weight[:, :, 0, 0].T
    bias = torch.zeros(layer.out_channels) if layer.bias is None else layer.bias
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_var is not None
        assert norm.running_mean is not None
        factor = norm.weight / (norm.running_var + norm.eps).sqrt()
        weight, bias = weight * factor, (bias - norm.running_mean) * factor + norm.bias
    return weight, bias
