"""``unim2 export``: a model's graphs as files, or its engines built before they are needed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, write_json
from unim2_core.cli.options import BackendName, JsonFile, size_from
from unim2_core.errors import ModelError, cause
from unim2_core.inference.engine import Engine
from unim2_core.model.bundle import Bundle

Stride = Literal["1", "2", "4"]


def command(
    model: Annotated[Path, typer.Argument(help="Model bundle, NAME.unim2.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder to make; left out: NAME-PRECISION-SIZE here."),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", help="HxW of the images; left out: as the model was trained."),
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Leave the size and the number of classes free.")
    ] = False,
    batch: Annotated[
        int, typer.Option(min=1, max=64, help="Images that the backbone takes at once.")
    ] = 1,
    precision: Annotated[
        Literal["fp32", "fp16"],
        typer.Option("--precision", help="fp16: norms, softmax and decisions stay in fp32."),
    ] = "fp32",
    stride: Annotated[
        Stride | None,
        typer.Option("--stride", help="Classes at one pixel in so many; left out: the model's."),
    ] = None,
    frozen: Annotated[
        bool,
        typer.Option("--frozen", help="Also one graph from images to classes, weights inside."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an earlier one.")
    ] = False,
    build_only: Annotated[
        bool,
        typer.Option("--build-only", help="Write no files: build the engines that segment runs."),
    ] = False,
    backend: BackendName = "auto",
    json_file: JsonFile = None,
) -> None:
    """Write a model's graphs as ONNX files for other programs, or build its engines.

    backbone.onnx: uint8 images to tokens. head.onnx: tokens, a presence mask and the weights in
    head.safetensors to classes and confidence. export.json says the rest. Needs onnx, not torch.

    Example: unim2 export site.unim2 --precision fp16 --size 480x640 --stride 4 --frozen

    Example: unim2 export site.unim2 --build-only --backend tensorrt --precision fp16
    """
    bundle = Bundle(model)
    manifest = bundle.manifest
    if build_only:
        given = {"--out": out, "--size": size, "--stride": stride, "--frozen": frozen or None}
        extra = [name for name, value in given.items() if value is not None]
        if extra:
            raise typer.BadParameter(
                "expected only --backend and --precision: engines are built for what segment runs",
                param_hint=extra[0],
            )
        began = time.monotonic()
        engine = Engine(bundle, backend, precision=precision)
        for sentence in engine.refused:
            console.print(escape(sentence))
        console.print(escape(f"{engine.summary}; ready after {time.monotonic() - began:.1f} s"))
        if json_file:
            parity = vars(engine.parity)
            content = {"backend": engine.backend, "precision": precision, "parity": parity}
            write_json(json_file, content | {"refused": engine.refused})
        return
    if dynamic and (size or batch > 1):
        raise typer.BadParameter("expected no --size and no --batch", param_hint="--dynamic")
    wanted = size_from(size, manifest.backbone.patch_size) or manifest.infer_size
    try:
        from unim2_core.inference.graph_files import Form, export
    except ImportError as error:
        raise ModelError(
            "the graphs cannot be written in another form",
            expected="the package onnx",
            found=cause(error),
            remedy="pip install onnx",
        ) from error
    form = Form(
        None if dynamic else wanted,
        batch,
        precision,
        manifest.stride if stride is None else int(stride),
        frozen,
    )
    sides = "any" if form.size is None else "{}x{}".format(*form.size)
    folder = out or Path(f"{manifest.name}-{precision}-{sides}")
    written = export(bundle, folder, form, overwrite)
    table = Table("graph", "inputs", "outputs", "MB", title=escape(f"{folder}, {precision}"))
    for name, graph in written.graphs.items():
        few = [f"{key} {_axes(axes)}" for key, axes in list(graph.inputs.items())[:2]]
        more = len(graph.inputs) - len(few)
        outputs = [f"{key} {_axes(axes)}" for key, axes in graph.outputs.items()]
        megabytes = (folder / name).stat().st_size / 1e6
        inputs = ", ".join(few) + (f" and {more} of head.safetensors" if more else "")
        table.add_row(name, escape(inputs), escape(", ".join(outputs)), f"{megabytes:.1f}")
    console.print(table)
    parity = written.parity
    console.print(
        f"against the model's stored answers: token cosine {parity['token_cosine']:.5f}, "
        f"label agreement {parity['agreement']:.4f}"
    )
    if json_file:
        write_json(json_file, written.model_dump(mode="json"))


def _axes(axes: list[int | str]) -> str:
    return "(" + ", ".join(map(str, axes)) + ")"
