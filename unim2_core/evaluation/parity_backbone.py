"""The frozen backbone against the reference release: a tiny one, and one of full size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.evaluation.parity import EXACT, FORWARD, Row, arrays_of, deviation
from unim2_core.model.backbone import BACKBONES, BackboneConfig, DinoV3

SUMS = 1e-9
"""Tolerance of float64 sums of float32 values: only the order of the additions may differ."""


@torch.inference_mode()
def tiny_rows(path: Path) -> Iterator[Row]:
    """Compare every output of a small network whose weights are in the file.

    Args:
        path: ``backbone_tiny.npz``: ``image`` (B, 3, H, W), ``w/*`` and the expected outputs.
    """
    golden = arrays_of(path)
    weights = {
        name.removeprefix("w/"): torch.from_numpy(array)
        for name, array in golden.items()
        if name.startswith("w/")
    }
    backbone = DinoV3(
        BackboneConfig(
            name="tiny",
            embed_dim=weights["cls_token"].shape[-1],
            depth=int(golden["depth"]),
            num_heads=int(golden["num_heads"]),
            ffn_dim=weights["blocks.0.mlp.fc1.bias"].shape[0],
            n_storage=int(golden["n_storage"]),
        )
    )
    backbone.load_state_dict(weights)
    images = torch.from_numpy(golden["image"])
    features = backbone.forward_features(images, n_layers=2)
    height, width = images.shape[2:]
    h, w = height // backbone.patch_size, width // backbone.patch_size
    sin, cos = backbone.rope_embed(h, w)
    found = {
        "patch_tokens_normed": features.layers[-1].flatten(1, 2),
        "feature_map": _channels_first(backbone(images)),
        "cls_normed": features.cls,
        "storage_normed": features.storage,
        "prenorm": features.prenorm,
        "layer_minus2": _channels_first(features.layers[-2]),
        "layer_minus1": _channels_first(features.layers[-1]),
        "rope_sin": sin.tile(1, 2),  # the release keeps the angles of both halves of a pair
        "rope_cos": cos.tile(1, 2),
    }
    for name, tensor in found.items():
        case = f"{h}x{w} patches" if name.startswith("rope") else f"{height}x{width} pixels"
        yield Row(path.name, case, name, deviation(tensor.numpy(), golden[name]), FORWARD)


@torch.inference_mode()
def rule_rows(path: Path) -> Iterator[Row]:
    """Compare a network of full size, whose weights and input follow from a rule.

    Args:
        path: ``vit_*_rule.npz``: ``hw``, ``input_seed``, ``names_sorted`` and ``param_sums`` of
            the weights, and the expected tokens. Any of ``BACKBONES``.
    """
    golden = arrays_of(path)
    names = [str(name) for name in golden["names_sorted"]]
    backbone = DinoV3(_config_of(names, golden["cls_normed"].shape[-1]))
    state = rule_weights(backbone)
    case = f"weights of {backbone.config.name}"
    renamed = 0.0 if sorted(state) == names else float("inf")
    yield Row(path.name, case, "names_sorted", renamed, EXACT)
    sums = [state[name].double().sum().item() for name in sorted(state)]
    yield Row(path.name, case, "param_sums", deviation(sums, golden["param_sums"]), SUMS)

    height, width = (int(side) for side in golden["hw"])
    noise = np.random.RandomState(int(golden["input_seed"])).standard_normal((1, 3, height, width))
    backbone.load_state_dict(state)
    features = backbone.forward_features(torch.from_numpy(noise.astype(np.float32)))
    found = {
        "patch_tokens_normed": features.layers[-1].flatten(1, 2),
        "cls_normed": features.cls,
    }
    for name, tensor in found.items():
        error = deviation(tensor.numpy(), golden[name])
        yield Row(path.name, f"{height}x{width} pixels", name, error, FORWARD)


def rule_weights(backbone: DinoV3) -> dict[str, Tensor]:
    """Weights that anyone can make again: tensor k in the order of the names is noise of seed k.

    Masks and periods keep the values of their definition, but count in the order.
    """
    state = {}
    for k, (name, tensor) in enumerate(sorted(backbone.state_dict().items())):
        if name.endswith(("bias_mask", "periods")):
            state[name] = tensor
        else:
            noise = np.random.RandomState(k).standard_normal(tensor.numel()).reshape(tensor.shape)
            state[name] = torch.from_numpy(_scaled(name, noise).astype(np.float32))
    return state


def _scaled(name: str, noise: NDArray[np.float64]) -> NDArray[np.float64]:
    if name.endswith("gamma"):
        return 0.5 + 0.1 * noise
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.1 * noise
    if name.endswith("bias"):
        return 0.05 * noise
    if name.endswith(("token", "tokens")):
        return 0.1 * noise
    return 0.04 * noise


def _config_of(names: list[str], embed_dim: int) -> BackboneConfig:
    gated = any(name.endswith("mlp.w1.weight") for name in names)
    for config in BACKBONES.values():
        if (config.embed_dim, config.gated) == (embed_dim, gated):
            return config
    raise ModelError(
        "the golden file is of a backbone that is not known here",
        expected=f"one of {', '.join(BACKBONES)}",
        found=f"tokens of width {embed_dim}",
        remedy="compare with files of one of these",
    )


def _channels_first(tokens: Tensor) -> Tensor:
    return tokens.permute(0, 3, 1, 2)  # (B, h, w, D) -> (B, D, h, w)
