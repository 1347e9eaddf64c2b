"""From a training-free model to a bundle: graphs, weights, stored answers (needs torch)."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unim2_core.inference.export import export_module
from unim2_core.learning.training_free import TrainingFreeModel
from unim2_core.model.bundle import BACKBONE, HEAD, Bundle
from unim2_core.model.heads import ClusterHead
from unim2_core.sensing.modalities import MODALITIES


def write_cluster_bundle(
    out: Path,
    model: TrainingFreeModel,
    network: nn.Module,
    graph: Path,
    *,
    overwrite: bool = False,
) -> Bundle:
    """Write the bundle of a clustered drive.

    Args:
        out: the bundle to write.
        model: what was learnt.
        network: the backbone in torch, whose answers are stored.
        graph: the backbone as ONNX.
        overwrite: replace a bundle of that name.

    Raises:
        ModelError: the place is taken.
        Unim2Error: it cannot be written to.
    """
    manifest = model.manifest
    head = ClusterHead(manifest.backbone.patch_size, manifest.stride)
    weights = model.clusters.weights()

    def fill(folder: Path) -> Mapping[str, NDArray[Any]]:
        shutil.copyfile(graph, folder / BACKBONE)
        export_head(head, folder / HEAD, weights)
        return _answers(network, head, weights, model)

    return Bundle.write(out, manifest, weights, fill, overwrite=overwrite)


def export_head(head: nn.Module, path: Path, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Write the head's graph; grid size and number of clusters stay dynamic.

    Args:
        head: a module like ``ClusterHead``.
        path: the ONNX file to write.
        weights: its inputs apart from tokens and presence; only their shapes matter.
    """
    modalities, width = weights["mean"].shape
    example: dict[str, Tensor] = {
        "tokens": torch.rand(modalities, 6, 7, width),
        "presence": torch.ones(modalities),
        **{name: torch.from_numpy(array) for name, array in weights.items()},
    }
    clusters = torch.export.Dim("clusters", min=2)
    export_module(
        head,
        path,
        example,
        outputs=("classes", "confidence"),
        dynamic={
            **dict.fromkeys(example),
            "tokens": {1: torch.export.Dim("rows"), 2: torch.export.Dim("columns")},
            "prototypes": {0: clusters},
            "valid": {0: clusters},
        },
    )


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
        torch.ones(len(images)),
        **{name: torch.from_numpy(array) for name, array in weights.items()},
    )
    return {"images": images, "tokens": tokens.numpy(), "classes": classes.numpy()}
