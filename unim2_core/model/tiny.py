"""The small backbone that comes with the package: simple features and a small transformer.

It is there for trying without a download, and for a first look at a drive of one's own. What it
has been trained on, and how, stands in the card beside its weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from unim2_core.errors import ModelError
from unim2_core.files import write_atomically
from unim2_core.model.backbone import BackboneConfig, DinoV3
from unim2_core.model.texture import TextureFeatures
from unim2_core.shares import share

WEIGHTS = "config/backbones/tiny.safetensors"
KIND = "unim2 tiny backbone"
"""Key of a file's only metadata, how the weights came about: the order of several is random."""
TRANSFORMER = BackboneConfig("tiny", 192, depth=6, num_heads=3, ffn_dim=768, patch_size=8)


class TinyBackbone(nn.Module):
    """Colour and texture in four windows, and a transformer, side by side in one graph.

    The channels of both halves are standardized over what the transformer was trained on, so that
    neither drowns the other.

    Attributes:
        patch_size: pixels of a patch's side.
        embed_dim: numbers per patch: of the simple features, then of the transformer.
        mean: (embed_dim,) float32, subtracted.
        scale: (embed_dim,) float32, multiplied after that.
    """

    patch_size = 8
    embed_dim = TextureFeatures.embed_dim + TRANSFORMER.embed_dim
    mean: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.texture = TextureFeatures()
        self.transformer = DinoV3(TRANSFORMER)
        self.register_buffer("mean", torch.zeros(self.embed_dim))
        self.register_buffer("scale", torch.ones(self.embed_dim))

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features of each patch.

        Args:
            images: (B, 3, H, W) float32, normalised; H and W multiples of ``patch_size``.

        Returns:
            (B, H / 8, W / 8, embed_dim) float32.

        Raises:
            ModelError: the images have another shape.
        """
        return (self.raw(images) - self.mean) * self.scale

    def raw(self, images: Tensor) -> Tensor:
        """As ``forward``, before channels are standardized."""
        return torch.cat([self.texture(images), self.transformer(images)], dim=-1)

    @classmethod
    def untrained(cls, seed: int) -> TinyBackbone:
        """One whose transformer was drawn at random."""
        made = cls()
        draw = torch.Generator().manual_seed(seed)
        for name, parameter in made.transformer.named_parameters():
            if parameter.ndim > 1:  # matrices and learnt tokens; biases, norms and scales are set
                nn.init.trunc_normal_(parameter, std=0.02, generator=draw)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
        return made

    @classmethod
    def load(cls, path: Path | None = None) -> TinyBackbone:
        """Read weights; without a path those that come with the package.

        Raises:
            ModelError: the file cannot be read, or holds another network.
        """
        path = path or share(WEIGHTS)
        made = cls()
        try:
            with safe_open(path, framework="pt") as file:
                ours = KIND in (file.metadata() or {})
                found = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise _unusable(path, str(error)) from error
        wanted = {name: tuple(value.shape) for name, value in made.state_dict().items()}
        shapes = {name: tuple(value.shape) for name, value in found.items()}
        wrong = sorted(name for name in {*wanted, *shapes} if wanted.get(name) != shapes.get(name))
        if not ours or wrong:
            named = ", ".join(wrong[:3]) or "nothing"
            raise _unusable(path, f"{'ours' if ours else 'no card'}; other than here: {named}")
        infinite = [name for name, value in found.items() if not value.isfinite().all()]
        if infinite:
            raise _unusable(path, f"values that are not finite in {', '.join(infinite[:3])}")
        made.load_state_dict(found)
        return made

    def save(self, path: Path, facts: Mapping[str, object] | None = None) -> None:
        """Write the weights in half precision, whole or not at all.

        Args:
            path: the file.
            facts: how they came about; JSON types only.

        Raises:
            Unim2Error: it cannot be written.
        """
        tensors = {
            name: (value.half() if name.startswith("transformer.blocks") else value)
            .cpu()
            .contiguous()
            for name, value in self.state_dict().items()
        }
        text = json.dumps(dict(facts or {}), sort_keys=True)
        write_atomically(path, save(tensors, metadata={KIND: text}))


def is_tiny(path: Path) -> bool:
    """Whether a file holds weights of this backbone."""
    try:
        with safe_open(path, framework="numpy") as file:
            return KIND in (file.metadata() or {})
    except (OSError, SafetensorError):
        return False


def _unusable(path: Path, found: str) -> ModelError:
    return ModelError(
        f"{path} holds no weights of the tiny backbone",
        expected="a file that unim2 pretrain wrote, with this version",
        found=found,
        remedy="pre-train again, or name another backbone",
    )
