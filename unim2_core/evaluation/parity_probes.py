"""Cluster and linear probe, their losses and gradients, against the reference release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unim2_core.evaluation.parity import FORWARD, GRADIENT, Row, arrays_of, deviation
from unim2_core.model.probes import ClusterProbe, LinearProbe, resized


def probes_rows(path: Path) -> Iterator[Row]:
    """Compare both probes, with and without extra clusters, hard and soft assignment.

    Args:
        path: ``probes.npz``: ``extra*/clusters``, ``extra*/code`` and, for each sharpness,
            ``extra*/alpha_*/...``; ``linear/...``.
    """
    golden = arrays_of(path)
    found: dict[str, Tensor] = {}
    for name in golden:
        case, _, array = name.rpartition("/")
        if array == "loss" and "alpha_" in case:
            found |= {f"{case}/{key}": value for key, value in _cluster(golden, case).items()}
    found |= {f"linear/{key}": value for key, value in _linear(golden).items()}
    inputs = {name for name in golden if name.endswith(("/clusters", "/code", "/label"))}
    for name in sorted(set(golden) - inputs - {"linear/weight", "linear/bias"}):
        case, _, compared = name.rpartition("/")
        tolerance = GRADIENT if compared.startswith("grad") else FORWARD
        error = deviation(found[name].detach().numpy(), golden[name])
        yield Row(path.name, case, compared, error, tolerance)


def _cluster(golden: dict[str, Any], case: str) -> dict[str, Tensor]:
    extra, sharpness = case.split("/alpha_")
    alpha = None if sharpness == "None" else float(sharpness)
    centers = torch.from_numpy(golden[f"{extra}/clusters"])
    code = torch.from_numpy(golden[f"{extra}/code"])
    probe = ClusterProbe(centers.shape[1], len(centers))
    probe.load_state_dict({"centers": centers})
    loss, probabilities = probe(code, alpha)
    (gradient,) = torch.autograd.grad(loss, probe.centers)
    found = {"loss": loss, "probs": probabilities, "grad_clusters": gradient}
    if alpha is not None:
        found["log_probs"] = probe.log_probabilities(code, alpha)
    return found


def _linear(golden: dict[str, Any]) -> dict[str, Tensor]:
    weight, bias, code, label = (
        torch.from_numpy(golden[f"linear/{name}"]) for name in ("weight", "bias", "code", "label")
    )
    probe = LinearProbe(weight.shape[1], len(weight))
    probe.load_state_dict({"weight": weight, "bias": bias})
    loss = probe.loss(code, label)
    gradients = torch.autograd.grad(loss, list(probe.parameters()))
    return {
        "grad_weight": gradients[0],
        "grad_bias": gradients[1],
        "logits_up": resized(probe(code), label.shape[-2:]),
        "loss": loss,
    }
