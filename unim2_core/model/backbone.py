"""DINOv3 vision transformers, for inference only: S/16, S+/16, B/16 and L/16.

After Simeoni et al., "DINOv3" (2025), https://arxiv.org/abs/2508.10104. Parameters carry the names
of the official checkpoints. Positions are computed for the size of each image, so one network
serves every size. In an exported graph attention is written out, with q scaled before the product
and softmax and LayerNorm in float32, so that it stays within the range of half precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unim2_core.errors import ModelError

ROPE_BASE = 100.0


@dataclass(frozen=True)
class BackboneConfig:
    """Size of a DINOv3 vision transformer.

    Attributes:
        name: what the command line calls it.
        embed_dim: width D of a token.
        depth: number of blocks.
        num_heads: attention heads; D / num_heads is a multiple of four.
        ffn_dim: hidden width of the feed-forward network.
        gated: SwiGLU instead of GELU.
        n_storage: storage ("register") tokens between CLS and patches.
        patch_size: side of a patch, pixels.
    """

    name: str
    embed_dim: int
    depth: int
    num_heads: int
    ffn_dim: int
    gated: bool = False
    n_storage: int = 4
    patch_size: int = 16


# S+ states a ratio of 6, of which SwiGLU's three matrices keep two thirds: 6 * 384 * 2 / 3.
BACKBONES: Mapping[str, BackboneConfig] = MappingProxyType(
    {
        config.name: config
        for config in (
            BackboneConfig("dinov3_vits16", 384, depth=12, num_heads=6, ffn_dim=1536),
            BackboneConfig(
                "dinov3_vits16plus", 384, depth=12, num_heads=6, ffn_dim=1536, gated=True
            ),
            BackboneConfig("dinov3_vitb16", 768, depth=12, num_heads=12, ffn_dim=3072),
            BackboneConfig("dinov3_vitl16", 1024, depth=24, num_heads=16, ffn_dim=4096),
        )
    }
)


class Features(NamedTuple):
    """Everything that one pass through the network gives, float32.

    Attributes:
        layers: last blocks, the last one last: LayerNormed patch tokens (B, h, w, D) each.
        cls: (B, D) LayerNormed CLS token of the last block.
        storage: (B, n_storage, D) LayerNormed storage tokens of the last block.
        prenorm: (B, 1 + n_storage + h * w, D) all tokens before the last LayerNorm.
    """

    layers: tuple[Tensor, ...]
    cls: Tensor
    storage: Tensor
    prenorm: Tensor


class LayerNorm(nn.LayerNorm):
    """LayerNorm in float32 whatever the type of the tokens."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (..., D) over D; same type out as in."""
        if x.dtype == self.weight.dtype and not torch.compiler.is_exporting():
            return super().forward(x)  # torch's own kernels sum in float32
        weight, bias = self.weight.float(), self.bias.float()
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).type_as(x)


class PatchEmbed(nn.Module):
    """One token for each patch."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        patch = config.patch_size
        self.proj = nn.Conv2d(3, config.embed_dim, kernel_size=patch, stride=patch)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, h * w, D)."""
        tokens: Tensor = self.proj(images)  # (B, D, h, w)
        return tokens.flatten(2).transpose(1, 2)


class RotaryEmbedding(nn.Module):
    """Rotation angles of the patches, from their centres in [-1, 1] along each axis."""

    periods: Tensor

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        exponents = 2 * torch.arange(head_dim // 4) / (head_dim // 2)
        self.register_buffer("periods", ROPE_BASE**exponents)  # (Dh / 4)

    def forward(self, h: int, w: int) -> tuple[Tensor, Tensor]:
        """Sine and cosine, each (h * w, Dh / 2): the y angles, then the x angles."""
        y, x = self._angles(h), self._angles(w)  # (h, Dh / 4), (w, Dh / 4)
        angles = torch.cat([y[:, None].expand(-1, w, -1), x[None].expand(h, -1, -1)], dim=2)
        angles = angles.flatten(0, 1)  # (h * w, Dh / 2)
        return angles.sin(), angles.cos()

    def _angles(self, size: int) -> Tensor:
        index = torch.arange(size, dtype=torch.float32, device=self.periods.device)
        centres = (index + 0.5) / size * 2 - 1
        return 2 * math.pi * centres[:, None] / self.periods.float()


def rotate(x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
    """Rotate the pairs (x[i], x[i + Dh / 2]) of (..., N, Dh) by angles given as (N, Dh / 2)."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).type_as(x)


class KeyMaskedLinear(nn.Linear):
    """Projection to q, k and v whose bias is masked: a key has none."""

    bias_mask: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__(dim, 3 * dim)
        nn.init.zeros_(self.bias)
        self.register_buffer("bias_mask", torch.tensor([1.0, 0.0, 1.0]).repeat_interleave(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., 3 D)."""
        return F.linear(x, self.weight, self.bias * self.bias_mask)


class Attention(nn.Module):
    """Multi-head self-attention with rotary positions."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = KeyMaskedLinear(config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
        """(B, N, D), angles (N, Dh / 2) -> (B, N, D)."""
        b, n, d = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, d // self.num_heads)
        qkv = qkv.permute(2, 0, 3, 1, 4)  # (3, B, heads, N, Dh)
        if torch.compiler.is_exporting():
            q, k, v = qkv.unbind()  # (B, heads, N, Dh) each
            q = rotate(q * q.shape[-1] ** -0.5, sin, cos)
            k = rotate(k, sin, cos)
            scores = q @ k.transpose(-2, -1)  # (B, heads, N, N)
            mixed = scores.softmax(dim=-1, dtype=torch.float32).type_as(v) @ v
        else:  # the same without N x N numbers in memory, and both turned at once
            q, k = rotate(qkv[:2], sin, cos).unbind()
            mixed = F.scaled_dot_product_attention(q, k, qkv[2])
        out: Tensor = self.proj(mixed.transpose(1, 2).reshape(b, n, d))
        return out


class Mlp(nn.Module):
    """Two layers with an exact GELU between them."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.embed_dim, config.ffn_dim)
        self.fc2 = nn.Linear(config.ffn_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class SwiGLU(nn.Module):
    """Two layers, the first one gated; Shazeer, https://arxiv.org/abs/2002.05202."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.w1 = nn.Linear(config.embed_dim, config.ffn_dim)
        self.w2 = nn.Linear(config.embed_dim, config.ffn_dim)
        self.w3 = nn.Linear(config.ffn_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        out: Tensor = self.w3(F.silu(self.w1(x)) * self.w2(x))
        return out


class LayerScale(nn.Module):
    """A learnt factor for each channel of a residual branch."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        return x * self.gamma


class Block(nn.Module):
    """Attention and feed-forward network, each normed before and scaled after."""

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.norm1 = LayerNorm(config.embed_dim)
        self.attn = Attention(config)
        self.ls1 = LayerScale(config.embed_dim)
        self.norm2 = LayerNorm(config.embed_dim)
        self.mlp = SwiGLU(config) if config.gated else Mlp(config)
        self.ls2 = LayerScale(config.embed_dim)

    def forward(self, x: Tensor, sin: Tensor, cos: Tensor) -> Tensor:
        """(B, N, D), angles (N, Dh / 2) -> (B, N, D)."""
        x = x + self.ls1(self.attn(self.norm1(x), sin, cos))
        out: Tensor = x + self.ls2(self.mlp(self.norm2(x)))
        return out


class DinoV3(nn.Module):
    """A DINOv3 vision transformer, frozen.

    Args:
        config: its size.
        n_layers: how many of the last blocks' outputs ``forward`` concatenates, earliest first.

    Attributes:
        config: its size.
        embed_dim: channels of ``forward``'s output: ``n_layers`` times the width of a token.
        patch_size: side of a patch, pixels.

    Examples:
        >>> backbone = DinoV3(BACKBONES["dinov3_vits16"])
        >>> backbone(torch.zeros(1, 3, 224, 320)).shape
        torch.Size([1, 14, 20, 384])
    """

    def __init__(self, config: BackboneConfig, n_layers: int = 1) -> None:
        super().__init__()
        self.config = config
        self.n_layers = n_layers
        self.embed_dim = n_layers * config.embed_dim
        self.patch_size = config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.storage_tokens = nn.Parameter(torch.zeros(1, config.n_storage, config.embed_dim))
        # Used in pre-training only; here so that names equal those of the checkpoints.
        self.mask_token = nn.Parameter(torch.zeros(1, config.embed_dim))
        self.patch_embed = PatchEmbed(config)
        self.rope_embed = RotaryEmbedding(config.embed_dim // config.num_heads)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = LayerNorm(config.embed_dim)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Compute the patch tokens.

        Args:
            images: (B, 3, H, W) float32, normalised; H and W multiples of ``patch_size``.

        Returns:
            (B, H / patch_size, W / patch_size, embed_dim) float32, LayerNormed.

        Raises:
            ModelError: the images have another shape.
        """
        return torch.cat(self.forward_features(images, self.n_layers).layers, dim=-1)

    def forward_features(
        self, images: Tensor, n_layers: int = 1, masked: Tensor | None = None
    ) -> Features:
        """Compute all outputs of the network.

        Args:
            images: as in ``forward``.
            n_layers: for how many of the last blocks patch tokens are wanted.
            masked: (B, h, w) bool, patches that the mask token takes the place of.

        Raises:
            ModelError: the images have another shape.
        """
        h, w = self._grid(images)
        x = self.patch_embed(images)  # (B, h * w, D)
        if masked is not None:
            x = torch.where(masked.flatten(1)[..., None], self.mask_token.to(x.dtype), x)
        prefix = torch.cat([self.cls_token, self.storage_tokens], dim=1)
        n_prefix = prefix.shape[1]
        x = torch.cat([prefix.expand(x.shape[0], -1, -1), x], dim=1)  # (B, N, D)
        sin, cos = self.rope_embed(h, w)
        # CLS and storage tokens have no position: they are turned by zero.
        sin = F.pad(sin, (0, 0, n_prefix, 0))
        cos = F.pad(cos, (0, 0, n_prefix, 0), value=1.0)  # (N, Dh / 2)
        outputs = []
        for i, block in enumerate(self.blocks):
            x = block(x, sin, cos)
            if i >= len(self.blocks) - n_layers:
                outputs.append(self.norm(x))
        last = outputs[-1]
        layers = tuple(out[:, n_prefix:].unflatten(1, (h, w)) for out in outputs)
        return Features(layers, last[:, 0], last[:, 1:n_prefix], x)

    def _grid(self, images: Tensor) -> tuple[int, int]:
        patch = self.patch_size
        if images.ndim != 4 or images.shape[1] != 3:
            found = f"shape {tuple(images.shape)}"
        elif images.shape[2] % patch or images.shape[3] % patch:
            found = f"{images.shape[2]} x {images.shape[3]} pixels"
        else:
            return images.shape[2] // patch, images.shape[3] // patch
        raise ModelError(
            f"{self.config.name} cannot take these images",
            expected=f"(B, 3, H, W) with H and W multiples of {patch}",
            found=found,
            remedy=f"resize the images to multiples of {patch} pixels",
        )
