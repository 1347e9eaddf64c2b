"""The correspondence loss and its index rule against the reference release."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unim2_core.evaluation.parity import EXACT, FORWARD, GRADIENT, Row, arrays_of, deviation
from unim2_core.evaluation.release_options import correspondence_config, options_of
from unim2_core.learning.correspondence import (
    CorrespondenceConfig,
    Draws,
    Shifts,
    centered,
    correspondence_terms,
    cosines,
    pair_loss,
    self_avoiding,
)
from unim2_core.learning.points import Maps, sampled

TOTAL = "total_0.2_0.35_0.9"
TOTAL_WEIGHTS = (0.2, 0.35, 0.9)
INPUTS = {"config_json", "coords1", "coords2", "perms"}
# Says in its name which modality its options are for; all others are rgb.
_NOT_REFERENCE = "nonrgb"

Arrays = Mapping[str, Any]


def cmcs_rows(path: Path) -> Iterator[Row]:
    """Compare terms, gradients and intermediate tensors of every case, and the index rule.

    Args:
        path: ``cmcs.npz``: shared ``feats``, ``feats_pos``, ``code``, ``code_pos``; per case the
            options, the drawn points and pairs and the expected outputs.
    """
    golden = arrays_of(path)
    names = ("feats", "feats_pos", "code", "code_pos")
    maps = [torch.from_numpy(golden[name]) for name in names]
    cases = sorted({name.rpartition("/")[0] for name in golden} - {""})
    for case in cases:
        arrays = {
            name.removeprefix(f"{case}/"): array
            for name, array in golden.items()
            if name.rpartition("/")[0] == case
        }
        if case.startswith("perm_rule/"):
            drawn = torch.from_numpy(arrays["randperm"])
            error = deviation(self_avoiding(drawn).numpy(), arrays["result"])
            yield Row(path.name, case, "result", error, EXACT)
        else:
            yield from _case_rows(path.name, case, arrays, maps)


def _case_rows(file: str, case: str, golden: Arrays, maps: list[Tensor]) -> Iterator[Row]:
    options = options_of(golden["config_json"])
    config = correspondence_config(options)
    shifts = Shifts(
        options["pos_intra_shift"], options["pos_inter_shift"], options["neg_inter_shift"]
    )
    features, features_pos = maps[:2]
    code, code_pos = (tensor.clone().requires_grad_() for tensor in maps[2:])
    draws = Draws(*(torch.from_numpy(golden[name]) for name in ("coords1", "coords2", "perms")))
    weighted = config.weights(reference=_NOT_REFERENCE not in case)
    terms = correspondence_terms(
        (features, features_pos), (code, code_pos), draws, shifts, config, weighted=weighted
    )
    total = sum(weight * term for weight, term in zip(TOTAL_WEIGHTS, terms, strict=True))
    grads = torch.autograd.grad(torch.as_tensor(total), (code, code_pos))
    found = {
        "pos_intra_loss": terms.own,
        "pos_inter_loss": terms.knn,
        "neg_inter_loss_mean": terms.random,
        TOTAL: torch.as_tensor(total),
        "grad_code": grads[0],
        "grad_code_pos": grads[1],
    }
    found |= _intermediate(maps, draws, shifts, config)
    for name, expected in golden.items():
        if name in INPUTS:
            continue
        tolerance = GRADIENT if name.startswith("grad") else FORWARD
        ours = found[name].detach().numpy()
        yield Row(file, case, name, deviation(_as_maps(ours, expected), expected), tolerance)


@torch.no_grad()
def _intermediate(
    maps: list[Tensor], draws: Draws, shifts: Shifts, config: CorrespondenceConfig
) -> dict[str, Tensor]:
    assert draws.anchor is not None
    assert draws.positive is not None
    anchors, positives = Maps(maps[0], maps[2]), Maps(maps[1], maps[3])
    p, q = anchors.at(draws.anchor), positives.at(draws.positive)
    others = [anchors.at(draws.positive, sources) for sources in draws.sources]
    return {
        "sampled_feats": sampled(anchors.features, draws.anchor),
        "sampled_feats_pos": sampled(positives.features, draws.positive),
        "sampled_code": sampled(anchors.code, draws.anchor),
        "sampled_code_pos": sampled(positives.code, draws.positive),
        "fd_intra_raw": cosines(p.features, p.features),
        "fd_inter_raw": cosines(p.features, q.features),
        "fd_inter_centred": centered(cosines(p.features, q.features)),
        "pos_intra_cd": cosines(p.code, p.code),
        "pos_inter_cd": cosines(p.code, q.code),
        "pos_inter_elementwise": pair_loss(p, q, shifts.knn, config),
        "neg_cd": torch.cat([cosines(p.code, each.code) for each in others]),
        "neg_loss": torch.cat([pair_loss(p, each, shifts.random, config) for each in others]),
    }


def _as_maps(found: NDArray[Any], expected: NDArray[Any]) -> NDArray[Any]:
    """(B, P, P) as (B, S, S, S, S), where that is what is stored."""
    same = expected.ndim == 5 and found.size == expected.size
    return np.reshape(found, expected.shape) if same else found
