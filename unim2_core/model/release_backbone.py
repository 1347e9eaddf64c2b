"""The frozen backbone in a checkpoint of the reference release, its size read off its shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.model.backbone import BACKBONES, BackboneConfig, DinoV3

BLOCK = re.compile(r"blocks\.(\d+)\.")


def release_backbone(tensors: Mapping[str, Tensor], prefix: str, n_layers: int = 1) -> DinoV3:
    """Build the backbone whose tensors begin with a prefix.

    Args:
        tensors: tensors of a checkpoint, official DINOv3 names after the prefix.
        prefix: what the backbone's names begin with.
        n_layers: how many of the last blocks' outputs its ``forward`` concatenates.

    Raises:
        ModelError: a tensor is missing, unexpected or of another shape.
    """
    state = {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    with torch.device("meta"):  # nothing is drawn at random only to be overwritten
        backbone = DinoV3(_config_of(state), n_layers)
    wanted = {name: tensor.shape for name, tensor in backbone.state_dict().items()}
    found = {name: tensor.shape for name, tensor in state.items()}
    if wanted != found:
        odd = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
        raise ModelError(
            "the checkpoint's backbone is not complete, or not one of this kind",
            expected=f"{odd[0]} of shape {_shape(wanted, odd[0])}",
            found=f"{_shape(found, odd[0])}, {len(odd)} such tensors",
            remedy="import a whole checkpoint of the reference release",
        )
    backbone.load_state_dict(state, assign=True)
    return backbone.requires_grad_(False).eval()


def _shape(shapes: Mapping[str, torch.Size], name: str) -> str:
    return str(tuple(shapes[name])) if name in shapes else "nothing"


def _config_of(state: Mapping[str, Tensor]) -> BackboneConfig:
    """Size of the network; the name is that of a known one of this size."""
    blocks = {int(match[1]) for match in map(BLOCK.match, state) if match}
    gated = "blocks.0.mlp.w1.weight" in state
    try:
        embed_dim = state["cls_token"].shape[-1]
        hidden = state[f"blocks.0.mlp.{'w1' if gated else 'fc1'}.bias"]
        config = BackboneConfig(
            name="custom",
            embed_dim=embed_dim,
            depth=len(blocks),
            num_heads=embed_dim // (4 * len(state["rope_embed.periods"])),
            ffn_dim=len(hidden),
            gated=gated,
            n_storage=state["storage_tokens"].shape[1],
            patch_size=state["patch_embed.proj.weight"].shape[-1],
        )
    except KeyError as missing:
        raise ModelError(
            "the checkpoint holds no DINOv3 backbone",
            expected=f"a tensor named {missing.args[0]}",
            found=", ".join(sorted(state)[:5]) or "none",
            remedy="import a whole checkpoint of the reference release",
        ) from missing
    for known in BACKBONES.values():
        if replace(config, name=known.name) == known:
            return known
    return config
