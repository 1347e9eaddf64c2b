"""Every recipe can be trained, and the published numbers arrive in it."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from unim2_core.errors import ModelError
from unim2_core.learning.methods import Recipe, recipe
from unim2_core.learning.objective import Batch, Objective
from unim2_core.learning.published import published

NAMES = ("rgb", "thermal", "nir")
DIM, CLUSTERS = 12, 5


def made(method: str = "unim2", names: tuple[str, ...] = NAMES, **options: Any) -> Recipe:
    return recipe(method, names, DIM, options.pop("clusters", CLUSTERS), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "preset", "data"),
    [
        *product(("unim2", "naive_fusion", "rgb_only", "kmeans"), ("robot", "paper"), (None,)),
        *product(("unim2", "naive_fusion", "rgb_only"), ("paper",), ("mfnet", "mcubes")),
    ],
)
def test_every_recipe_makes_a_loss_that_teaches_the_network(
    method: str, preset: str, data: str | None
) -> None:
    how = made(method, preset=preset, like=published(data) if data else None)
    torch.manual_seed(0)
    objective = Objective(how.network, how.objective, how.clusters)
    generator = torch.Generator().manual_seed(1)
    side = how.samples or 4
    maps = [
        {n: torch.randn(4, DIM, side, side, generator=generator) for n in how.network.modalities}
        for _ in range(2)
    ]
    batch = Batch(maps[0], maps[1], sources=torch.arange(4))
    total, log = objective(batch, objective.draw(batch, generator=generator))
    total.backward()
    assert total.isfinite()
    gradients = {
        name: parameter.grad
        for name, parameter in objective.segmenter.named_parameters()
        if "stand_in" not in name  # everything is there, or dropped at random
    }
    assert all(gradient is not None for gradient in gradients.values())
    assert gradients["linear.weight"].abs().max() > 0
    compared = how.network.modalities[:1] if how.objective.joint else how.network.modalities
    assert {name for name in NAMES if f"loss/own/{name}" in log} == set(compared)
    assert all(log[f"loss/own/{name}"] != 0 for name in compared)


def test_what_tells_the_methods_apart() -> None:
    for preset, harmonizer in (("robot", "per_modality"), ("paper", "shared")):
        ours, naive, alone = (
            made(method, preset=preset) for method in ("unim2", "naive_fusion", "rgb_only")
        )
        assert (ours.network.harmonizer, ours.network.networks) == (harmonizer, True)
        assert not ours.objective.joint
        assert (naive.network.harmonizer, naive.network.networks) == ("none", False)
        assert naive.objective.joint
        assert ours.network.modalities == naive.network.modalities == NAMES
        assert alone.network.modalities == ("rgb",)
        assert alone.network.harmonized == ()
        assert alone.objective.modality_dropout == 0
        titles = {how.title for how in (ours, naive, alone, made("kmeans", preset=preset))}
        assert len(titles) == 4
        assert all(("paper" in title) == (preset == "paper") for title in titles)


def test_the_robot_preset_makes_the_corrections() -> None:
    how = made()
    assert how.objective.modality_dropout > 0 and how.network.stand_in
    assert how.objective.correspondence.distinct_sources and how.neighbors.distinct_sources
    assert how.neighbors.min_gap_s > 0 and how.neighbors.modalities == "all"
    assert how.choice == "label_free" and how.trainer.candidates > 1
    assert how.trainer.ema_decay > 0 and how.trainer.schedule == "cosine"
    assert how.trainer.warmup_steps > 0
    assert how.start == "even" and made(preset="paper").start == "published"
    assert how.shares is not None
    assert made("rgb_only").neighbors.modalities == "reference"
    weights = [loss.weight for loss in how.objective.modalities.values()]
    assert weights[0] == pytest.approx(sum(weights[1:]))  # the others together count as much


def numbers(loss: Any) -> tuple[float, ...]:
    """a of knn, self and random; b of random, knn and self; w: in the order of the paper."""
    a, b = loss.terms, loss.shifts
    return (a.knn, a.own, a.random, b.random, b.knn, b.own, loss.weight)


@pytest.mark.parametrize(
    ("data", "names", "width", "rate", "steps", "fusion", "rgb", "other"),
    [
        (
            "nyu",
            ("rgb", "depth"),
            70,
            5e-4,
            3334,
            "conv",
            (0.1671, 0.0957, 0.9005, 0.5664, 0.6222, 0.7199, 0.1356),
            (0.2995, 0.6550, 0.0550, 0.2440, 0.4318, 0.1328, 0.8889),
        ),
        (
            "mfnet",
            ("rgb", "thermal"),
            90,
            7.88e-5,
            4334,
            "conv",
            (0.3334, 0.0606, 0.9262, 0.7760, 0.7800, 0.9607, 0.0478),
            (0.9124, 0.2388, 0.5064, 0.5540, 0.2864, 0.0096, 0.4922),
        ),
        (
            "mcubes",
            ("rgb", "aolp"),
            320,
            1.59e-5,
            1334,
            "progressive",
            (0.0705, 0.2237, 0.7443, 0.6375, 0.2830, 0.7865, 0.4046),
            (0.5528, 0.5756, 0.4637, 0.3037, 0.6230, 0.4694, 0.3052),
        ),
    ],
)
def test_the_published_numbers_arrive(
    data: str,
    names: tuple[str, ...],
    width: int,
    rate: float,
    steps: int,
    fusion: str,
    rgb: tuple[float, ...],
    other: tuple[float, ...],
) -> None:
    like = published(data)
    how = recipe("unim2", names, 384, like.classes, preset="paper", like=like, seed=4)
    assert (how.network.code_dim, how.network.fusion) == (width, fusion)
    assert (how.network.feature_dim, how.network.dropout) == (384, 0.1)
    assert (how.network.normalization, how.network.residual) == ("l2", False)
    assert (how.network.projection, how.network.stand_in) == ("nonlinear", False)
    assert numbers(how.objective.modalities["rgb"]) == rgb
    assert numbers(how.objective.modalities[names[1]]) == other
    form = how.objective.correspondence
    assert (form.samples, form.negatives, form.pointwise, form.clamp_negative) == (
        11,
        5,
        True,
        True,
    )
    assert (form.cells, form.distinct_sources, form.clamp_above) == (False, False, None)
    assert (how.objective.modality_dropout, how.objective.reconstruction) == (0.0, 0.0)
    trainer = how.trainer
    assert (trainer.rate, trainer.steps, trainer.seed) == (rate, steps, 4)
    assert (trainer.schedule, trainer.warmup_steps) == ("constant", 0)
    assert (trainer.clip_norm, trainer.ema_decay, trainer.precision) == (None, 0.0, "fp32")
    assert (how.batch, how.samples, how.shares) == (32, None, None)
    assert (how.neighbors.count, how.neighbors.modalities) == (7, "reference")
    assert (how.neighbors.distinct_sources, how.neighbors.min_gap_s) == (False, 0)
    assert (how.prototypes, how.choice, how.standardize) == ("probe", "last", False)


def test_other_modalities_take_the_numbers_of_the_published_one() -> None:
    like = published("mcubes", "INAD")
    how = recipe("unim2", like.modalities, 384, 20, preset="paper", like=like)
    assert how.network.modalities == ("rgb", "nir", "aolp", "dolp")
    others = [how.objective.modalities[name] for name in ("nir", "aolp", "dolp")]
    assert others[0] == others[1] == others[2] != how.objective.modalities["rgb"]
    without = recipe("unim2", ("rgb", "thermal"), 384, 5, preset="paper")
    assert (
        without.objective.modalities["thermal"] == published("nyu").objective.modalities["depth"]
    )


@pytest.mark.parametrize("preset", ["robot", "paper"])
def test_steps_seed_device_and_baseline_are_as_asked(preset: str) -> None:
    how = made(preset=preset, steps=7, seed=9, device="cpu", baseline=True)
    assert (how.trainer.steps, how.trainer.seed, how.trainer.device) == (7, 9, "cpu")
    assert how.trainer.candidates <= 7
    assert how.standardize and not made(preset=preset).standardize
    assert made(preset=preset, steps=2).trainer.steps == 2


@pytest.mark.parametrize(
    ("method", "names", "clusters", "said"),
    [
        ("unim2", NAMES, 1, "2 to 254"),
        ("unim2", NAMES, 255, "2 to 254"),
        ("naive_fusion", ("rgb",), 5, "nothing to fuse"),
        ("magic", NAMES, 5, "no such method"),
    ],
)
def test_what_cannot_be_learnt_is_refused(
    method: str, names: tuple[str, ...], clusters: int, said: str
) -> None:
    for preset in ("robot", "paper"):
        with pytest.raises(ModelError, match=said):
            made(method, names, clusters=clusters, preset=preset)
