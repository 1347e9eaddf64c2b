"""Our DINOv3 against slow formulas and, where they are installed, transformers' and timm's.

Neither library is a dependency: a skip here means that agreement was not looked at, not that it
failed. The arrays of the reference release are compared in test/evaluation/test_parity.py.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from safetensors.torch import save_model

from unim2_core.errors import ModelError
from unim2_core.model.backbone import (
    BACKBONES,
    Attention,
    BackboneConfig,
    DinoV3,
    RotaryEmbedding,
)
from unim2_core.model.checkpoints import load_backbone

SMALL = BackboneConfig("small", embed_dim=128, depth=3, num_heads=2, ffn_dim=256)
GATED = replace(SMALL, name="small_gated", gated=True, ffn_dim=192)
SIZES = [(64, 64), (96, 160), (224, 112), (48, 336)]
# Float32 through three blocks; a wrong rotation, order or epsilon is out by 1e-2 or more.
TOLERANCE = 5e-6


def randomise(module: torch.nn.Module) -> None:
    """Give every parameter a value that matters, at a scale where attention is not uniform."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = "norm" in name and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if is_scale else 0.15 * noise)


@pytest.fixture(scope="module")
def torchvision_operators() -> Iterator[None]:
    """Let timm and transformers import a torchvision whose wheel was built for another torch.

    Its compiled part is not loaded then, and its import fails at the first operator that it
    describes. Nothing here calls these operators, so it is enough that they are declared.
    """
    library = torch.library.Library("torchvision", "FRAGMENT")
    try:
        importlib.import_module("torchvision")
    except ImportError:
        pass
    except RuntimeError:
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    yield
    del library


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def images(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(2))


@pytest.mark.usefixtures("torchvision_operators")
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("config", [SMALL, GATED], ids=lambda config: config.name)
def test_equal_to_transformers(
    config: BackboneConfig, size: tuple[int, int], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers not compared")
    theirs = transformers.DINOv3ViTModel(
        transformers.DINOv3ViTConfig(
            hidden_size=config.embed_dim,
            intermediate_size=config.ffn_dim,
            num_hidden_layers=config.depth,
            num_attention_heads=config.num_heads,
            num_register_tokens=config.n_storage,
            use_gated_mlp=config.gated,
            hidden_act="silu" if config.gated else "gelu",
        )
    ).eval()
    randomise(theirs)
    theirs.save_pretrained(tmp_path)
    ours = load_backbone(tmp_path / "model.safetensors", config)
    features = ours.forward_features(images(*size))
    with torch.no_grad():
        expected = theirs(images(*size)).last_hidden_state
    patches = features.layers[-1].flatten(1, 2)
    found = torch.cat([features.cls[:, None], features.storage, patches], dim=1)
    error = relative(found, expected)
    print(f"{config.name} {size}: max relative error against transformers {error:.1e}")
    assert error < TOLERANCE


@pytest.mark.usefixtures("torchvision_operators")
@pytest.mark.parametrize("config", [SMALL, GATED], ids=lambda config: config.name)
@pytest.mark.parametrize("biases", ["", "_qkvb"], ids=["without biases", "with biases"])
def test_equal_to_timm(config: BackboneConfig, biases: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", reason="timm not compared")
    # Compared at the size that theirs is made for, the one at which it is right exported as well.
    plus = "_plus" if config.gated else ""
    theirs = timm.create_model(
        f"vit_small{plus}_patch16_dinov3{biases}",
        embed_dim=config.embed_dim,
        depth=config.depth,
        num_heads=config.num_heads,
        mlp_ratio=config.ffn_dim / config.embed_dim,
        img_size=(96, 160),
    ).eval()
    randomise(theirs)
    save_model(theirs, str(tmp_path / "model.safetensors"))
    ours = load_backbone(tmp_path / "model.safetensors", config)
    with torch.no_grad():
        expected = theirs.forward_features(images(96, 160))
    features = ours.forward_features(images(96, 160))
    patches = features.layers[-1].flatten(1, 2)
    found = torch.cat([features.cls[:, None], features.storage, patches], dim=1)
    error = relative(found, expected)
    print(f"{config.name}{biases} (96, 160): max relative error against timm {error:.1e}")
    assert error < TOLERANCE


def test_rotary_angles_follow_the_formula() -> None:
    h, w, head_dim = 3, 5, 16
    sin, cos = RotaryEmbedding(head_dim)(h, w)
    for row in range(h):
        for column in range(w):
            for i in range(head_dim // 4):
                period = 100 ** (2 * i / (head_dim / 2))
                y = 2 * math.pi * ((row + 0.5) / h * 2 - 1) / period
                x = 2 * math.pi * ((column + 0.5) / w * 2 - 1) / period
                patch = row * w + column
                assert sin[patch, i] == pytest.approx(math.sin(y), abs=1e-5)
                assert cos[patch, head_dim // 4 + i] == pytest.approx(math.cos(x), abs=1e-5)


def slow_attention(attention: Attention, x: np.ndarray, sin: np.ndarray, cos: np.ndarray) -> Any:
    """One image, (N, D) float64: head by head, token by token."""
    n, d = x.shape
    size = d // attention.num_heads
    weight = attention.qkv.weight.double().numpy()
    bias = (attention.qkv.bias * attention.qkv.bias_mask).double().numpy()
    out = np.zeros((n, d))
    for head in range(attention.num_heads):
        rows = [slice(part * d + head * size, part * d + (head + 1) * size) for part in range(3)]
        q, k, v = (x @ weight[r].T + bias[r] for r in rows)
        for tokens in (q, k):
            for t in range(n):
                turned = np.concatenate([-tokens[t, size // 2 :], tokens[t, : size // 2]])
                tokens[t] = tokens[t] * np.tile(cos[t], 2) + turned * np.tile(sin[t], 2)
        for t in range(n):
            scores = np.exp(k @ q[t] / math.sqrt(size))
            out[t, head * size : (head + 1) * size] = scores @ v / scores.sum()
    weight, bias = attention.proj.weight.double().numpy(), attention.proj.bias.double().numpy()
    return out @ weight.T + bias


def test_attention_equals_a_slow_one() -> None:
    attention = Attention(SMALL)
    randomise(attention)
    attention.requires_grad_(False)
    sin, cos = RotaryEmbedding(SMALL.embed_dim // SMALL.num_heads)(3, 4)
    x = torch.randn(1, 12, SMALL.embed_dim, generator=torch.Generator().manual_seed(3))
    expected = slow_attention(attention, x[0].double().numpy(), sin.numpy(), cos.numpy())
    found = attention(x, sin, cos)[0].numpy()
    assert np.abs(found - expected).max() / np.abs(expected).max() < TOLERANCE


def test_keys_have_no_bias() -> None:
    backbone = DinoV3(SMALL)
    randomise(backbone)
    before = backbone(images(48, 64))
    d = SMALL.embed_dim
    with torch.no_grad():
        for block in backbone.blocks:
            block.attn.qkv.bias[d : 2 * d] += 5.0
    assert torch.equal(backbone(images(48, 64)), before)


def test_last_layers_are_concatenated_earliest_first() -> None:
    three = DinoV3(SMALL, n_layers=3)
    randomise(three)
    one = DinoV3(SMALL)
    one.load_state_dict(three.state_dict())
    tokens = three(images(64, 96))
    assert tokens.shape == (2, 4, 6, three.embed_dim) == (2, 4, 6, 3 * SMALL.embed_dim)
    last = one(images(64, 96))
    assert torch.equal(tokens[..., -SMALL.embed_dim :], last)
    features = one.forward_features(images(64, 96), n_layers=2)
    assert len(features.layers) == 2
    assert torch.equal(tokens[..., SMALL.embed_dim :], torch.cat(features.layers, dim=-1))
    assert not torch.allclose(features.layers[0], features.layers[1], atol=0.1)


@pytest.mark.parametrize(
    ("name", "parameters"),
    # The published sizes: 21.6, 28.7, 85.7 and 303.1 million.
    [
        ("dinov3_vits16", 21.6),
        ("dinov3_vits16plus", 28.7),
        ("dinov3_vitb16", 85.7),
        ("dinov3_vitl16", 303.1),
    ],
)
def test_sizes_are_the_published_ones(name: str, parameters: float) -> None:
    with torch.device("meta"):
        backbone = DinoV3(BACKBONES[name])
    count = sum(parameter.numel() for parameter in backbone.parameters())
    assert count / 1e6 == pytest.approx(parameters, abs=0.06)
    assert backbone.config.name == name


def test_frozen_and_the_same_in_training_mode() -> None:
    backbone = DinoV3(SMALL)
    assert not backbone.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    randomise(backbone)
    before = backbone(images(32, 32))
    assert torch.equal(backbone.train()(images(32, 32)), before)


@pytest.mark.parametrize("shape", [(2, 3, 64, 60), (2, 3, 63, 64), (2, 1, 64, 64), (3, 64, 64)])
def test_images_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="multiples of 16"):
        DinoV3(SMALL)(torch.zeros(shape))
