"""From frame sets to a bundle without training: classes, graphs, stored answers (needs torch)."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unim2_core.files import sha256
from unim2_core.inference.export import export_backbone, export_module
from unim2_core.inference.onnxruntime import OnnxRuntimeGraph
from unim2_core.learning.training_free import KMeansConfig, TrainingFreeModel, cluster_drive
from unim2_core.model.backbone import DinoV3
from unim2_core.model.bundle import (
    BACKBONE,
    HEAD,
    SUFFIX,
    BackboneEntry,
    Bundle,
    check_place,
)
from unim2_core.model.checkpoints import build_backbone
from unim2_core.model.heads import ClusterHead
from unim2_core.model.segmenter_head import SegmenterHead
from unim2_core.model.texture import TextureFeatures
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.modalities import MODALITIES
from unim2_core.sensing.registrar import Registrar
from unim2_core.sensing.rig import Rig

BASELINE = "texture"
"""Name of the backbone that needs no weights."""


def train_on(
    sets: Iterable[FrameSet],
    rig: Rig,
    out: Path,
    config: KMeansConfig,
    backbone: str = BASELINE,
    *,
    download: bool = False,
    overwrite: bool = False,
) -> Bundle:
    """Find classes in frame sets and write the bundle.

    Args:
        sets: streamed, one is held at a time.
        rig: of their sensors; its extrinsics register them into the reference camera.
        out: the bundle to write.
        config: of the clustering.
        backbone: ``texture``, the name of a DINOv3, or a file of weights.
        download: fetch the backbone's weights where they are missing.
        overwrite: replace a bundle of that name.

    Raises:
        Unim2Error: the weights, the images or the place to write to cannot be used.
    """
    check_place(out, overwrite)
    network, trained = _backbone(backbone, download)
    normalisation = MODALITIES[config.modalities[0]]
    with tempfile.TemporaryDirectory() as scratch:
        graph = Path(scratch, "backbone.onnx")
        export_backbone(network, graph, mean=normalisation.mean, std=normalisation.std)
        run = OnnxRuntimeGraph(graph)
        entry = BackboneEntry(
            name=trained or BASELINE,
            patch_size=network.patch_size,
            embed_dim=network.embed_dim,
            sha256=sha256(graph),
            baseline=trained is None,
        )

        def run_backbone(images: NDArray[np.uint8]) -> NDArray[np.float32]:
            return run({"images": images})["tokens"].astype(np.float32, copy=False)

        name = out.name.removesuffix(SUFFIX)
        model = cluster_drive(sets, Registrar(rig), entry, run_backbone, config, name)
        head = ClusterHead(network.patch_size, config.stride)
        weights = model.clusters.weights()

        def fill(folder: Path) -> Mapping[str, NDArray[Any]]:
            shutil.copyfile(graph, folder / BACKBONE)
            export_head(head, folder / HEAD, weights)
            return _answers(network, head, weights, model)

        return Bundle.write(out, model.manifest, weights, fill, overwrite=overwrite)


def _backbone(name: str, download: bool) -> tuple[TextureFeatures | DinoV3, str | None]:
    """The network, and its architecture's name where it has trained weights."""
    if name == BASELINE:
        return TextureFeatures(), None
    network = build_backbone(name, download=download)
    return network, network.config.name


def export_head(head: nn.Module, path: Path, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Write the head's graph; grid size and number of clusters stay dynamic.

    Args:
        head: ``ClusterHead`` or ``SegmenterHead``.
        path: the ONNX file to write.
        weights: its inputs apart from tokens and presence; only their shapes matter.
    """
    modalities, width = weights["mean"].shape
    inputs = _inputs(
        torch.rand(modalities, 6, 7, width), torch.ones(modalities, 6, 7), weights, head
    )
    clusters = torch.export.Dim("clusters", min=2)
    grid = {1: torch.export.Dim("rows"), 2: torch.export.Dim("columns")}
    export_module(
        head,
        path,
        inputs,
        outputs=("classes", "confidence"),
        dynamic={
            **dict.fromkeys(inputs),
            "tokens": grid,
            "presence": grid,
            "prototypes": {0: clusters},
            "valid": {0: clusters},
        },
    )


def _inputs(
    tokens: Tensor, presence: Tensor, weights: Mapping[str, NDArray[np.float32]], head: nn.Module
) -> dict[str, Tensor | dict[str, Tensor]]:
    """What ``forward`` of a head takes, by name; the network's weights are one mapping."""
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    if not isinstance(head, SegmenterHead):
        return {"tokens": tokens, "presence": presence, **tensors}
    own = ("mean", "scale", "prototypes", "valid", "full_margin")
    network = {name: tensor for name, tensor in tensors.items() if name not in own}
    return {
        "tokens": tokens,
        "presence": presence,
        **{name: tensors[name] for name in own},
        "weights": network,
    }


@torch.inference_mode()
def _answers(
    network: nn.Module,
    head: nn.Module,
    weights: Mapping[str, NDArray[np.float32]],
    model: TrainingFreeModel,
) -> dict[str, NDArray[Any]]:
    images = model.sample.images
    first = MODALITIES[model.manifest.modalities[0].name]
    tokens = torch.cat(
        [network(torch.from_numpy(first.normalize(image))[None]) for image in images]
    )
    classes, _ = head(
        tokens,
        torch.ones(tokens.shape[:3]),
        **{name: torch.from_numpy(array) for name, array in weights.items()},
    )
    return {"images": images, "tokens": tokens.numpy(), "classes": classes.numpy()}
