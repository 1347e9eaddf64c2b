"""A bundle's graphs as files for other programs, in the form that they ask for. Needs ``onnx``."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, helper
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import save_file

from unim2_core.errors import ModelError
from unim2_core.files import cannot_write, sha256
from unim2_core.inference.graph_forms import fixed, merged, strided
from unim2_core.inference.half_precision import half, read_graph
from unim2_core.inference.onnxruntime import OnnxRuntimeGraph
from unim2_core.inference.parity import EXACT, Parity
from unim2_core.inference.served_heads import HeadWeights
from unim2_core.model import bundle as bundles
from unim2_core.model.bundle import Bundle

BACKBONE, HEAD, FROZEN = "backbone.onnx", "head.onnx", "frozen.onnx"
WEIGHTS, MANIFEST = "head.safetensors", "export.json"
Axes = dict[str, list[int | str]]


@dataclass(frozen=True)
class Form:
    """What the graphs are to be.

    Attributes:
        size: height and width of the images; None leaves all sizes free.
        batch: images that the backbone takes at once.
        precision: of the products; what needs float32 keeps it.
        stride: classes come at one pixel in so many.
        frozen: whether to write one graph of all, too.
    """

    size: tuple[int, int] | None
    batch: int = 1
    precision: Literal["fp32", "fp16"] = "fp32"
    stride: int = 2
    frozen: bool = False


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GraphFile(_Strict):
    """One file; axes are numbers, or names where they are free."""

    sha256: str
    inputs: Axes
    outputs: Axes
    types: dict[str, str]


class ExportManifest(_Strict):
    """What lies beside the graphs, for those who load them."""

    format: Literal[1] = 1
    model: str
    model_sha256: str
    precision: str
    stride: int
    opset: int
    modalities: tuple[bundles.ModalityEntry, ...]
    labels: tuple[bundles.Label, ...]
    served_as: dict[int, int] = Field(
        description="cluster of the head -> class; the one graph has looked it up already"
    )
    graphs: dict[str, GraphFile]
    weights_sha256: str
    parity: dict[str, float]


def export(bundle: Bundle, out: Path, form: Form, overwrite: bool = False) -> ExportManifest:
    """Write graphs, the head's weights and a manifest; all of it or nothing.

    Before sizes and stride are fixed the graphs are run on ONNX Runtime and held against the
    bundle's stored answers.

    Args:
        bundle: the model.
        out: the folder to make.
        form: of the graphs.
        overwrite: replace an earlier export of that name.

    Raises:
        ModelError: the place is taken, a graph cannot be made, or it does not answer as the model.
        Unim2Error: the disk is full or may not be written to.
    """
    _check_place(out, overwrite)
    patch = bundle.manifest.backbone.patch_size
    if patch % form.stride:
        raise ModelError(
            f"this backbone cannot be answered at a stride of {form.stride}",
            expected=f"a stride that divides its patch of {patch} pixels",
            found=str(form.stride),
            remedy="choose another --stride",
        )
    backbone, head = (
        read_graph((bundle.path / name).read_bytes()) for name in (bundles.BACKBONE, bundles.HEAD)
    )
    if form.precision == "fp16":
        backbone, head = half(backbone), half(head)
    parity = _checked(backbone, head, bundle)
    served = bundle.manifest.served
    weights = dict(HeadWeights.padded(bundle.sha256, bundle.weights(), served).inputs)
    made = _formed(backbone, head, form, bundle, weights)

    def fill(folder: Path) -> ExportManifest:
        for name, graph in made.items():
            (folder / name).write_bytes(graph.SerializeToString(deterministic=True))
        save_file(weights, folder / WEIGHTS)
        (folder / WEIGHTS).chmod(0o644)
        manifest = ExportManifest(
            model=bundle.manifest.name,
            model_sha256=bundle.sha256,
            precision=form.precision,
            stride=form.stride,
            opset=backbone.opset_import[0].version,
            modalities=bundle.manifest.modalities,
            labels=bundle.manifest.labels,
            served_as=bundle.manifest.served_as,
            graphs={name: _described(graph, folder / name) for name, graph in made.items()},
            weights_sha256=sha256(folder / WEIGHTS),
            parity=vars(parity),
        )
        (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
        return manifest

    return _written(out, fill)


def _formed(
    backbone: ModelProto,
    head: ModelProto,
    form: Form,
    bundle: Bundle,
    weights: Mapping[str, NDArray[np.float32]],
) -> dict[str, ModelProto]:
    """File name -> graph."""
    manifest = bundle.manifest
    patch, width = manifest.backbone.patch_size, manifest.backbone.embed_dim
    count = len(manifest.modalities)
    head = strided(head, patch // form.stride)
    height, columns = form.size or (None, None)
    grid = tuple(side and side // patch for side in (height, columns))
    out = tuple(side and side // form.stride for side in (height, columns))
    answers = {"classes": out, "confidence": out}
    batch = None if form.size is None else form.batch
    seen = {"images": (batch, height, columns, 3), "tokens": (batch, *grid, width)}
    inputs = {"tokens": (count, *grid, width), "presence": (count, *grid)}
    served = {} if form.size is None else {name: part.shape for name, part in weights.items()}
    made = {BACKBONE: fixed(backbone, seen), HEAD: fixed(head, {**inputs, **served, **answers})}
    if form.frozen:
        whole = merged(backbone, head, bundle.weights(), manifest.served_as)
        made[FROZEN] = fixed(whole, {"images": (count, height, columns, 3), **answers})
    return made


def _written(out: Path, fill: Callable[[Path], ExportManifest]) -> ExportManifest:
    """A folder that is whole or not there."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    except OSError as error:
        raise cannot_write(out, error) from error
    try:
        manifest = fill(draft)
        draft.chmod(0o755)
        if out.exists():
            shutil.rmtree(out)
        draft.rename(out)
    except SafetensorError as error:  # how it says that the disk is full
        raise cannot_write(out, OSError(str(error))) from error
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return manifest


def _check_place(out: Path, overwrite: bool) -> None:
    earlier = (out / MANIFEST).is_file()
    if out.exists() and not (overwrite and earlier):
        raise ModelError(
            f"{out} exists",
            expected="an earlier export to replace" if overwrite else "a path that is free",
            found="an earlier export" if earlier else "something else",
            remedy="choose another --out, or replace an export with --overwrite",
        )


def _checked(backbone: ModelProto, head: ModelProto, bundle: Bundle) -> Parity:
    """How far graphs of free size are from what the model answered.

    Raises:
        ModelError: too far.
    """
    stored = bundle.parity()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in (BACKBONE, HEAD)]
        for path, graph in zip(paths, (backbone, head), strict=True):
            path.write_bytes(graph.SerializeToString())
        images, classify = (OnnxRuntimeGraph(path) for path in paths)
    tokens = np.concatenate(
        [images({"images": image[None]})["tokens"] for image in stored["images"]]
    )
    presence = np.ones(tokens.shape[:3], np.float32)
    classes = classify({"tokens": tokens, "presence": presence, **bundle.weights()})["classes"]
    parity = Parity.of(tokens, classes.astype(np.uint8), stored)
    if not EXACT.passes(parity):
        raise ModelError(
            f"the graphs do not answer as {bundle.path} does",
            expected=f"{EXACT} or more",
            found=str(parity),
            remedy="use --precision fp32, or train the model again",
        )
    return parity


def _described(graph: ModelProto, path: Path) -> GraphFile:
    values = (*graph.graph.input, *graph.graph.output)
    axes: Axes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in values
    }
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    return GraphFile(
        sha256=sha256(path),
        inputs={value.name: axes[value.name] for value in graph.graph.input},
        outputs={value.name: axes[value.name] for value in graph.graph.output},
        types={name: helper.tensor_dtype_to_np_dtype(kind).name for name, kind in kinds.items()},
    )
