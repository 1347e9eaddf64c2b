"""Measured shifts pull the share of the pairs together that was asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from unim2_core.learning.correspondence import CorrespondenceConfig, Shifts
from unim2_core.learning.objective import (
    Batch,
    ModalityLoss,
    Objective,
    ObjectiveConfig,
    TermWeights,
)
from unim2_core.learning.shifts import STEPS, PulledShares, measured_shifts, with_shifts
from unim2_core.model.segmenter import SegmenterConfig

SIDE, DIM, SEED = 4, 6, 5
NAMES = ("rgb", "thermal")
LOSS = ModalityLoss(0.5, TermWeights(0.1, 0.2, 0.3), Shifts(9.0, 9.0, 9.0))
SHARES = PulledShares(own=0.25, knn=0.1, random=0.6)


def objective(*, pointwise: bool = True, joint: bool = False) -> Objective:
    form = CorrespondenceConfig(samples=SIDE, negatives=2, pointwise=pointwise, cells=True)
    config = ObjectiveConfig(dict.fromkeys(NAMES, LOSS), form, joint=joint)
    return Objective(SegmenterConfig(NAMES, DIM, 4), config, 3)


def batches(step: int, *, chance: float = 0.7) -> Batch:
    """Thermal is another world than RGB, and is there now and then."""
    generator = torch.Generator().manual_seed(step)

    def maps() -> dict[str, torch.Tensor]:
        drawn = torch.randn(2, 5, DIM, SIDE, SIDE, generator=generator)
        return {"rgb": drawn[0], "thermal": drawn[1] + 3.0}

    def seen() -> dict[str, torch.Tensor]:
        there = torch.rand(5, SIDE, SIDE, generator=generator) < chance
        return {"rgb": torch.ones(5, SIDE, SIDE), "thermal": there.float()}

    presence = (seen(), seen())
    anchors, positives = (
        {name: part * there[name][:, None] for name, part in maps().items()} for there in presence
    )
    return Batch(anchors, positives, presence=presence)


def test_threads_change_no_bit() -> None:
    """A training that goes on is known by its shifts, and may have other cores by then."""
    names, generator = dict.fromkeys(NAMES, LOSS), torch.Generator().manual_seed(1)
    form = CorrespondenceConfig(samples=11, negatives=2, pointwise=True, cells=True)
    model = Objective(SegmenterConfig(NAMES, 384, 4), ObjectiveConfig(names, form), 3)
    maps = [
        {name: torch.randn(32, 384, 11, 11, generator=generator) + 1.0 for name in NAMES}
        for _ in range(2)
    ]
    found, usual = [], torch.get_num_threads()
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        found.append(measured_shifts(model, lambda _: Batch(*maps), SHARES, SEED))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(usual)
    assert found[0] == found[1] == found[2]


def unit(maps: torch.Tensor) -> np.ndarray:
    """(B, P, D) float64 at unit length; zero stays zero."""
    flat = maps.flatten(2).transpose(1, 2).double().numpy()
    return flat / np.maximum(np.linalg.norm(flat, axis=2, keepdims=True), 1e-10)


def correspondences(
    model: Objective, kind: str, name: str | None, *, pointwise: bool, chance: float = 0.7
) -> np.ndarray:
    """All numbers that a shift is taken from, by loops; without a name, of both side by side."""
    found = []
    for step in range(STEPS):
        batch = batches(step, chance=chance)
        draws = model.draw(batch, generator=torch.Generator().manual_seed(SEED + step))
        negative = draws.correspondence[name or NAMES[0]].sources[0].tolist()
        vectors, there = [], []
        for maps, presence in zip(batch[:2], batch.presence, strict=True):
            if name is None:
                both = np.concatenate([unit(maps[other]) for other in NAMES], axis=2)
                length = np.linalg.norm(both, axis=2, keepdims=True)
                vectors.append(both / np.maximum(length, 1e-10))
                there.append(np.ones(both.shape[:2], bool))
            else:
                vectors.append(unit(maps[name]))
                there.append(presence[name].flatten(1).numpy() > 0)
        second = {
            "own": (vectors[0], there[0]),
            "knn": (vectors[1], there[1]),
            "random": (vectors[0][negative], there[0][negative]),
        }[kind]
        rows = []
        for image in range(5):
            for place in range(SIDE**2):
                if there[0][image, place]:
                    seen = second[1][image]
                    rows.append(second[0][image][seen] @ vectors[0][image, place])
        mean = np.concatenate(rows).mean()
        if pointwise:
            rows = [row - row.mean() + mean if len(row) else row for row in rows]
        found.append(np.concatenate(rows))
    return np.concatenate(found)


@pytest.mark.parametrize("pointwise", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_the_share_above_a_shift_is_the_one_asked_for(name: str, pointwise: bool) -> None:
    model = objective(pointwise=pointwise)
    found = measured_shifts(model, batches, SHARES, SEED)
    assert set(found) == set(NAMES)
    for kind, share in SHARES._asdict().items():
        values = correspondences(model, kind, name, pointwise=pointwise)
        shift = getattr(found[name], kind)
        assert abs((values > shift + 1e-6).mean() - share) < 2 / len(values) + 1e-3
        assert abs((values > shift - 1e-6).mean() - share) < 2 / len(values) + 1e-3
    assert found["thermal"].random > found["rgb"].random + 0.2  # its features are more alike


def test_naive_fusion_takes_its_shifts_from_what_it_compares() -> None:
    model = objective(joint=True)
    found = measured_shifts(model, batches, SHARES, SEED)
    assert set(found) == {"rgb"}
    for kind, share in SHARES._asdict().items():
        values = correspondences(model, kind, None, pointwise=True)
        assert abs((values > getattr(found["rgb"], kind)).mean() - share) < 5e-3


def test_what_is_never_seen_has_no_shifts() -> None:
    found = measured_shifts(objective(), lambda step: batches(step, chance=0.0), SHARES, SEED)
    assert found["thermal"] == Shifts(0.0, 0.0, 0.0)
    assert found["rgb"].knn != 0


def test_equal_seeds_give_equal_shifts_and_leave_torch_as_it_was() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    model = objective()
    torch.set_rng_state(before)
    first = measured_shifts(model, batches, SHARES, SEED)
    assert torch.get_rng_state().equal(before)
    assert measured_shifts(model, batches, SHARES, SEED) == first
    assert measured_shifts(model, batches, SHARES, SEED + 1)["rgb"].random != first["rgb"].random


def test_shifts_replace_those_of_the_objective_and_nothing_else() -> None:
    config = objective().config
    changed = with_shifts(config, {"thermal": Shifts(0.1, 0.2, 0.3)})
    assert changed.modalities["rgb"] == LOSS
    assert changed.modalities["thermal"] == replace(LOSS, shifts=Shifts(0.1, 0.2, 0.3))
    assert replace(changed, modalities=config.modalities) == config
