"""A frozen backbone made ready to run fast in torch: one precision, constants folded."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unim2_core.model.backbone import Block, DinoV3, KeyMaskedLinear, PatchEmbed, RotaryEmbedding


def prepared(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Change a network, in place, so that it runs fast and computes the same.

    Masks and scales go into the weights next to them, and rotations are computed once for each
    size. Simple features stay in float32 whatever the type: they are differences of squares.

    Args:
        network: one of our backbones in evaluation mode, float32; it is used up.
        dtype: that the transformer computes in.

    Returns:
        (B, 3, H, W) float32, normalised -> (B, h, w, D) float32.
    """
    if isinstance(network, DinoV3):
        return Transformer(network, dtype)
    inner = getattr(network, "transformer", None)  # of the tiny backbone
    if isinstance(inner, DinoV3):
        network.transformer = Transformer(inner, dtype)
    return network


class Transformer(nn.Module):
    """A DINOv3 with its constants folded, in a type of its own; float32 in and out."""

    def __init__(self, network: DinoV3, dtype: torch.dtype) -> None:
        super().__init__()
        angles = Angles(network.rope_embed, dtype)
        for block in network.blocks:
            assert isinstance(block, Block)
            fold(block)
        network.patch_embed = Patches(network.patch_embed)  # type: ignore[assignment]
        network.rope_embed = nn.Identity()  # type: ignore[assignment]
        self.network = network.to(dtype)
        network.rope_embed = angles  # type: ignore[assignment]  # its periods stay in float32
        self._dtype = dtype

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) float32, normalised -> (B, h, w, D) float32."""
        tokens: Tensor = self.network(images.to(self._dtype))
        return tokens.float()


class Patches(nn.Module):
    """``PatchEmbed`` as one matrix product: a convolution of so wide a stride is a slow one."""

    def __init__(self, embed: PatchEmbed) -> None:
        super().__init__()
        self._side = int(embed.proj.stride[0])
        # Channels last, as images come from cameras: whole runs of pixels are copied.
        matrix = embed.proj.weight.permute(0, 2, 3, 1).flatten(1).contiguous()
        self.weight = nn.Parameter(matrix, requires_grad=False)
        self.bias = embed.proj.bias

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, h * w, D)."""
        side = self._side
        b, c, height, width = images.shape
        rows = images.permute(0, 2, 3, 1).reshape(b, height // side, side, width // side, side, c)
        patches = rows.transpose(2, 3).flatten(3).flatten(1, 2)  # (B, h * w, p * p * 3)
        return F.linear(patches, self.weight, self.bias)


class Angles(nn.Module):
    """``RotaryEmbedding`` that computes each size once; a robot has few."""

    def __init__(self, embedding: RotaryEmbedding, dtype: torch.dtype) -> None:
        super().__init__()
        self._embedding = embedding
        self._dtype = dtype
        # Never forgotten: a CUDA graph goes on reading them where they are.
        self._kept: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def forward(self, h: int, w: int) -> tuple[Tensor, Tensor]:
        """Sine and cosine, each (h * w, Dh / 2)."""
        if (h, w) not in self._kept:
            sin, cos = self._embedding(h, w)
            self._kept[h, w] = (sin.to(self._dtype), cos.to(self._dtype))
        return self._kept[h, w]


def fold(block: Block) -> None:
    """Take masks and scales of a block into its weights, which then stand for the same."""
    last = block.mlp.fc2 if hasattr(block.mlp, "fc2") else block.mlp.w3
    for layer, scale in ((block.attn.proj, block.ls1), (last, block.ls2)):
        assert isinstance(layer, nn.Linear)
        layer.weight.mul_(scale.gamma[:, None])
        layer.bias.mul_(scale.gamma)
    block.ls1 = block.ls2 = nn.Identity()  # type: ignore[assignment]
    masked = block.attn.qkv
    assert isinstance(masked, KeyMaskedLinear)
    plain = nn.Linear(masked.in_features, masked.out_features, device="meta")
    plain.weight = masked.weight
    plain.bias = nn.Parameter(masked.bias * masked.bias_mask, requires_grad=False)
    block.attn.qkv = plain  # type: ignore[assignment]
