"""Three complete training steps against the reference release."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unim2_core.evaluation.parity import (
    FORWARD,
    GRADIENT,
    TRAINED,
    Row,
    arrays_of,
    deviation,
    skipped,
)
from unim2_core.evaluation.release_options import objective_config, options_of, segmenter_config
from unim2_core.learning.correspondence import Draws
from unim2_core.learning.objective import (
    Batch,
    Objective,
    StepDraws,
    build_optimizer,
    training_step,
)
from unim2_core.model.release_backbone import release_backbone
from unim2_core.model.release_keys import segmenter_name

Golden = dict[str, Any]

STEPS = 3
TERMS = {"pos_intra": "own", "pos_inter": "knn", "neg_inter": "random"}
BACKBONE = "net.model."
NO_EFFECT = "the gradient is zero: what is stored is rounding noise that Adam amplifies"
FOLLOWS = "follows the bias before it, whose gradient is zero"
RESOLUTION = 1e-6
"""Share of a tensor's largest gradient below which a sum in float32 is rounding noise."""
UNRESOLVED = "elements below rounding noise, which Adam amplifies: the stored values are taken"
UNUSED = "no part of this training, nothing changes it"


def training_rows(path: Path) -> Iterator[Row]:
    """Compare every logged scalar, the gradients of the first step and the weights after three.

    Args:
        path: ``train_*.npz``: options, initial weights and, per step, features, labels and all
            draws; what is expected. With ``step0/image/*`` the frozen features as well.
    """
    golden = arrays_of(path)
    options = options_of(golden["config_json"])
    network = segmenter_config(options)
    objective = Objective(network, objective_config(options), int(golden["n_classes"]))
    names = {name: _our_name(name) for name in _under(golden, "w/")}
    known = objective.state_dict()
    state = {ours: golden[f"w/{name}"] for name, ours in names.items() if ours in known}
    objective.load_state_dict({name: torch.as_tensor(array) for name, array in state.items()})
    optimizer = build_optimizer(objective.train(), options["lr"])

    yield from _feature_rows(path.name, golden)
    for step in range(STEPS):
        arrays = _under(golden, f"step{step}/")
        batch, draws = _inputs(arrays, network.modalities, network.draws)
        expected = {names[name]: array for name, array in _under(arrays, "grad/").items()}
        found: dict[str, Tensor] = {}
        hook = optimizer.register_step_pre_hook(
            lambda *_, e=expected, f=found: f.update(_settled_gradients(objective, e))
        )
        log = training_step(objective, optimizer, batch, draws)
        hook.remove()
        yield from _step_rows(path.name, step, arrays, log)
        yield from _gradient_rows(path.name, step, _under(arrays, "grad/"), found, golden)
    state = objective.state_dict()
    for name, array in _under(golden, "w_after3/").items():
        yield _weight_row(path.name, name, array, golden, state)


def _step_rows(file: str, step: int, arrays: Golden, log: dict[str, Tensor]) -> Iterator[Row]:
    tolerance = TRAINED if step else FORWARD
    names = {name: _log_name(name) for name in sorted(arrays) if name.startswith("log/")}
    for name, ours in {**names, "total_loss": "loss/total"}.items():
        error = deviation(log[ours].numpy(), arrays[name])
        yield Row(file, f"step {step}", name, error, tolerance)


def _gradient_rows(
    file: str, step: int, arrays: Golden, found: dict[str, Tensor], golden: Golden
) -> Iterator[Row]:
    for name, expected in arrays.items():
        case, compared = f"step {step}", f"grad/{name}"
        if _no_effect(name, golden):
            yield skipped(file, case, compared, NO_EFFECT)
            continue
        ours = found[_our_name(name)]
        yield Row(file, case, compared, deviation(ours.numpy(), expected), GRADIENT)
        settled = int(_unresolved(ours, torch.from_numpy(expected)).sum())
        if settled:
            yield skipped(file, case, f"{compared}: {settled} of {ours.numel()}", UNRESOLVED)


def _settled_gradients(objective: Objective, expected: Golden) -> dict[str, Tensor]:
    """The gradients; elements that are noise then take the stored values.

    The first step of Adam is as long for noise of 1e-9 as for any gradient, so that one element
    of no meaning would otherwise decide whether all weights agree two steps later.
    """
    found = {}
    for name, parameter in objective.named_parameters():
        if name in expected and parameter.grad is not None:
            stored = torch.from_numpy(expected[name])
            found[name] = parameter.grad.clone()
            noise = _unresolved(parameter.grad, stored)
            parameter.grad[noise] = stored[noise]
    return found


def _unresolved(found: Tensor, stored: Tensor) -> Tensor:
    """Where two gradients differ and are both below what float32 resolves beside the largest."""
    limit = RESOLUTION * stored.abs().max()
    return (found.abs() < limit) & (stored.abs() < limit) & (found != stored)


def _weight_row(
    file: str, name: str, expected: Any, golden: Golden, state: dict[str, Tensor]
) -> Row:
    case, ours = f"after {STEPS} steps", _our_name(name)
    if _no_effect(name, golden):
        return skipped(file, case, name, NO_EFFECT)
    if name.endswith("running_mean"):
        return skipped(file, case, name, FOLLOWS)
    if ours not in state:
        return skipped(file, case, name, UNUSED)
    return Row(file, case, name, deviation(state[ours].numpy(), expected), TRAINED)


def _feature_rows(file: str, golden: Golden) -> Iterator[Row]:
    """The frozen features of the stored images, where there are any."""
    images = {**_under(golden, "step0/image/"), **_under(golden, "step0/image_pos/")}
    if not images:
        return
    weights = {name: torch.from_numpy(value) for name, value in _under(golden, "w/").items()}
    backbone = release_backbone(weights, BACKBONE)
    for kind in ("", "_pos"):
        for name, image in _under(golden, f"step0/image{kind}/").items():
            tokens = backbone(torch.from_numpy(image).float())  # (B, h, w, D)
            found = tokens.permute(0, 3, 1, 2).numpy()
            error = deviation(found, golden[f"step0/raw_feat{kind}/{name}"])
            yield Row(file, "frozen features", f"raw_feat{kind}/{name}", error, FORWARD)


def _inputs(arrays: Golden, modalities: tuple[str, ...], passes: int) -> tuple[Batch, StepDraws]:
    def tensors(kind: str) -> dict[str, Tensor]:
        return {name: torch.from_numpy(arrays[f"{kind}/{name}"]) for name in modalities}

    batch = Batch(tensors("raw_feat"), tensors("raw_feat_pos"), torch.from_numpy(arrays["label"]))
    coords1, coords2, perms = tensors("coords1"), tensors("coords2"), tensors("perms")
    points = {name: Draws(coords1[name], coords2[name], perms[name]) for name in modalities}
    masks = torch.from_numpy(arrays["dropout_masks"])
    return batch, StepDraws(points, (masks[:passes], masks[passes:]))


def _under(golden: Golden, prefix: str) -> Golden:
    return {
        name.removeprefix(prefix): array
        for name, array in golden.items()
        if name.startswith(prefix)
    }


def _our_name(name: str) -> str:
    if name.startswith("net."):
        return f"segmenter.{segmenter_name(name.removeprefix('net.'))}"
    return name.replace("cluster_probe.clusters", "cluster_probe.centers")


def _no_effect(name: str, golden: Golden) -> bool:
    """Whether it is the bias of a convolution just before a batch norm, which takes it away."""
    match = re.fullmatch(r"net\.fusion_conv\.(\d+)\.bias", name)
    return match is not None and f"w/net.fusion_conv.{int(match[1]) + 1}.running_mean" in golden


def _log_name(name: str) -> str:
    """The release's name of a logged scalar, as ours."""
    kind, rest = name.removeprefix("log/").split("/")
    if kind == "weight":
        return f"weight/{rest.removesuffix('_weight')}"
    for theirs, ours in TERMS.items():
        if rest.startswith(theirs):
            which = rest.removeprefix(f"{theirs}_")
            return f"loss/{ours}" if which == "total" else f"loss/{ours}/{which}"
    return f"loss/{'reconstruction' if rest == 'rec' else rest}"
