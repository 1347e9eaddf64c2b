"""The total against a sum by hand, who gets gradients from where, and one optimiser as three."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.learning.correspondence import CorrespondenceConfig, Shifts, correspondence_terms
from unim2_core.learning.objective import (
    PROBE_RATE,
    Batch,
    ModalityLoss,
    Objective,
    ObjectiveConfig,
    TermWeights,
    build_optimizer,
    reset_probes,
    training_step,
)
from unim2_core.model.segmenter import SegmenterConfig, reconstruction_loss

NETWORK = SegmenterConfig(("rgb", "depth"), feature_dim=8, code_dim=5)
LOSSES = {
    "rgb": ModalityLoss(0.3, TermWeights(0.1, 0.2, 0.9), Shifts(0.7, 0.5, 0.4)),
    "depth": ModalityLoss(0.8, TermWeights(0.6, 0.3, 0.05), Shifts(0.1, 0.4, 0.2)),
}
CONFIG = ObjectiveConfig(LOSSES, CorrespondenceConfig(samples=3, negatives=2))


def batch(labels: bool = True, size: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(2)

    def features() -> dict[str, Tensor]:
        return {n: torch.randn(size, 8, 4, 4, generator=generator) for n in ("rgb", "depth")}

    marks = torch.randint(0, 6, (size, 12, 12), generator=generator)
    return Batch(features(), features(), marks if labels else None)


def objective(network: SegmenterConfig = NETWORK, config: ObjectiveConfig = CONFIG) -> Objective:
    torch.manual_seed(3)
    return Objective(network, config, classes=6).train()


def seeded(model: Objective, given: Batch):
    return model.draw(given, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("harmonize_reference", [False, True])
@pytest.mark.parametrize("weighting", ["none", "tanh"])
def test_total_is_the_sum_of_its_terms(harmonize_reference: bool, weighting: str) -> None:
    network = replace(NETWORK, harmonize_reference=harmonize_reference)
    form = replace(CONFIG.correspondence, weighting=weighting)
    model = objective(network, replace(CONFIG, correspondence=form, reconstruction=0.4, alpha=2.0))
    given = batch()
    draws = seeded(model, given)
    total, log = model(given, draws)

    anchors = model.segmenter(given.anchors, draws.dropout[0])
    positives = model.segmenter(given.positives, draws.dropout[1])
    expected = torch.zeros(())
    for name, loss in LOSSES.items():
        codes = [anchors.code, positives.code]
        if name == "depth" or harmonize_reference:
            codes = [model.segmenter.harmonizers[name](code) for code in codes]
        terms = correspondence_terms(
            (given.anchors[name], given.positives[name]),
            (codes[0], codes[1]),
            draws.correspondence[name],
            loss.shifts,
            form,
            weighted=weighting == "tanh" and name == "depth",
        )
        for kind, term, weight in zip(("own", "knn", "random"), terms, loss.terms, strict=True):
            torch.testing.assert_close(log[f"loss/{kind}/{name}"], term.detach())
            expected = expected + loss.weight * weight * term
        assert log[f"weight/{name}"] == pytest.approx(loss.weight)
    expected = expected + model.cluster_probe(anchors.code, 2.0)[0]
    expected = expected + model.linear_probe.loss(anchors.code, given.labels)
    rebuilt = reconstruction_loss(model.decoder(anchors.code), anchors.returned)
    torch.testing.assert_close(total, expected + 0.4 * rebuilt)
    torch.testing.assert_close(log["loss/total"], total.detach())
    assert not any(value.requires_grad for value in log.values())


def test_labels_never_reach_the_network() -> None:
    gradients = []
    for given in (batch(), batch(labels=False)):
        model = objective()
        total, log = model(given, seeded(model, given))
        total.backward()
        gradients.append([p.grad for p in model.segmenter.parameters()])
        assert ("loss/linear" in log) == (given.labels is not None)
        assert (model.linear_probe.weight.grad is not None) == (given.labels is not None)
    for one, other in zip(*gradients, strict=True):
        assert one.equal(other)


def test_a_modality_without_weight_moves_only_what_the_others_do() -> None:
    silent = {**LOSSES, "depth": replace(LOSSES["depth"], weight=0.0)}
    model = objective(config=replace(CONFIG, modalities=silent))
    given = batch()
    model(given, seeded(model, given))[0].backward()
    assert all(p.grad.abs().max() == 0 for p in model.segmenter.harmonizers.parameters())
    assert model.segmenter.fusion.networks["depth"].conv1.weight.grad.abs().max() > 0


def test_one_optimiser_with_groups_equals_three() -> None:
    given, one, other = batch(), objective(), objective()
    optimizer = build_optimizer(one, 1e-3)
    three = [
        torch.optim.Adam(other.segmenter.parameters(), lr=1e-3),
        torch.optim.Adam(other.linear_probe.parameters(), lr=PROBE_RATE),
        torch.optim.Adam(other.cluster_probe.parameters(), lr=PROBE_RATE),
    ]
    for _ in range(3):
        draws = seeded(one, given)
        training_step(one, optimizer, given, draws)
        other.zero_grad()
        other(given, draws)[0].backward()
        for each in three:
            each.step()
    for name, tensor in one.state_dict().items():
        assert tensor.equal(other.state_dict()[name]), name


def test_steps_repeat_and_make_the_loss_smaller() -> None:
    given, runs = batch(), []
    for _ in range(2):
        model = objective()
        optimizer = build_optimizer(model, 5e-3)
        draws = seeded(model, given)
        runs.append(
            [
                float(training_step(model, optimizer, given, draws)["loss/total"])
                for _ in range(100)
            ]
        )
    assert runs[0] == runs[1]
    assert runs[0][-1] < runs[0][0] - 0.2


def test_the_decoder_learns_with_the_network() -> None:
    model = objective(config=replace(CONFIG, reconstruction=0.5))
    optimizer = build_optimizer(model, 1e-3)
    before = model.decoder.weight.detach().clone()
    given = batch()
    training_step(model, optimizer, given, seeded(model, given))
    moved = (model.decoder.weight - before).abs().max()
    assert float(moved.detach()) == pytest.approx(1e-3, rel=0.01)
    assert objective().decoder is None


def test_reset_probes_forgets_them_and_only_them() -> None:
    model = objective()
    optimizer = build_optimizer(model, 1e-3)
    given = batch()
    training_step(model, optimizer, given, seeded(model, given))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reset_probes(model, optimizer)
    for name, value in model.state_dict().items():
        assert value.equal(before[name]) == name.startswith("segmenter"), name
    probes = {*model.cluster_probe.parameters(), *model.linear_probe.parameters()}
    assert not probes & set(optimizer.state)
    assert optimizer.state


def test_extra_clusters_are_more_centres() -> None:
    model = objective(config=replace(CONFIG, extra_clusters=2))
    assert model.cluster_probe.centers.shape == (8, 5)
    assert model.linear_probe.out_channels == 6


def test_salience_reaches_the_points() -> None:
    form = replace(CONFIG.correspondence, salience=True, samples=10)
    model = objective(config=replace(CONFIG, correspondence=form))
    mask = torch.zeros(4, 4, 4)
    mask[:, 0, 0] = 1
    draws = seeded(model, batch()._replace(salience=(mask, mask)))
    for points in draws.correspondence.values():
        assert (points.anchor == -1).all(-1).float().mean() > 0.8
    assert not draws.correspondence["rgb"].anchor.equal(draws.correspondence["depth"].anchor)


def test_the_network_does_without_what_the_loss_still_compares_with() -> None:
    network = replace(NETWORK, stand_in=True)
    model = objective(network, replace(CONFIG, modality_dropout=0.5))
    torch.nn.init.normal_(model.segmenter.fusion.stand_in)
    there = {n: (torch.rand(4, 4, 4) < 0.8).float() for n in NETWORK.modalities}
    given = batch(labels=False)._replace(presence=(there, there))
    draws = seeded(model, given)._replace(
        shown={"depth": torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0]])}
    )
    _, log = model(given, draws)
    seen = [
        {"rgb": there["rgb"], "depth": there["depth"] * part[:, None, None]}
        for part in draws.shown["depth"]
    ]
    codes = [
        model.segmenter(maps, masks, shown).code
        for maps, masks, shown in zip(given[:2], draws.dropout, seen, strict=True)
    ]
    for name, loss in LOSSES.items():
        supervised = [model.segmenter.supervised_codes(code)[name] for code in codes]
        terms = correspondence_terms(
            (given.anchors[name], given.positives[name]),
            (supervised[0], supervised[1]),
            draws.correspondence[name],
            loss.shifts,
            CONFIG.correspondence,
            presence=(there[name], there[name]),
        )
        for kind, term in zip(("own", "knn", "random"), terms, strict=True):
            torch.testing.assert_close(log[f"loss/{kind}/{name}"], term.detach())

    changed = {**given.anchors, "depth": given.anchors["depth"].clone()}
    changed["depth"][1] += 1.0  # not shown to the network
    code = model.segmenter(changed, draws.dropout[0], seen[0]).code
    torch.testing.assert_close(code, codes[0])
    other = model(given._replace(anchors=changed), draws)[1]
    assert other["loss/own/depth"] != log["loss/own/depth"]
    assert other["loss/own/rgb"] == pytest.approx(float(log["loss/own/rgb"]), rel=1e-5)


def test_every_modality_but_the_reference_is_dropped_now_and_then() -> None:
    model = objective(config=replace(CONFIG, modality_dropout=0.3))
    given = batch(size=200)
    shown = seeded(model, given).shown
    assert set(shown) == {"depth"}
    assert shown["depth"].shape == (2, 200)
    assert set(shown["depth"].unique().tolist()) == {0.0, 1.0}
    assert abs(shown["depth"].mean() - 0.7) < 0.06
    assert not shown["depth"][0].equal(shown["depth"][1])
    assert seeded(objective(), given).shown is None


def test_sources_reach_the_negatives() -> None:
    form = replace(CONFIG.correspondence, distinct_sources=True, negatives=9)
    model = objective(config=replace(CONFIG, correspondence=form))
    sources = torch.tensor([5, 5, 7, 7])
    for drawn in seeded(model, batch()._replace(sources=sources)).correspondence.values():
        assert (sources[drawn.sources] != sources).all()


def test_a_modality_that_is_nowhere_costs_nothing_and_spoils_nothing() -> None:
    model = objective(replace(NETWORK, stand_in=True))
    given = batch()
    there = {"rgb": torch.ones(4, 4, 4), "depth": torch.zeros(4, 4, 4)}
    nothing = {"rgb": given.anchors["rgb"], "depth": torch.zeros_like(given.anchors["depth"])}
    given = given._replace(anchors=nothing, positives=nothing, presence=(there, there))
    total, log = model(given, seeded(model, given))
    total.backward()
    assert all(log[f"loss/{kind}/depth"] == 0 for kind in ("own", "knn", "random"))
    assert all(log[f"loss/{kind}/rgb"] != 0 for kind in ("own", "knn", "random"))
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    assert gradients["segmenter.fusion.stand_in"][1].abs().max() > 0
    assert gradients["segmenter.fusion.networks.depth.conv1.weight"].abs().max() == 0


def test_naive_fusion_compares_all_modalities_side_by_side() -> None:
    network = replace(NETWORK, harmonizer="none", networks=False)
    model = objective(network, replace(CONFIG, joint=True))
    there = {"rgb": torch.ones(4, 4, 4), "depth": (torch.rand(4, 4, 4) < 0.5).float()}
    given = batch(labels=False)._replace(presence=(there, there))
    draws = seeded(model, given)
    _, log = model(given, draws)
    joined = []
    for maps in given[:2]:
        units = [maps[n] / maps[n].norm(dim=1, keepdim=True) * there[n][:, None] for n in there]
        joined.append(torch.cat(units, dim=1))
    codes = [
        model.segmenter(maps, masks, there).code
        for maps, masks in zip(given[:2], draws.dropout, strict=True)
    ]
    terms = correspondence_terms(
        (joined[0], joined[1]),
        (codes[0], codes[1]),
        draws.correspondence["rgb"],
        LOSSES["rgb"].shifts,
        CONFIG.correspondence,
    )
    for kind, term in zip(("own", "knn", "random"), terms, strict=True):
        torch.testing.assert_close(log[f"loss/{kind}/rgb"], term.detach())
    assert "loss/own/depth" not in log


def test_what_cannot_be_formed_is_refused() -> None:
    with pytest.raises(ModelError, match="every modality"):
        Objective(NETWORK, ObjectiveConfig({"rgb": LOSSES["rgb"]}), classes=6)
    for options in (
        {"reconstruction": -1.0},
        {"extra_clusters": -1},
        {"alpha": -2.0},
        {"modality_dropout": 1.0},
    ):
        with pytest.raises(ModelError, match="objective"):
            replace(CONFIG, **options)
