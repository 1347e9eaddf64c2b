"""Modality networks, fusion, head and harmonizer against the reference release."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unim2_core.evaluation.parity import FORWARD, Row, arrays_of, deviation
from unim2_core.evaluation.release_options import options_of, segmenter_config
from unim2_core.model.release_keys import segmenter_name
from unim2_core.model.segmenter import Segmenter


@torch.no_grad()
def head_rows(path: Path) -> Iterator[Row]:
    """Compare every variant of the network, in evaluation and in training.

    Args:
        path: ``head.npz``: per variant ``config_json``, ``raw_feat/*``, ``w/*``,
            ``train/dropout_masks`` and the expected outputs.
    """
    golden = arrays_of(path)
    for variant in sorted({name.partition("/")[0] for name in golden}):
        arrays = {
            name.removeprefix(f"{variant}/"): array
            for name, array in golden.items()
            if name.startswith(f"{variant}/")
        }
        yield from _variant_rows(path.name, variant, arrays)


def _variant_rows(file: str, variant: str, golden: dict[str, Any]) -> Iterator[Row]:
    segmenter = Segmenter(segmenter_config(options_of(golden.pop("config_json"))))
    weights = tensors_under(golden, "w/")
    segmenter.load_state_dict({segmenter_name(name): value for name, value in weights.items()})
    features = tensors_under(golden, "raw_feat/")
    masks = torch.from_numpy(golden.pop("train/dropout_masks"))
    found = {f"eval/{name}": value for name, value in _outputs(segmenter.eval(), features).items()}
    trained = _outputs(segmenter.train(), features, masks)
    found |= {f"train/{name}": value for name, value in trained.items()}
    state = segmenter.state_dict()
    for name, expected in golden.items():
        if name.startswith("train/after/"):
            tensor = state[segmenter_name(name.removeprefix("train/after/"))]
        else:
            tensor = found[name]
        yield Row(file, variant, name, deviation(tensor.numpy(), expected), FORWARD)


def tensors_under(golden: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    """Take out the arrays whose names begin with a prefix, as tensors without it."""
    names = [name for name in golden if name.startswith(prefix)]
    return {name.removeprefix(prefix): torch.from_numpy(golden.pop(name)) for name in names}


def _outputs(
    segmenter: Segmenter, features: dict[str, Tensor], masks: Tensor | None = None
) -> dict[str, Tensor]:
    out = segmenter(features, masks)
    found = {"fused": out.fused, "returned_feat": out.returned, "code": out.code}
    for name, network in segmenter.fusion.networks.items():
        found[f"msn/{name}"] = network(features[name])
    for name in segmenter.config.harmonized:
        found["code_modal"] = segmenter.supervised_codes(out.code)[name]
    return found
