"""A model on a small DINOv3 of random weights, for tests of engines; needs torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from unim2_core.data.pictures import Picture
from unim2_core.inference.bundling import Trained, write_bundle
from unim2_core.learning.methods import recipe
from unim2_core.model.backbone import BackboneConfig, DinoV3
from unim2_core.model.bundle import Bundle
from unim2_core.model.classifier import Classifier
from unim2_core.model.frozen import FrozenBackbone
from unim2_core.model.heads import ClusterHead
from unim2_core.model.segmenter import Segmenter
from unim2_core.model.segmenter_head import SegmenterHead
from unim2_core.sensing.modalities import Encoder

NAMES = ("rgb", "thermal")
SIZE, CLUSTERS, STRIDE = (64, 96), 5, 2
MINI = BackboneConfig("mini", embed_dim=64, depth=2, num_heads=2, ffn_dim=128)


class Scenes:
    """One picture of patches of one colour each, so that places differ."""

    modalities = NAMES
    encodings: ClassVar = {name: Encoder(name).describe() for name in NAMES}
    size = SIZE

    def fingerprint(self) -> str:
        return "scenes"

    def __iter__(self) -> Iterator[Picture]:
        yield Picture("scene", dict(zip(NAMES, images(), strict=True)))


def images(size: tuple[int, int] = SIZE, seed: int = 0) -> np.ndarray:
    """(M, H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (len(NAMES), size[0] // 8, size[1] // 8, 3), np.uint8)
    return patches.repeat(8, axis=1).repeat(8, axis=2)


def backbone() -> FrozenBackbone:
    network = DinoV3(MINI)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():  # attention far from uniform
            parameter.copy_(0.25 * torch.randn(parameter.shape, generator=generator))
    return FrozenBackbone.of(network, MINI.name)


def network(frozen: FrozenBackbone) -> Trained:
    """A network of random weights, whose places fall into several clusters."""
    torch.manual_seed(0)
    form = recipe("unim2", NAMES, frozen.embed_dim, CLUSTERS).network
    shape = (len(NAMES), frozen.embed_dim)
    segmenter = Segmenter(form)
    torch.nn.init.normal_(segmenter.fusion.stand_in, std=0.1)
    classifier = Classifier(
        segmenter, torch.randn(CLUSTERS, form.code_dim), torch.zeros(shape), torch.ones(shape)
    )
    tokens = {
        name: torch.from_numpy(frozen(image[None]))
        for name, image in zip(NAMES, images(), strict=True)
    }
    codes = classifier.codes(tokens).detach().permute(0, 2, 3, 1).flatten(0, 2)
    mean = torch.nn.functional.normalize(codes.mean(dim=0), dim=0)
    apart = codes - (codes @ mean)[:, None] * mean  # what places do not have in common
    chosen = apart[:: len(apart) // CLUSTERS][:CLUSTERS]
    classifier.prototypes = torch.nn.functional.normalize(chosen, dim=1)
    head = SegmenterHead(form, frozen.patch_size, STRIDE)
    return Trained(head, classifier.head_inputs(0.25), "random", {}, form)


def clusters(frozen: FrozenBackbone) -> Trained:
    """Some places as the centres."""
    tokens = np.stack([frozen(image[None])[0] for image in images()])
    flat = tokens.reshape(len(NAMES), -1, tokens.shape[-1])
    mean, scale = flat.mean(axis=1), 1 / flat.std(axis=1)
    places = (flat - mean[:, None]) * scale[:, None]
    places /= np.linalg.norm(places, axis=2, keepdims=True)
    chosen = places[:, :: places.shape[1] // CLUSTERS][:, :CLUSTERS]
    weights: dict[str, Any] = {
        "mean": mean,
        "scale": scale,
        "prototypes": chosen.transpose(1, 0, 2) / np.sqrt(len(NAMES)),
        "valid": np.ones(CLUSTERS),
        "full_margin": np.array(0.25),
    }
    weights = {name: np.ascontiguousarray(part, np.float32) for name, part in weights.items()}
    weights["full_margin"] = weights["full_margin"].reshape(())
    return Trained(ClusterHead(frozen.patch_size, STRIDE), weights, "clusters", {})


def write_model(path: Path, kind: str = "network") -> Bundle:
    """``network`` or ``clusters``."""
    torch.set_num_threads(1)
    frozen = backbone()
    trained = {"network": network, "clusters": clusters}[kind](frozen)
    return write_bundle(path, Scenes(), frozen, trained)
