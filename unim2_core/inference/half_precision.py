"""ONNX graphs in half precision, each number's type written into the graph. Needs ``onnx``.

What needs the range or the digits of float32 keeps it: norms, softmax, sums, positions, resizing
and decisions. ONNX Runtime's converter rounds also what goes from one such node to the next; the
angles of the positions would not survive that.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from unim2_core.errors import ModelError, cause

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
EXACT = frozenset(
    (
        *("LayerNormalization", "InstanceNormalization", "Softmax", "Range", "Sin", "Cos"),
        *("Resize", "TopK", "ArgMax", "Pow", "Sqrt", "Reciprocal", "Exp", "Log", "CumSum"),
        *("ReduceL2", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceSumSquare"),
        "AveragePool",
    )
)
"""In float32 wherever they stand."""
POSITIONS = frozenset(("Sin", "Cos"))
"""All that leads to them is in float32."""
PROTOTYPES = "prototypes"
"""The input of a head whose cosines decide: all that follows from it is in float32."""
PRODUCTS = frozenset(("MatMul", "Gemm"))


def halved(content: bytes) -> bytes:
    """An ONNX file in half precision; see ``half``.

    Raises:
        ModelError: it is no ONNX graph.
    """
    return bytes(half(read_graph(content)).SerializeToString(deterministic=True))


def read_graph(content: bytes) -> ModelProto:
    """An ONNX file, checked.

    Raises:
        ModelError: it is no ONNX graph.
    """
    try:
        model = onnx.load_model_from_string(content)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's and onnx's have no common base
        raise ModelError(
            "a graph cannot be read",
            expected="a whole ONNX file",
            found=cause(error),
            remedy="copy the bundle again",
        ) from error
    return model


def half(model: ModelProto) -> ModelProto:
    """A graph in half precision; its inputs and outputs keep their types.

    Args:
        model: a backbone or a head of a bundle; stays as it is.
    """
    typed = onnx.shape_inference.infer_shapes(model)
    _Conversion(typed).run()
    return typed


def exact_nodes(graph: GraphProto) -> set[int]:
    """Numbers of the nodes that compute in float32."""
    nodes = list(graph.node)
    if PROTOTYPES in {value.name for value in graph.input}:
        layers = _layers(nodes) - _following(nodes, PROTOTYPES)
        return set(range(len(nodes))) - layers
    kept = {number for number, node in enumerate(nodes) if node.op_type in EXACT}
    kept |= _leading_to(nodes, {n for n, node in enumerate(nodes) if node.op_type in POSITIONS})
    first = next((n for n, node in enumerate(nodes) if node.op_type == "Conv"), None)
    if first is not None:  # images before they are normalised
        kept |= _leading_to(nodes, {first}) - {first}
    return kept


def _layers(nodes: Sequence[NodeProto]) -> set[int]:
    """Products, and what is done to them at once: a bias, a rectifier, a sum of two."""
    found: set[int] = set()
    made: set[str] = set()
    for number, node in enumerate(nodes):
        after = node.op_type in ("Add", "Relu") and any(name in made for name in node.input)
        if node.op_type in PRODUCTS or after:
            found.add(number)
            made.update(node.output)
    return found


def _following(nodes: Sequence[NodeProto], source: str) -> set[int]:
    found: set[int] = set()
    made = {source}
    for number, node in enumerate(nodes):
        if any(name in made for name in node.input):
            found.add(number)
            made.update(node.output)
    return found


def _leading_to(nodes: Sequence[NodeProto], targets: set[int]) -> set[int]:
    found: set[int] = set()
    wanted: set[str] = set()
    for number in range(len(nodes) - 1, -1, -1):
        if number in targets or any(name in wanted for name in nodes[number].output):
            found.add(number)
            wanted.update(nodes[number].input)
    return found


class _Conversion:
    """Of one model, in place."""

    def __init__(self, model: ModelProto) -> None:
        graph = self._graph = model.graph
        self._initializers = {part.name: part for part in graph.initializer}
        values = (*graph.input, *graph.value_info, *graph.output)
        self._types = {value.name: value.type.tensor_type.elem_type for value in values}
        self._types |= {name: part.data_type for name, part in self._initializers.items()}
        self._renamed: dict[tuple[str, int], str] = {}
        self._nodes: list[NodeProto] = []

    def run(self) -> None:
        graph = self._graph
        exact = exact_nodes(graph)
        outputs = {value.name for value in graph.output}
        float_names = {name for name, kind in self._types.items() if kind == FLOAT}
        for number, node in enumerate(list(graph.node)):
            kind = FLOAT if number in exact else HALF
            for index, name in enumerate(node.input):
                if name in float_names:
                    node.input[index] = self._as(name, kind)
            self._nodes.append(node)
            if kind == FLOAT:
                continue
            for attribute in node.attribute:
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i == FLOAT:
                    attribute.i = HALF
                elif attribute.HasField("t") and attribute.t.data_type == FLOAT:
                    attribute.t.CopyFrom(_half(attribute.t))
            for index, name in enumerate(node.output):
                if name not in float_names:
                    continue
                if name in outputs:
                    node.output[index] = f"{name}_fp16"
                    cast = helper.make_node("Cast", [f"{name}_fp16"], [name], to=FLOAT)
                    self._nodes.append(cast)
                    self._renamed[name, HALF] = f"{name}_fp16"
                else:
                    self._types[name] = HALF
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self._nodes)
        used = {name for node in self._nodes for name in node.input}
        kept = [part for name, part in self._initializers.items() if name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)

    def _as(self, name: str, kind: int) -> str:
        """The same value in another type; made once."""
        if self._types[name] == kind:
            return name
        if (name, kind) not in self._renamed:
            fresh = f"{name}_{'fp16' if kind == HALF else 'fp32'}"
            if name in self._initializers:
                self._initializers[fresh] = _half(self._initializers[name], fresh)
            else:
                self._nodes.append(helper.make_node("Cast", [name], [fresh], to=kind))
            self._renamed[name, kind] = fresh
        return self._renamed[name, kind]


def _half(tensor: TensorProto, name: str = "") -> TensorProto:
    """Rounded; what is beyond the range becomes its end."""
    largest = float(np.finfo(np.float16).max)
    values = numpy_helper.to_array(tensor).clip(-largest, largest)
    return numpy_helper.from_array(values.astype(np.float16), name or tensor.name)
