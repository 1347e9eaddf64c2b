from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

import torch.nn.functional as F

from unim2_core.learning.pretraining.objective import (
    TARGETS,
    PretrainObjective,
    PretrainWeights,
    balanced,
    sampled,
)
from unim2_core.learning.pretraining.views import CROP, POINTS, Views
from unim2_core.model.tiny import TinyBackbone

BATCH = 3


def _views(seed: int = 0) -> Views:
    draw = torch.Generator().manual_seed(seed)

    def crops() -> torch.Tensor:
        return torch.randn(BATCH, 3, CROP, CROP, generator=draw)

    def places() -> torch.Tensor:
        return torch.rand(BATCH, POINTS, 2, generator=draw) * 1.8 - 0.9

    weight = (torch.rand(BATCH, POINTS, generator=draw) < 0.7).float()
    masked = torch.rand(BATCH, 14, 14, generator=draw) < 0.5
    return Views(
        *(crops(), crops(), crops(), places(), places(), weight, masked),
        torch.tensor([0, 1, 1]),
    )


@pytest.fixture
def objective() -> PretrainObjective:
    torch.manual_seed(0)
    made = PretrainObjective(
        TinyBackbone.untrained(0).transformer,
        2,
        PretrainWeights(prototypes=16),
        torch.full((TARGETS,), 0.3),
        torch.full((TARGETS,), 1.7),
    )
    with torch.no_grad():  # a teacher of its own
        for parameter in made.teacher.parameters():
            parameter.mul_(1.1)
    return made


def test_the_losses_are_what_they_are_called(objective: PretrainObjective) -> None:
    """Place after place, as one would write it down."""
    views = _views()
    _, log = objective(views, 1.0)
    tokens = objective.student.forward_features(views.seen, masked=views.masked).layers[0]
    clean, other = (
        (objective.texture(x)[..., :TARGETS] - 0.3) * 1.7 for x in (views.clean, views.taught)
    )
    hidden, told = [], []
    for b in range(BATCH):
        for i in range(14):
            for j in range(14):
                if views.masked[b, i, j]:
                    found = objective.hidden_head(tokens[b, i, j])
                    hidden.append(F.smooth_l1_loss(found, clean[b, i, j]))
        student = sampled(tokens[b : b + 1], views.seen_at[b : b + 1])[0]
        wanted = sampled(other[b : b + 1], views.taught_at[b : b + 1])[0]
        first = int(views.taught_modality[b]) * TARGETS
        for p in range(POINTS):
            if views.weight[b, p]:
                found = objective.told_head(student[p])[first : first + TARGETS]
                told.append(F.smooth_l1_loss(found, wanted[p]))
    torch.testing.assert_close(log["hidden"], torch.stack(hidden).mean())
    torch.testing.assert_close(log["told"], torch.stack(told).mean())


def test_the_assignment_is_a_cross_entropy_with_what_the_teacher_balances(
    objective: PretrainObjective,
) -> None:
    views, weights = _views(), objective.weights
    _, log = objective(views, 1.0)
    there = views.weight.bool()
    prototypes = F.normalize(objective.prototypes, dim=1)
    taught = sampled(objective.teacher(views.taught), views.taught_at)[there]
    seen = sampled(
        objective.student.forward_features(views.seen, masked=views.masked).layers[0],
        views.seen_at,
    )[there]
    wanted = balanced(
        F.normalize(objective.teacher_project(taught), dim=1)
        @ prototypes.T
        / weights.teacher_temperature
    )
    logits = F.normalize(objective.project(seen), dim=1) @ prototypes.T
    expected = F.cross_entropy(logits / weights.student_temperature, wanted)
    torch.testing.assert_close(log["assigned"], expected, rtol=1e-4, atol=1e-5)
    assert 0 < log["used"] <= 1


def test_the_total_weighs_them(objective: PretrainObjective) -> None:
    objective.weights = PretrainWeights(hidden=0.5, told=2, assigned=3, prototypes=16)
    total, log = objective(_views(), 0.25)
    expected = 0.5 * log["hidden"] + 2 * log["told"] + 0.75 * log["assigned"]
    torch.testing.assert_close(total, expected)
    total, log = objective(_views(), 0.0)
    assert "assigned" not in log
    torch.testing.assert_close(total, 0.5 * log["hidden"] + 2 * log["told"])


def test_no_gradient_reaches_the_teacher_and_it_follows(objective: PretrainObjective) -> None:
    total, _ = objective(_views(), 1.0)
    total.backward()
    learning = {name for name, p in objective.named_parameters() if p.grad is not None}
    assert not any(name.startswith("teacher") for name in learning)
    assert {"prototypes", "project.weight", "told_head.weight", "hidden_head.weight"} <= learning
    name = "blocks.0.mlp.fc1.weight"
    teacher, student = (
        dict(network.named_parameters())[name]
        for network in (objective.teacher, objective.student)
    )
    expected = 0.9 * teacher.detach() + 0.1 * student.detach()
    objective.follow(0.9)
    torch.testing.assert_close(teacher.detach(), expected)


def test_assignments_are_balanced() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 8, generator=draw) + torch.tensor([5.0] + [0.0] * 7)
    found = balanced(logits)
    torch.testing.assert_close(found.sum(1), torch.ones(400))
    assert found.sum(0).min() > 30  # 50 each if it were exact
    assert logits.softmax(1).sum(0).min() < 10


def test_sampling_takes_the_middle_of_a_cell_as_it_is() -> None:
    tokens = torch.arange(12.0).reshape(1, 3, 4, 1)
    centres = torch.tensor([[[-0.75, -2 / 3], [0.25, 0.0], [0.75, 2 / 3]]])
    torch.testing.assert_close(sampled(tokens, centres)[0, :, 0], torch.tensor([0.0, 6.0, 11.0]))


def test_bfloat16_changes_the_loss_only_a_little(objective: PretrainObjective) -> None:
    views = _views()
    exact, _ = objective(views, 1.0)
    objective.bf16 = True
    rounded, log = objective(views, 1.0)
    assert rounded.dtype == torch.float32
    assert log["assigned"].dtype == torch.float32
    torch.testing.assert_close(rounded, exact, rtol=0.02, atol=0)
    assert not torch.equal(rounded, exact)
