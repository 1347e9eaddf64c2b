"""How far an exported backbone is from torch, at sizes that were not traced, in fp32 and fp16.

    python benchmarks/export_parity.py dinov3_vits16 dinov3_vitb16 texture

Prints one table. Weights that are not on this machine are replaced by random ones of the same
network, and the table says so; neither labels nor images are needed, the input is noise.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from unim2_core.errors import ModelError
from unim2_core.evaluation.parity_backbone import rule_weights
from unim2_core.inference.export import export_backbone
from unim2_core.inference.half_precision import halved
from unim2_core.inference.onnxruntime import OnnxRuntimeGraph
from unim2_core.model.backbone import BACKBONES, DinoV3
from unim2_core.model.checkpoints import build_backbone
from unim2_core.model.texture import TextureFeatures

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CASES = ((1, 224, 224), (3, 224, 224), (1, 480, 640), (2, 336, 192))


def backbone_of(name: str) -> tuple[str, DinoV3 | TextureFeatures]:
    """A network and what to call it in the table."""
    if name == "texture":
        return name, TextureFeatures()
    try:
        return name, build_backbone(name)
    except ModelError:
        if name not in BACKBONES:
            raise
    backbone = DinoV3(BACKBONES[name])
    backbone.load_state_dict(rule_weights(backbone))
    return f"{name} (random)", backbone


@torch.inference_mode()
def rows(name: str) -> Iterator[tuple[str, ...]]:
    """Export one network; yield a row for each case."""
    title, backbone = backbone_of(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "backbone.onnx")
        start = time.perf_counter()
        export_backbone(backbone, path, mean=MEAN, std=STD)
        export_s = time.perf_counter() - start
        half = Path(folder, "half.onnx")
        half.write_bytes(halved(path.read_bytes()))
        graphs = {"fp32": (path, OnnxRuntimeGraph(path)), "fp16": (half, OnnxRuntimeGraph(half))}
        for batch, height, width in CASES:
            shape = (batch, height, width, 3)
            images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
            normalised = torch.from_numpy((images / 255 - MEAN) / STD).float()
            expected = backbone(normalised.permute(0, 3, 1, 2)).numpy()
            for precision, (file, graph) in graphs.items():
                tokens = graph({"images": images})["tokens"]
                error = float(np.abs(tokens - expected).max())
                relative = error / float(np.abs(expected).max())
                lengths = np.linalg.norm(tokens, axis=3) * np.linalg.norm(expected, axis=3)
                cosine = float(((tokens * expected).sum(3) / lengths).min())
                first = title, precision, f"{file.stat().st_size / 1e6:.1f}", f"{export_s:.1f}"
                case = f"{height} x {width}", str(batch), f"{error:.1e}", f"{relative:.1e}"
                yield *first, *case, f"{cosine:.7f}"


def main() -> None:
    """Print the table for the networks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbones", nargs="*", default=["dinov3_vits16", "texture"])
    names = parser.parse_args().backbones
    table = Table("backbone", box=None)
    table.add_column("precision")
    for column in ("MB", "export s", "size", "batch", "max abs error", "max relative error"):
        table.add_column(column, justify="right")
    table.add_column("smallest cosine", justify="right")
    for name in names:
        for row in rows(name):
            table.add_row(*row)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
