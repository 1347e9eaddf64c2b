"""Torch networks to ONNX graphs, one self-contained file each. Needs torch; a robot does not."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from unim2_core.errors import ModelError
from unim2_core.files import write_atomically

OPSET = 18
PROTOBUF_LIMIT_BYTES = 2**31 - 1
"""What one ONNX file can hold; protobuf counts its bytes in 31 bits."""


class NormalisedBackbone(nn.Module):
    """A backbone that takes images as cameras give them.

    Args:
        backbone: (B, 3, H, W) normalised -> (B, h, w, D).
        mean: of red, green and blue in [0, 1].
        std: of red, green and blue in [0, 1].
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, backbone: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.backbone = backbone
        # (x / 255 - mean) / std as one multiplication and one addition, made in float64.
        mean64, std64 = (torch.tensor(list(values), dtype=torch.float64) for values in (mean, std))
        self.register_buffer("scale", (1 / (255 * std64)).float())
        self.register_buffer("offset", (-mean64 / std64).float())

    def forward(self, images: Tensor) -> Tensor:
        """(M, H, W, 3) uint8 -> (M, h, w, D) float32."""
        normalised = images.float() * self.scale + self.offset
        tokens: Tensor = self.backbone(normalised.permute(0, 3, 1, 2))
        return tokens


def export_backbone(
    backbone: nn.Module,
    path: Path,
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> None:
    """Write a backbone as an ONNX graph: ``images`` in, ``tokens`` out.

    ``images`` is (M, H, W, 3) uint8, ``tokens`` (M, H / patch, W / patch, D) float32. M, H and W
    are free; the normalisation is part of the graph.

    Args:
        backbone: maps (B, 3, H, W) float32, normalised, to (B, h, w, D) float32, and has a
            ``patch_size`` of which H and W are multiples.
        path: the file to write, whole or not at all.
        mean: subtracted from red, green and blue in [0, 1].
        std: divides the difference.

    Raises:
        ModelError: the weights do not fit into one ONNX file.
        Unim2Error: the file cannot be written.
    """
    patch = int(backbone.patch_size)  # type: ignore[arg-type]
    example = torch.zeros(2, 4 * patch, 6 * patch, 3, dtype=torch.uint8)
    rows, columns = torch.export.Dim("rows"), torch.export.Dim("columns")
    export_module(
        NormalisedBackbone(backbone, mean, std).eval(),
        path,
        {"images": example},
        outputs=("tokens",),
        dynamic={"images": {0: torch.export.Dim("M"), 1: patch * rows, 2: patch * columns}},
    )


def export_module(
    module: nn.Module,
    path: Path,
    example: Mapping[str, Tensor | dict[str, Tensor]],
    *,
    outputs: Sequence[str],
    dynamic: Mapping[str, Mapping[int, Any] | None],
) -> None:
    """Write a module as an ONNX graph, whole or not at all.

    Args:
        module: its ``forward`` has the names in ``example`` as arguments.
        path: the file to write.
        example: name of an input -> a tensor; an axis that is to be free is at least 2 long. What
            is a mapping of tensors becomes one input each, of constant size.
        outputs: names, in the order that ``forward`` returns them.
        dynamic: name of an input -> axis -> ``torch.export.Dim``, for the axes that are free.

    Raises:
        ModelError: the weights do not fit into one ONNX file.
        Unim2Error: the file cannot be written.
    """
    weights_bytes = sum(tensor.nbytes for tensor in module.state_dict().values())
    if weights_bytes > PROTOBUF_LIMIT_BYTES:
        raise ModelError(
            f"this network is too large for {path}",
            expected=f"at most {PROTOBUF_LIMIT_BYTES / 1e9:.1f} GB of weights in one ONNX file",
            found=f"{weights_bytes / 1e9:.1f} GB",
            remedy="use a smaller backbone",
        )
    with _quiet(), torch.no_grad():
        # In two steps, because the second alone makes an axis constant where the first refuses to.
        traced = torch.export.export(
            module,
            (),
            kwargs=dict(example),
            dynamic_shapes={
                name: dict.fromkeys(part) if isinstance(part, dict) else dynamic[name]
                for name, part in example.items()
            },
        )
        program = torch.onnx.export(
            traced,
            input_names=[
                inner
                for name, part in example.items()
                for inner in (part if isinstance(part, dict) else [name])
            ],
            output_names=list(outputs),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _drop_traces(model)
    for value in model.graph.input:
        for axis, dim in (dynamic.get(value.name) or {}).items():
            _name_axis(model, value.type.tensor_type.shape.dim[axis].dim_param, dim.__name__)
    write_atomically(path, model.SerializeToString(deterministic=True))


def _drop_traces(model: Any) -> None:
    """Take out where each node comes from: it names files of this machine and differs by run."""
    graph = model.graph
    del graph.value_info[:]
    for part in (model, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        del part.metadata_props[:]
        part.ClearField("doc_string")


def _name_axis(model: Any, found: str, wanted: str) -> None:
    """Call a free axis by its own name: torch's ``s30`` is another one in each run."""
    symbol, name = (re.sub(r"^\d+\*", "", text) for text in (found, wanted))
    for value in (*model.graph.input, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = re.sub(rf"\b{symbol}\b", name, dim.dim_param)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's progress, warnings and log off the terminal; its errors still raise."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
