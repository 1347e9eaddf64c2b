"""The cluster head as an ONNX graph: tokens, presence and weights in, classes out (training side)."""

from __future__ import annotations

from pathlib import Path

import torch

from unim2_core.inference.export import export_module
from unim2_core.model.heads import ClusterHead


def export_cluster_head(
    path: Path, *, modalities: int, width: int, patch_size: int, stride: int
) -> None:
    """Write the head's graph; grid size and number of clusters stay dynamic.

    Args:
        path: the ONNX file to write.
        modalities: M.
        width: D, numbers per token.
        patch_size: pixels of a token's side.
        stride: the classes come at one pixel in ``stride``.
    """
    clusters, height, columns = 5, 6, 7  # traced sizes: any, but all different
    example = {
        "tokens": torch.rand(modalities, height, columns, width),
        "presence": torch.ones(modalities),
        "mean": torch.zeros(modalities, width),
        "scale": torch.ones(modalities, width),
        "prototypes": torch.rand(clusters, modalities, width),
        "valid": torch.ones(clusters),
        "full_margin": torch.tensor(1.0),
    }
    rows, cols = torch.export.Dim("rows", min=2), torch.export.Dim("columns", min=2)
    k = torch.export.Dim("clusters", min=2)
    export_module(
        ClusterHead(patch_size, stride),
        path,
        example,
        outputs=("classes", "confidence"),
        dynamic={
            "tokens": {1: rows, 2: cols},
            "presence": None,
            "mean": None,
            "scale": None,
            "prototypes": {0: k},
            "valid": {0: k},
            "full_margin": None,
        },
    )
