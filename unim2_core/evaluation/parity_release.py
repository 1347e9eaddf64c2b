"""A checkpoint of the reference release, imported, against what the release makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from unim2_core.evaluation.parity import EXACT, FORWARD, Row, arrays_of, deviation
from unim2_core.evaluation.protocol import predictions
from unim2_core.model.release_import import import_release


@torch.no_grad()
def release_rows(path: Path) -> Iterator[Row]:
    """Compare codes and predictions from images.

    Args:
        path: ``NAME.ckpt``, beside ``NAME_expected.npz`` with an image (1, 3, H, W) for each
            modality, ``code``, ``cluster_pred`` and ``linear_pred``.
    """
    golden = arrays_of(path.with_name(f"{path.stem}_expected.npz"))
    model = import_release(path)
    config = model.segmenter.config
    images = {name: torch.from_numpy(golden[name]) for name in config.modalities}
    features = {
        name: model.backbone(image).permute(0, 3, 1, 2)  # (1, h, w, D) -> (1, D, h, w)
        for name, image in images.items()
    }
    code = model.segmenter(features).code
    height, width = images[config.reference].shape[2:]
    case = f"K={len(model.linear_probe.weight)} d={config.code_dim} {'+'.join(config.modalities)}"
    yield Row(path.name, case, "code", deviation(code.numpy(), golden["code"]), FORWARD)
    for name, probe in (
        ("cluster_pred", model.cluster_probe),
        ("linear_pred", model.linear_probe),
    ):
        found = predictions(code, probe, (height, width)).numpy()
        yield Row(path.name, case, name, deviation(found, golden[name]), EXACT)
