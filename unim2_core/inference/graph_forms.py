"""Other forms of a bundle's graphs: fixed sizes, another stride, both in one. Needs ``onnx``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, TensorProto, compose, helper, numpy_helper

from unim2_core.errors import ModelError

RESIZES = (4, 2)
"""Of a head: both axes of the scores, the codes' lengths, and what no modality sees; of one that
was made before, maps of scores and what no modality sees."""
Shapes = Mapping[str, tuple[int | None, ...]]
"""Input or output -> its axes; None stays free."""


def fixed(model: ModelProto, shapes: Shapes) -> ModelProto:
    """A graph whose axes are no longer free.

    Args:
        model: stays as it is.
        shapes: of inputs and outputs; those left out stay free.

    Raises:
        ModelError: the result would contradict itself.
    """
    made = ModelProto()
    made.CopyFrom(model)
    for value in (*made.graph.input, *made.graph.output):
        if value.name not in shapes:
            continue
        dims = value.type.tensor_type.shape.dim
        for dim, length in zip(dims, shapes[value.name], strict=True):
            if length is None:
                continue
            if dim.HasField("dim_value") and dim.dim_value != length:
                raise ModelError(
                    f"the graph does not take these {value.name}",
                    expected=f"an axis of {dim.dim_value}",
                    found=str(length),
                    remedy="leave the size out, or use another model",
                )
            dim.dim_value = length
    del made.graph.value_info[:]
    return made


def strided(model: ModelProto, upsampling: int) -> ModelProto:
    """A head that answers so many pixels for each token's side.

    Args:
        model: stays as it is.
        upsampling: patch size / stride.

    Raises:
        ModelError: it is not a head of this version.
    """
    made = ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    resizes = [node for node in graph.node if node.op_type == "Resize"]
    if len(resizes) not in RESIZES:
        raise ModelError(
            "the stride of this head cannot be changed",
            expected=f"a head that resizes in {RESIZES[0]} places",
            found=f"{len(resizes)} of them",
            remedy="train the model again with this version",
        )
    factors = np.array([1, 1, upsampling, upsampling], np.float32)
    graph.initializer.append(numpy_helper.from_array(factors, "upsampling"))
    for node in resizes:
        image = node.input[0]
        del node.input[:]
        node.input.extend([image, "", "upsampling"])
    _prune(made)
    del graph.value_info[:]
    for value in graph.output:
        for dim, name in zip(value.type.tensor_type.shape.dim, ("rows", "columns"), strict=True):
            dim.dim_param = f"{upsampling}*{name}"
    return made


def _prune(model: ModelProto) -> None:
    """Take out what nothing needs any more."""
    graph = model.graph
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted & set(node.output):
            kept.append(node)
            wanted.update(node.input)
    initializers = [part for part in graph.initializer if part.name in wanted]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)


def merged(
    backbone: ModelProto,
    head: ModelProto,
    weights: Mapping[str, NDArray[np.float32]],
    served_as: Mapping[int, int],
) -> ModelProto:
    """One graph from images to classes, all modalities being present and aligned.

    Args:
        backbone: of a bundle.
        head: of the same.
        weights: of the head; they become part of the graph.
        served_as: cluster -> class it is served as; the others have their own number.
    """
    only = {"rename_inputs": False, "rename_outputs": False}
    made = compose.merge_models(
        compose.add_prefix(backbone, "backbone_", **only),
        compose.add_prefix(head, "head_", **only),
        io_map=[("tokens", "tokens")],
        outputs=[value.name for value in head.graph.output],
        producer_name=backbone.producer_name,
    )
    graph = made.graph
    inputs = [value for value in graph.input if value.name == "images"]
    del graph.input[:], graph.value_info[:]
    graph.input.extend(inputs)
    graph.initializer.extend(numpy_helper.from_array(part, name) for name, part in weights.items())
    at = next(n for n, node in enumerate(graph.node) if "tokens" in node.output) + 1
    ones = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    for number, node in enumerate(
        (
            helper.make_node("Shape", ["tokens"], ["grid"], start=0, end=3),
            helper.make_node("ConstantOfShape", ["grid"], ["presence"], value=ones),
        )
    ):
        graph.node.insert(at + number, node)
    if served_as:
        _look_up(graph, served_as)
    onnx.checker.check_model(made, full_check=True)
    return made


def _look_up(graph: GraphProto, served_as: Mapping[int, int]) -> None:
    """Let ``classes`` be what its clusters are served as."""
    at, last = next((n, node) for n, node in enumerate(graph.node) if "classes" in node.output)
    table = np.arange(256, dtype=np.int32)
    table[list(served_as)] = list(served_as.values())
    graph.initializer.append(numpy_helper.from_array(table, "served_as"))
    # Before the cast to uint8, which TensorRT takes from float32 alone, and as an output alone.
    for number, node in enumerate(
        (
            helper.make_node("Cast", [last.input[0]], ["clusters"], to=TensorProto.INT32),
            helper.make_node("Gather", ["served_as", "clusters"], ["class_numbers"]),
            helper.make_node("Cast", ["class_numbers"], ["class_values"], to=TensorProto.FLOAT),
        )
    ):
        graph.node.insert(at + number, node)
    last.input[0] = "class_values"
