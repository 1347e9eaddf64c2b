"""Predictions at the labels' size, and the dense CRF, against the reference release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unim2_core.evaluation import crf
from unim2_core.evaluation.parity import EXACT, FORWARD, Row, arrays_of, deviation, skipped
from unim2_core.evaluation.protocol import log_probabilities, predictions
from unim2_core.model.probes import ClusterProbe, LinearProbe
from unim2_core.sensing.modalities import MODALITIES

KINDS = {"cluster": "cluster_logprob_alpha2", "linear": "linear_logprob"}


def protocol_rows(path: Path) -> Iterator[Row]:
    """Compare predictions and log probabilities; the CRF only where its library is installed.

    Args:
        path: ``eval_path.npz``: ``code`` (B, d, h, w), weights of both probes,
            ``image_normalised`` (B, 3, H, W) and the expected outputs.
    """
    golden = arrays_of(path)
    code = torch.from_numpy(golden["code"])
    height, width = golden["image_normalised"].shape[2:]
    size = (height, width)
    images = _images(golden["image_normalised"])
    for kind, probe in _probes(golden).items():
        found = log_probabilities(code, probe, size)
        best = predictions(code, probe, size).numpy()
        name = f"{kind}_pred"
        yield Row(path.name, kind, name, deviation(best, golden[name]), EXACT)
        name = KINDS[kind]
        yield Row(path.name, kind, name, deviation(found.numpy(), golden[name]), FORWARD)
        smoothed, mapped = f"crf_q_{kind}", f"crf_pred_{kind}"
        if not crf.installed():
            for name in (smoothed, mapped):
                yield skipped(path.name, kind, name, f"{crf.LIBRARY} is not installed")
            continue
        probabilities = found.softmax(dim=1).numpy()
        q = np.stack([crf.marginals(*each) for each in zip(images, probabilities, strict=True)])
        yield Row(path.name, kind, smoothed, deviation(q, golden[smoothed]), FORWARD)
        best = q.argmax(axis=1)
        yield Row(path.name, kind, mapped, deviation(best, golden[mapped]), EXACT)


def _probes(golden: dict[str, Any]) -> dict[str, ClusterProbe | LinearProbe]:
    classes, code_dim = golden["clusters"].shape
    cluster, linear = ClusterProbe(code_dim, classes), LinearProbe(code_dim, classes)
    cluster.load_state_dict({"centers": torch.from_numpy(golden["clusters"])})
    weights = {"weight": golden["linear_w"], "bias": golden["linear_b"]}
    linear.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return {"cluster": cluster, "linear": linear}


def _images(normalized: NDArray[np.float32]) -> NDArray[np.uint8]:
    """(B, 3, H, W) float32 -> (B, H, W, 3) uint8, the fraction cut off as the release does."""
    rgb = MODALITIES["rgb"]
    mean, std = (np.asarray(each, np.float32)[:, None, None] for each in (rgb.mean, rgb.std))
    return ((normalized * std + mean) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
