"""Learning from a small world of blobs that needs both modalities to be told apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from unim2_core.errors import ModelError
from unim2_core.learning import learner as learner_module
from unim2_core.learning.features import FeatureStore
from unim2_core.learning.learner import Learned, Learner, refitted
from unim2_core.learning.methods import Recipe, Start, recipe
from unim2_core.learning.selection import agreement, chosen, loaded, looked_at
from unim2_core.learning.trainer import load_candidate, train
from unim2_core.model.classifier import Classifier

DIM, SIDE, CLUSTERS, COUNT = 12, 5, 4, 16
NAMES = ("rgb", "thermal")
STEPS = 40


def blobs(*, flipped: bool = False, thermal: bool = True) -> tuple[FeatureStore, np.ndarray]:
    """Tokens and the truth, (N, h, w): RGB tells the bits of 2, thermal those of 1, of each class.

    Pictures are of one half or the other of the classes' mixtures, so that neighbours mean
    something; every token carries noise.
    """
    rng = np.random.default_rng(0)
    centres = {name: rng.standard_normal((2, DIM)) for name in NAMES}
    truth = rng.integers(0, CLUSTERS, (COUNT, SIDE, SIDE))
    truth[::2, :, :3] = 0
    truth[1::2, :, :3] = 3
    bits = {"rgb": truth // 2, "thermal": truth % 2}
    tokens = {
        name: (centres[name][bits[name]] + 0.35 * rng.standard_normal((*truth.shape, DIM)))
        for name in NAMES
    }
    presence = {name: np.ones(truth.shape, np.bool_) for name in NAMES}
    if not thermal:
        presence["thermal"][:] = False
    if flipped:
        rows = looked_at(COUNT)
        tokens = {name: part[rows][:, :, ::-1] for name, part in tokens.items()}
        presence = {name: part[rows][:, :, ::-1] for name, part in presence.items()}
    numbers = np.arange(len(presence["rgb"]))
    store = FeatureStore(
        {name: np.ascontiguousarray(part, np.float16) for name, part in tokens.items()},
        presence,
        numbers,
        np.zeros_like(numbers),
        np.full_like(numbers, -1),
    )
    return store, truth


def how(method: str = "unim2", names: tuple[str, ...] = NAMES, **options: Any) -> Recipe:
    made = recipe(method, names, DIM, CLUSTERS, steps=STEPS, device="cpu", **options)  # type: ignore[arg-type]
    trainer = replace(made.trainer, candidates=4, log_every=STEPS, checkpoint_every=STEPS)
    return replace(made, batch=8, trainer=trainer)


def learnt(run: Path, recipe: Recipe | None = None, **options: Any) -> Learned:
    torch.set_num_threads(1)
    return Learner(blobs()[0], recipe or how()).learn(run, **options)


def assigned(classifier: Classifier) -> np.ndarray:
    store, _ = blobs()
    tokens, presence = loaded(store, np.arange(COUNT), classifier.modalities)
    return classifier.scores(tokens, presence).argmax(dim=1).numpy()


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Learned:
    return learnt(tmp_path_factory.mktemp("one"))


def test_clusters_are_the_blobs(one: Learned) -> None:
    _, truth = blobs()
    assert agreement(truth, assigned(one.classifier)) > 0.9  # chance: 0
    shares = np.bincount(assigned(one.classifier).ravel(), minlength=CLUSTERS) / truth.size
    np.testing.assert_allclose(one.shares, shares, atol=1e-6)
    assert (np.diff(one.shares) <= 0).all() and one.shares.sum() == pytest.approx(1)
    norms = one.classifier.prototypes.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(CLUSTERS))
    assert 0 < one.full_margin < 2


def test_one_modality_alone_does_not_tell_them_apart(tmp_path: Path) -> None:
    alone = learnt(tmp_path / "run", how("rgb_only"))
    assert alone.classifier.modalities == ("rgb",)
    assert agreement(blobs()[1], assigned(alone.classifier)) < 0.7


def test_training_makes_the_loss_smaller(one: Learned) -> None:
    learner = Learner(blobs()[0], how())
    first = learner.objective()
    last = one.objective
    last.config = first.config
    losses = []
    for objective in (first, last):
        objective.eval()
        with torch.no_grad():
            logs = []
            for step in range(4):
                batch = learner.batches()(1000 + step)
                draws = objective.draw(batch, generator=torch.Generator().manual_seed(step))
                logs.append(objective(batch, draws)[1])
        losses.append(
            [sum(float(log[f"loss/{k}"]) for log in logs) for k in ("own", "knn", "random")]
        )
    assert sum(losses[1]) < sum(losses[0])


def test_equal_seeds_give_equal_models(one: Learned, tmp_path: Path) -> None:
    torch.manual_seed(999)  # whatever ran before
    torch.rand(3)
    again = learnt(tmp_path / "again")
    for name, tensor in one.classifier.state_dict().items():
        assert tensor.equal(again.classifier.state_dict()[name]), name
    np.testing.assert_array_equal(one.shares, again.shares)
    assert one.full_margin == again.full_margin
    other = Learner(blobs()[0], how(seed=1)).objective()
    mine = Learner(blobs()[0], how()).objective()
    assert not other.segmenter.linear.weight.equal(mine.segmenter.linear.weight)


def test_building_an_objective_leaves_the_randomness_of_others_alone() -> None:
    before = torch.get_rng_state()
    Learner(blobs()[0], how()).objective()
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("start", ["even", "published"])
def test_the_network_starts_as_the_recipe_says(start: Start) -> None:
    store, _ = blobs()
    how = replace(recipe("unim2", NAMES, DIM, CLUSTERS, steps=STEPS), start=start)
    network = Learner(store, how).objective().segmenter
    biases = [value for name, value in network.named_parameters() if name.endswith("bias")]
    assert all(not bias.any() for bias in biases) == (start == "even")


def test_shifts_come_from_the_features_where_shares_are_asked_for() -> None:
    measured = Learner(blobs()[0], how()).objective().config.modalities
    assert len({loss.shifts for loss in measured.values()}) == 2
    shifts = [shift for loss in measured.values() for shift in loss.shifts]
    assert all(-2 < shift < 2 and shift != 0 for shift in shifts)  # centred: beyond a cosine
    stated = Learner(blobs()[0], how(preset="paper")).objective().config
    assert stated == how(preset="paper").objective


@pytest.mark.parametrize("wanted", [0, 2])
def test_the_candidate_that_the_rule_names_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: int
) -> None:
    seen: list[Any] = []

    def rule(found: list[Any]) -> int:
        seen.extend(found)
        return wanted

    monkeypatch.setattr(learner_module, "chosen", rule)
    result = learnt(tmp_path / "run", mirrored=blobs(flipped=True)[0])
    assert len(seen) == 4
    assert all(0 <= criteria.flips <= 1 for criteria in seen)
    facts = result.report["chosen"]
    assert "without labels" in facts["by"] and facts["candidates"] == 4
    assert facts["criteria"] == seen[wanted].as_json()
    assert facts["step"] == (wanted + 1) * STEPS // 4

    learner = Learner(blobs()[0], how())
    trained = learner.train(learner.objective(), tmp_path / "run")  # done: nothing to train
    objective = learner.objective()
    load_candidate(objective, trained.candidates[wanted].path)
    served = learner.classifier(objective)
    for name, tensor in served.state_dict().items():
        assert tensor.equal(result.classifier.state_dict()[name]), name
    for name, tensor in objective.state_dict().items():
        assert tensor.equal(result.objective.state_dict()[name]), name


def test_the_rule_of_the_robot_is_the_one_without_labels(one: Learned) -> None:
    assert how().choice == "label_free"
    assert learner_module.chosen is chosen
    assert one.report["chosen"]["candidates"] == 4


def test_the_published_choice_is_the_last_and_its_clusters_are_the_probe(tmp_path: Path) -> None:
    result = learnt(tmp_path / "run", how(preset="paper"))
    assert result.report["chosen"]["by"] == "the last step"
    assert result.report["chosen"]["step"] == STEPS
    centres = torch.nn.functional.normalize(result.objective.cluster_probe.centers.detach(), dim=1)
    distances = torch.cdist(centres, result.classifier.prototypes)
    assert sorted(distances.argmin(dim=1).tolist()) == list(range(CLUSTERS))
    assert distances.min(dim=1).values.max() < 1e-5
    assert (np.diff(result.shares) <= 0).all()


def test_a_model_is_not_changed_by_training_on(tmp_path: Path) -> None:
    learner = Learner(blobs()[0], how())
    objective = learner.objective()
    classifier = learner.classifier(objective)
    before = {name: part.clone() for name, part in classifier.state_dict().items()}
    train(objective, learner.batches(), learner.recipe.trainer, tmp_path / "run")
    for name, part in classifier.state_dict().items():
        assert part.equal(before[name]), name


@pytest.mark.parametrize("seed", [0, 3])
def test_refitted_prototypes_are_the_directions_of_separate_codes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    directions = torch.linalg.qr(torch.randn(6, 4, generator=generator))[0].T
    codes = directions.repeat(30, 1) + 0.05 * torch.randn(120, 6, generator=generator)
    codes = torch.nn.functional.normalize(codes, dim=1)
    found = refitted(codes, 4, seed)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    nearest = (found @ directions.T).max(dim=1)
    assert sorted(nearest.indices.tolist()) == [0, 1, 2, 3]
    assert nearest.values.min() > 0.99
    assert refitted(codes, 4, seed).equal(found)


def test_what_cannot_be_learnt_from_is_refused() -> None:
    store, _ = blobs()
    many = replace(how(), clusters=COUNT * SIDE**2 + 1)
    with pytest.raises(ModelError, match="fewer places"):
        Learner(store, many)
    Learner(store, replace(many, clusters=COUNT * SIDE**2))
    with pytest.raises(ModelError, match="none of the pictures"):
        Learner(blobs(thermal=False)[0], how())
    Learner(blobs(thermal=False)[0], how("rgb_only"))
    with pytest.raises(ModelError, match="no features of a modality"):
        Learner(store, how(names=("rgb", "nir")))
