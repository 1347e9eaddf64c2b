"""Models trained by the reference release: its Lightning checkpoints, read safely and by shape.

What the network looks like is read off the names and shapes of its tensors; the options that the
file also holds are never looked at, and what they are made of is never run.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unim2_core.errors import ModelError, cause
from unim2_core.model.backbone import DinoV3
from unim2_core.model.fusion import FusionKind, Normalization
from unim2_core.model.probes import ClusterProbe, LinearProbe
from unim2_core.model.release_backbone import release_backbone
from unim2_core.model.release_keys import segmenter_state
from unim2_core.model.segmenter import Segmenter, SegmenterConfig

NETWORK = "net."
BACKBONE = "net.model."
UNUSED = ("decoder.", "train_cluster_probe.")
"""Beginnings of what a checkpoint holds beside the model: only training used it."""


class Discarded:
    """Stands in for the options' classes while a checkpoint is read: keeps nothing."""

    def __init__(self, *_: object) -> None:
        """Ignore what it would be made of."""

    def __setstate__(self, state: object) -> None:
        """Ignore what it would hold."""


DISCARDED = (
    *(f"omegaconf.base.{name}" for name in ("Metadata", "ContainerMetadata")),
    *(
        f"omegaconf.nodes.{kind}Node"
        for kind in ("Any", "Boolean", "Bytes", "Float", "Integer", "Path", "String")
    ),
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "typing.Any",
    "collections.defaultdict",
    *(f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str")),
)
"""All that a checkpoint may name beside tensors; each becomes ``Discarded``."""


@dataclass(frozen=True, eq=False)
class ReleaseModel:
    """A model of the release, in evaluation mode.

    Attributes:
        backbone: frozen.
        segmenter: the trained network.
        cluster_probe: K centres, and extra ones if it has any.
        linear_probe: K classes, learnt from labels.
    """

    backbone: DinoV3
    segmenter: Segmenter
    cluster_probe: ClusterProbe
    linear_probe: LinearProbe


def import_release(
    path: Path,
    *,
    modalities: tuple[str, ...] | None = None,
    fusion: FusionKind | None = None,
    normalization: Normalization = "l2",
    residual: bool = False,
) -> ReleaseModel:
    """Read a checkpoint of the release.

    Args:
        path: a Lightning ``.ckpt``.
        modalities: what to call the modalities, in their order; an older file says ``depth`` for
            thermal. None keeps its names.
        fusion: needed where it cannot be seen: sum, mean and max have no tensors.
        normalization: of the modalities before fusion; it has no tensors either.
        residual: whether modality networks add their input; likewise.

    Raises:
        ModelError: it is not such a file, is damaged, or names what must not be run.
    """
    return model_of(_tensors(path), modalities, fusion, normalization, residual)


def model_of(
    tensors: Mapping[str, Tensor],
    modalities: tuple[str, ...] | None = None,
    fusion: FusionKind | None = None,
    normalization: Normalization = "l2",
    residual: bool = False,
) -> ReleaseModel:
    """Build the model that a state dict describes; arguments as in ``import_release``.

    Raises:
        ModelError: a tensor is missing, unexpected or of another shape.
    """
    names = dict.fromkeys(_modality(name) for name in tensors if "modality_networks." in name)
    old = tuple(names) or ("rgb",)
    new = modalities or old
    if len(new) != len(old):
        raise ModelError(
            "the checkpoint is of another number of modalities",
            expected=f"new names for {', '.join(old)}",
            found=", ".join(new),
            remedy="name as many, in the order of the checkpoint",
        )
    feature_dim, code_dim = _shape(tensors, "net.cluster1.0.weight")[1::-1]
    harmonized = "net.modal_projection_head.0.weight" in tensors
    segmenter = Segmenter(
        SegmenterConfig(
            modalities=new,
            feature_dim=feature_dim,
            code_dim=code_dim,
            fusion=_fusion(tensors, fusion) if len(old) > 1 else "conv",
            normalization=normalization,
            residual=residual,
            projection="nonlinear" if "net.cluster2.0.weight" in tensors else "linear",
            harmonizer="shared" if harmonized else "none",
        )
    )
    width = _shape(tensors, f"{BACKBONE}cls_token")[-1]
    cluster = ClusterProbe(code_dim, _shape(tensors, "cluster_probe.clusters")[0])
    linear = LinearProbe(code_dim, _shape(tensors, "linear_probe.weight")[0])
    network = {
        _renamed(name, dict(zip(old, new, strict=True))): tensor
        for name, tensor in tensors.items()
        if name.startswith(NETWORK) and not name.startswith(BACKBONE)
    }
    _load(segmenter, segmenter_state(network, NETWORK))
    _load(cluster, {"centers": tensors["cluster_probe.clusters"]})
    _load(linear, segmenter_state(tensors, "linear_probe."))
    known = (NETWORK, "cluster_probe.", "linear_probe.", *UNUSED)
    unexpected = [name for name in tensors if not name.startswith(known)]
    if unexpected:
        raise _misfit(f"nothing like {unexpected[0]}", f"{len(unexpected)} such tensors")
    return ReleaseModel(
        release_backbone(tensors, BACKBONE, feature_dim // width),
        segmenter.eval(),
        cluster.eval(),
        linear.eval(),
    )


def _tensors(path: Path) -> dict[str, Tensor]:
    try:
        with torch.serialization.safe_globals([(Discarded, name) for name in DISCARDED]):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = [line for line in str(error).splitlines() if "GLOBAL" in line]
        found = named[0].split(" was not")[0].strip() if named else "a damaged pickle"
        raise _unreadable(path, found) from error
    except Exception as error:  # what a text means to an unpickler may be any mistake
        known = isinstance(error, OSError | RuntimeError | EOFError)
        raise _unreadable(path, cause(error) if known else "no zip and no pickle") from error
    state = content.get("state_dict") if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(t, Tensor) for t in state.values()):
        raise _unreadable(path, "no state_dict of tensors")
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise _unreadable(path, f"{name} with values that are not finite")
    return dict(state)


def _unreadable(path: Path, found: str) -> ModelError:
    return ModelError(
        f"cannot read a checkpoint of the reference release from {path}",
        expected="a Lightning checkpoint of tensors, numbers and omegaconf options",
        found=found,
        remedy="check the file; a pickle that needs code to be read is never opened",
    )


def _modality(name: str) -> str:
    return name.partition("modality_networks.")[2].partition(".")[0]


def _renamed(name: str, names: Mapping[str, str]) -> str:
    before, found, after = name.partition("modality_networks.")
    if not found:
        return name
    modality, _, rest = after.partition(".")
    return f"{before}{found}{names[modality]}.{rest}"


def _fusion(tensors: Mapping[str, Tensor], given: FusionKind | None) -> FusionKind:
    if "net.fusion_conv.1.running_mean" in tensors:
        return "progressive"
    if "net.fusion_conv.0.weight" in tensors:
        return "conv"
    if given is None:
        raise ModelError(
            "the checkpoint does not show how it fuses modalities",
            expected="fusion layers, or to be told which of sum, mean and max it is",
            found="no fusion layers",
            remedy="say which fusion it was trained with: --fusion sum, mean or max",
        )
    return given


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in tensors or tensors[name].ndim < 2:
        raise _misfit(f"a tensor {name}", "a vector" if name in tensors else "none")
    return tuple(tensors[name].shape)


def _load(module: torch.nn.Module, state: Mapping[str, Tensor]) -> None:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        problem = str(error).splitlines()[1].strip()
        raise _misfit(f"the tensors of a {type(module).__name__}", problem) from error


def _misfit(expected: str, found: str) -> ModelError:
    return ModelError(
        "the checkpoint is not one of the reference release's models",
        expected=expected,
        found=found,
        remedy="give a checkpoint written by the release's trainer",
    )
