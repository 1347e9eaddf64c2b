"""What the engines give on a CPU: backbone, head, and the encoding of five cameras.

    python benchmarks/engines.py                            # all parts
    python benchmarks/engines.py --parts backbone square    # some of them
    python benchmarks/engines.py --rounds 9 --json engines.json

DINOv3 ViT-S/16 with random weights, five cameras. Whatever is compared takes turns within one run;
figures are medians, and on a machine with other work on it only their ratios mean something.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from fields import console
from machine import SIDE, matrix_product, seconds_of
from rich.table import Table

from unim2_core.errors import Unim2Error
from unim2_core.inference.backends import LIBRARIES
from unim2_core.inference.bundling import export_head
from unim2_core.inference.export import export_backbone, export_module
from unim2_core.learning.methods import recipe
from unim2_core.model.backbone import BACKBONES, DinoV3
from unim2_core.model.heads import decided
from unim2_core.model.segmenter import Segmenter
from unim2_core.model.segmenter_head import SegmenterHead, head_weights
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.modalities import MODALITIES, Encoder

NAME = "dinov3_vits16"
MODALITY_NAMES = ("rgb", "depth", "thermal", "nir", "aolp")
HEIGHT, WIDTH, CLUSTERS, SQUARE = 480, 640, 27, 320
PARTS = ("backbone", "square", "head")
ATTENTIONS = ("eager", "sdpa")
"""Of transformers: every product apart, and torch's fused one, which is its default."""

Runs = Mapping[str, Callable[[], object]]


def in_turns(runs: Runs, rounds: int) -> dict[str, float]:
    """Name -> median seconds of runs that take turns; each runs once before it counts."""
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(seconds_of(run))
    return {name: median(values) for name, values in taken.items()}


def gflop_of(height: int, width: int) -> float:
    """Of the backbone's matrix products, one image."""
    size = BACKBONES[NAME]
    places = (height // size.patch_size) * (width // size.patch_size)
    tokens, dim = places + 1 + size.n_storage, size.embed_dim
    block = 2 * tokens * dim * (4 * dim + 2 * size.ffn_dim) + 4 * tokens**2 * dim
    return 1e-9 * (size.depth * block + 2 * places * 3 * size.patch_size**2 * dim)


def exported(folder: Path) -> Path:
    """The graph of the backbone, weights drawn at random."""
    path = folder / "backbone.onnx"
    if path.exists():
        return path
    torch.manual_seed(0)
    normal = MODALITIES["rgb"]
    export_backbone(DinoV3(BACKBONES[NAME]), path, mean=normal.mean, std=normal.std)
    return path


def int8(path: Path, images: np.ndarray, name: str) -> Path:
    """The same in int8, calibrated on made-up images: for its time, not for its accuracy."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    made, small = path.with_name(f"{name}.onnx"), images[:, :128, :128]
    options = {"model_type": nncf.ModelType.TRANSFORMER, "subset_size": 1}
    if name == "onnxruntime":
        import onnx

        given, scope = nncf.Dataset([{"images": small}]), nncf.IgnoredScope(types=["Conv"])
        onnx.save(nncf.quantize(onnx.load(path), given, ignored_scope=scope, **options), made)
        return made
    import openvino

    given, scope = nncf.Dataset([small]), nncf.IgnoredScope(types=["Convolution"])
    read = openvino.Core().read_model(path)
    model = nncf.quantize(read, given, ignored_scope=scope, **options)
    openvino.save_model(model, made.with_suffix(".xml"), compress_to_fp16=False)
    return made.with_suffix(".xml")


def product() -> Callable[[], object]:
    """A float32 matrix product."""
    return matrix_product(torch.float32)


def backbone(folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    """One image 480x640 on every engine beside transformers in torch."""
    images = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    path = exported(folder)
    runs: dict[str, Callable[[], object]] = {"float32 matrix product": product()}
    try:
        runs |= {f"transformers, {name}": theirs(images, name) for name in ATTENTIONS}
    except ImportError as error:
        console.print(f"NOT compared with transformers: {error}")
    ours = DinoV3(BACKBONES[NAME])
    pixels = torch.zeros(1, 3, HEIGHT, WIDTH)
    runs["ours, torch eager fp32"] = torch.no_grad()(lambda: ours(pixels))
    for name, precision in (
        *(("onnxruntime", "fp32"), ("onnxruntime", "int8")),
        *(("openvino", "fp32"), ("openvino", "bf16"), ("openvino", "int8")),
    ):
        try:
            file = int8(path, images, name) if precision == "int8" else path
            kind = "fp32" if precision == "int8" else precision
            graph = LIBRARIES[name].load(file, kind, threads, "cpu")  # type: ignore[index,arg-type]
        except (Unim2Error, ImportError) as error:
            console.print(f"NOT measured: {name} {precision}: {str(error).splitlines()[0]}")
            continue
        runs[f"{name} {precision}"] = lambda graph=graph: graph({"images": images})  # type: ignore[misc]
    taken = in_turns(runs, rounds)
    gflop, peak = gflop_of(HEIGHT, WIDTH), peak_of(taken)
    beside = [taken.get(f"transformers, {name}") for name in ATTENTIONS]
    faster = [f"times transformers, {name}" for name in ATTENTIONS]
    table = Table("engine", "ms", "GFLOP/s", "of matrix product", *faster)
    for name, seconds in taken.items():
        if name.startswith("float32"):
            continue
        table.add_row(
            *(name, f"{1e3 * seconds:.0f}", f"{gflop / seconds:.0f}"),
            f"{100 * gflop / seconds / peak:.0f} %",
            *("-" if other is None else f"{other / seconds:.2f}" for other in beside),
        )
    table.title = f"{NAME}, one image {WIDTH}x{HEIGHT}, {gflop:.1f} GFLOP, {threads} threads"
    console.print(table)
    return taken


def peak_of(taken: Mapping[str, float]) -> float:
    """GFLOP/s of the matrix product that took turns."""
    return 2e-9 * SIDE**3 / taken["float32 matrix product"]


def theirs(images: np.ndarray, attention: str) -> Callable[[], object]:
    """The same network of transformers in torch, not compiled, float32, on as large an image."""
    from transformers import DINOv3ViTConfig, DINOv3ViTModel

    size = BACKBONES[NAME]
    model = DINOv3ViTModel._from_config(
        DINOv3ViTConfig(
            hidden_size=size.embed_dim,
            intermediate_size=size.ffn_dim,
            num_hidden_layers=size.depth,
            num_attention_heads=size.num_heads,
            num_register_tokens=size.n_storage,
        ),
        attn_implementation=attention,
    ).eval()
    pixels = torch.zeros(1, 3, *images.shape[1:3])
    run: Callable[[], object] = torch.no_grad()(lambda: model(pixels))
    return run


def square(folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    """OpenVINO at 320x320 as a share of what a matrix product gives."""
    images = np.random.default_rng(0).integers(0, 256, (1, SQUARE, SQUARE, 3), np.uint8)
    graph = LIBRARIES["openvino"].load(exported(folder), "fp32", threads, "cpu")
    runs = {
        "float32 matrix product": product(),
        "openvino fp32": lambda: graph({"images": images}),
    }
    taken = in_turns(runs, 3 * rounds)
    rate, peak = gflop_of(SQUARE, SQUARE) / taken["openvino fp32"], peak_of(taken)
    console.print(
        f"OpenVINO fp32 {SQUARE}x{SQUARE}: {rate:.0f} GFLOP/s, {100 * rate / peak:.0f} % of a "
        f"float32 matrix product of {SIDE} ({peak:.0f} GFLOP/s)"
    )
    return taken


class Decision(torch.nn.Module):
    """The end of the head alone: upsampling, the best two, confidence."""

    def __init__(self, upsampling: int) -> None:
        super().__init__()
        self._upsampling = upsampling

    def forward(
        self, scores: torch.Tensor, length: torch.Tensor, presence: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``decided``."""
        valid = torch.ones(scores.shape[-1])
        return decided(scores, length, valid, presence, torch.tensor(0.2), self._upsampling)


def head(folder: Path, rounds: int, threads: int) -> dict[str, Any]:
    """Encoding of five cameras, the head whole, and its end alone, at two strides."""
    size = BACKBONES[NAME]
    config = recipe("unim2", MODALITY_NAMES, size.embed_dim, CLUSTERS).network
    torch.manual_seed(0)
    weights = {name: part.numpy() for name, part in head_weights(Segmenter(config).eval()).items()}
    count, dim = len(MODALITY_NAMES), size.embed_dim
    draw = np.random.default_rng(0)
    weights |= {
        "mean": np.zeros((count, dim), np.float32),
        "scale": np.ones((count, dim), np.float32),
        "prototypes": draw.standard_normal((CLUSTERS, config.code_dim), np.float32),
        "valid": np.ones(CLUSTERS, np.float32),
        "full_margin": np.array(0.2, np.float32),
    }
    grid = (HEIGHT // size.patch_size, WIDTH // size.patch_size)
    tokens = draw.standard_normal((count, *grid, dim), np.float32)
    presence = np.ones((count, *grid), np.float32)
    gflop = 1e-9 * sum(
        2 * grid[0] * grid[1] * array.size
        for name, array in weights.items()
        if array.ndim > 1 and name not in ("mean", "scale", "stand_in")
    )
    runs: dict[str, Callable[[], object]] = {"float32 matrix product": product()}
    runs["encode five cameras"] = encoding(draw)
    for stride in (4, 1):
        path = folder / f"head{stride}.onnx"
        export_head(SegmenterHead(config, size.patch_size, stride), path, weights)
        scores = {
            "scores": draw.standard_normal((*grid, CLUSTERS), np.float32),
            "length": np.ones((*grid, 1), np.float32),
            "presence": presence,
        }
        end = folder / f"end{stride}.onnx"
        export_module(
            Decision(size.patch_size // stride),
            end,
            {name: torch.from_numpy(array) for name, array in scores.items()},
            outputs=("classes", "confidence"),
            dynamic=dict.fromkeys(scores),
        )
        for backend in ("onnxruntime", "openvino"):
            if not LIBRARIES[backend].installed:
                continue
            whole, last = (
                LIBRARIES[backend].load(file, "fp32", threads, "cpu") for file in (path, end)
            )
            inputs = {"tokens": tokens, "presence": presence, **weights}
            key = f"{backend}, stride {stride}"
            runs[f"head, {key}"] = lambda whole=whole, inputs=inputs: whole(inputs)  # type: ignore[misc]
            runs[f"its end, {key}"] = lambda last=last, scores=scores: last(scores)  # type: ignore[misc]
    taken = in_turns(runs, rounds)
    peak = peak_of(taken)
    table = Table("what", "ms", "of matrix product", title=f"head of {gflop:.2f} GFLOP, K = 27")
    for name, seconds in taken.items():
        share = "-"
        if name.startswith("head"):
            alone = seconds - taken[name.replace("head", "its end")]
            share = f"{100 * gflop / alone / peak:.0f} % without its end"
        table.add_row(name, f"{1e3 * seconds:.1f}", share)
    console.print(table)
    return taken


def encoding(draw: np.random.Generator) -> Callable[[], object]:
    """All cameras' images of one moment to what the backbone takes."""
    shape = (HEIGHT, WIDTH)
    frames = {
        "rgb": Frame("rgb", 0, draw.integers(0, 256, (*shape, 3), np.uint8)),
        "depth": Frame("depth", 0, draw.uniform(0.5, 20, shape).astype(np.float32)),
        "thermal": Frame("thermal", 0, draw.uniform(270, 310, shape).astype(np.float32), unit="K"),
        "nir": Frame("nir", 0, draw.uniform(0, 1, shape).astype(np.float32)),
        "aolp": Frame("polarization", 0, draw.uniform(0, 1, (*shape, 3)).astype(np.float32)),
    }
    encoders = {name: Encoder(name) for name in MODALITY_NAMES}
    return lambda: [encoders[name].encode(frames[name], shape, None) for name in MODALITY_NAMES]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print all parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--graphs", type=Path, help="folder that keeps the graphs")
    parser.add_argument("--json", type=Path, help="write the seconds here too")
    given = parser.parse_args(arguments)
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    results = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.graphs or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for part in given.parts:
            run = {"backbone": backbone, "square": square, "head": head}[part]
            results[part] = run(folder, given.rounds, threads)
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
