"""From what was learnt to a bundle: graphs, weights, stored answers (needs torch)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from torch import Tensor, nn

from unim2_core.data.pictures import PictureSource
from unim2_core.errors import ModelError
from unim2_core.files import sha256
from unim2_core.inference.export import export_backbone, export_module
from unim2_core.learning.kmeans import Clusters
from unim2_core.learning.learner import Learned
from unim2_core.learning.memory import Memory
from unim2_core.model.bundle import (
    BACKBONE,
    HEAD,
    MEMORY,
    NETWORK,
    SUFFIX,
    TRAINING,
    BackboneEntry,
    Bundle,
    Label,
    Manifest,
    ModalityEntry,
    check_place,
)
from unim2_core.model.frozen import FrozenBackbone
from unim2_core.model.heads import ClusterHead
from unim2_core.model.segmenter import SegmenterConfig
from unim2_core.model.segmenter_head import SegmenterHead, head_inputs
from unim2_core.sensing.modalities import MODALITIES
from unim2_core.showing.palette import distinct_colors

STRIDE = 2
"""The head answers at one encoded pixel in so many."""
LOOKED_AT = 20
"""Pictures among which one with every modality is looked for."""


@dataclass(frozen=True, eq=False)
class Trained:
    """What goes into a bundle beside the backbone.

    Attributes:
        head: the module of the head's graph.
        weights: its inputs apart from tokens and presence.
        method: how it was learnt, for the manifest.
        training: facts for the manifest; JSON types only.
        network: form of the network, where there is one.
        state: all that was trained, to go on from.
        memory: some of the features that it was trained on.
    """

    head: nn.Module
    weights: Mapping[str, NDArray[np.float32]]
    method: str
    training: Mapping[str, Any]
    network: SegmenterConfig | None = None
    state: Mapping[str, Tensor] | None = None
    memory: Memory | None = None

    @classmethod
    def network_of(
        cls,
        learned: Learned,
        backbone: FrozenBackbone,
        method: str,
        memory: Memory | None = None,
    ) -> Trained:
        """A network that was trained."""
        config = learned.classifier.segmenter.config
        return cls(
            SegmenterHead(config, backbone.patch_size, stride_of(backbone)),
            learned.classifier.head_inputs(learned.full_margin),
            method,
            learned.report | {"shares": _rounded(learned.shares)},
            config,
            learned.objective.state_dict(),
            memory,
        )

    @classmethod
    def clusters_of(cls, clusters: Clusters, backbone: FrozenBackbone, method: str) -> Trained:
        """Clusters that were found without training."""
        return cls(
            ClusterHead(backbone.patch_size, stride_of(backbone)),
            clusters.weights(),
            method,
            {"shares": _rounded(clusters.shares)},
        )


def stride_of(backbone: FrozenBackbone) -> int:
    """At one encoded pixel in how many the head answers."""
    return min(STRIDE, backbone.patch_size)


def _save(state: Mapping[str, Tensor], path: Path) -> None:
    save_file({name: part.detach().cpu().contiguous() for name, part in state.items()}, path)


def _rounded(shares: NDArray[np.floating[Any]]) -> list[float]:
    return [round(float(share), 4) for share in shares]


def write_bundle(
    out: Path,
    source: PictureSource,
    backbone: FrozenBackbone,
    trained: Trained,
    facts: Mapping[str, Any] | None = None,
    registration: Mapping[str, str] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write a model that a robot runs.

    Args:
        out: the bundle to write, NAME.unim2.
        source: pictures as the robot will see them: whole, at the size to infer at.
        backbone: the frozen network that the features came from.
        trained: the rest.
        facts: more about the training, for the manifest; JSON types only.
        registration: sensor -> how it was registered; may be filled while ``source`` is read.
        overwrite: replace a bundle of that name.

    Raises:
        ModelError: the place is taken, or the source has no picture.
        Unim2Error: the disk is full or may not be written to.
    """
    check_place(out, overwrite)
    names = list(source.modalities)
    if trained.network is not None:
        names = list(trained.network.modalities)
    images = _example(source, names)
    entries = tuple(
        ModalityEntry(
            name=name,
            sensor=MODALITIES[str(source.encodings[name]["modality"])].sensor,
            encoding=dict(source.encodings[name]),
        )
        for name in names
    )
    clusters = len(trained.weights["prototypes"])

    def manifest(graph: Path) -> Manifest:
        return Manifest(
            name=out.name.removesuffix(SUFFIX),
            reference=entries[0].sensor,
            modalities=entries,
            backbone=BackboneEntry(
                name=backbone.name,
                patch_size=backbone.patch_size,
                embed_dim=backbone.embed_dim,
                sha256=sha256(graph),
                baseline=backbone.baseline,
            ),
            method=trained.method,
            infer_size=source.size,
            stride=stride_of(backbone),
            labels=tuple(
                Label(id=index, name=f"cluster {index}", color=color)
                for index, color in enumerate(distinct_colors(clusters))
            ),
            training={
                **(facts or {}),
                **trained.training,
                **({"memory": trained.memory.summary} if trained.memory else {}),
                **({"registration": dict(registration)} if registration else {}),
            },
            network=None if trained.network is None else asdict(trained.network),
        )

    def fill(folder: Path) -> tuple[Manifest, Mapping[str, NDArray[Any]]]:
        normalisation = MODALITIES["rgb"]  # of all modalities: the backbone was trained with it
        export_backbone(
            backbone.network, folder / BACKBONE, mean=normalisation.mean, std=normalisation.std
        )
        export_head(trained.head, folder / HEAD, trained.weights)
        _save(backbone.network.state_dict(), folder / NETWORK)
        if trained.state is not None:
            _save(trained.state, folder / TRAINING)
        if trained.memory is not None:
            save_arrays(trained.memory.tensors(), folder / MEMORY)
        return manifest(folder / BACKBONE), _answers(backbone, trained, images)

    return Bundle.write(out, fill, trained.weights, overwrite=overwrite)


def _example(source: PictureSource, names: Sequence[str]) -> NDArray[np.uint8]:
    """(M, H, W, 3) uint8: the first picture with every modality, else what there is."""
    best: NDArray[np.uint8] | None = None
    most = -1
    for count, picture in enumerate(source):
        there = [name for name in names if name in picture.images]
        if len(there) > most:
            most = len(there)
            best = np.zeros((len(names), *source.size, 3), np.uint8)
            for index, name in enumerate(names):
                if name in picture.images:
                    best[index] = picture.images[name]
        if most == len(names) or count + 1 >= LOOKED_AT:
            break
    if best is None:
        raise ModelError(
            "there is no picture to hold the engine against",
            expected="at least one picture",
            found="none",
            remedy="look at the streams with: unim2 info BAG",
        )
    return best


def export_head(head: nn.Module, path: Path, weights: Mapping[str, NDArray[np.float32]]) -> None:
    """Write the head's graph; grid size and number of clusters stay dynamic.

    Args:
        head: ``ClusterHead`` or ``SegmenterHead``.
        path: the ONNX file to write.
        weights: its inputs apart from tokens and presence; only their shapes matter.
    """
    modalities, width = weights["mean"].shape
    inputs = head_arguments(
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


def head_arguments(
    tokens: Tensor, presence: Tensor, weights: Mapping[str, NDArray[np.float32]], head: nn.Module
) -> dict[str, Tensor | dict[str, Tensor]]:
    """What ``forward`` of a head takes, by name; the network's weights are one mapping."""
    tensors = {name: torch.from_numpy(array) for name, array in weights.items()}
    return head_inputs(head, {"tokens": tokens, "presence": presence, **tensors})


@torch.inference_mode()
def _answers(
    backbone: FrozenBackbone, trained: Trained, images: NDArray[np.uint8]
) -> dict[str, NDArray[Any]]:
    """What an engine must answer to these images."""
    tokens = np.concatenate([backbone(image[None]) for image in images])
    classes = classes_of(trained.head, trained.weights, tokens)
    return {"images": images, "tokens": tokens, "classes": classes}


@torch.inference_mode()
def classes_of(
    head: nn.Module, weights: Mapping[str, NDArray[np.float32]], tokens: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """What a head answers to the tokens (M, h, w, D) of all modalities: (H, W) uint8."""
    presence = torch.ones(tokens.shape[:3])
    classes, _ = head(**head_arguments(torch.from_numpy(tokens), presence, weights, head))
    return np.asarray(classes.numpy(), np.uint8)
