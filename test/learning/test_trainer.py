"""Against a plain loop, what is written and told, and how it stops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")
pytest.importorskip("lightning_fabric", reason="not installed: pip install 'unim2[train]'")

import numpy as np
from training_samples import CONFIG, FULL, NETWORK, TRAINING, batches, draws_of, objective

from unim2_core.errors import ModelError
from unim2_core.learning.hardware import Process, network_in, resolve_device, resolve_precision
from unim2_core.learning.objective import build_optimizer, training_step
from unim2_core.learning.observers import Observer
from unim2_core.learning.trainer import load_candidate, train

torch.set_num_threads(1)


class Told(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.begun, self.ended, self.steps = [], [], []
        self.numbers, self.pictures, self.histograms = {}, {}, {}

    def start(self, facts, resumed_from):
        self.begun.append(resumed_from)

    def progress(self, progress):
        self.steps.append(progress)

    def scalars(self, step, values):
        self.numbers[step] = dict(values)

    def images(self, step, images):
        self.pictures[step] = images

    def histogram(self, step, name, values):
        self.histograms[step, name] = values

    def close(self, status):
        self.ended.append(status)


def test_paper_settings_equal_a_plain_loop(tmp_path: Path) -> None:
    trained, plain = objective(), objective().train()
    result = train(trained, batches, TRAINING, tmp_path)
    optimizer = build_optimizer(plain, TRAINING.rate)
    for step in range(TRAINING.steps):
        given = batches(step)
        log = training_step(plain, optimizer, given, draws_of(plain, given, step))
    for name, tensor in plain.state_dict().items():
        assert tensor.equal(trained.state_dict()[name]), name
    assert result.scalars["loss/random/thermal"] == float(log["loss/random/thermal"])
    assert (result.device, result.precision) in {("cpu", "fp32"), ("cuda", "fp32")}


def test_every_option_by_hand(tmp_path: Path) -> None:
    trained, plain = objective(), objective().train()
    config = replace(FULL, reset_probes_at=None)
    result = train(trained, batches, config, tmp_path)
    optimizer = build_optimizer(plain, config.rate)
    averages = {name: p.detach().clone() for name, p in plain.named_parameters()}
    network = optimizer.param_groups[0]["params"]
    for step in range(config.steps):
        done = max(0, step - 4) / 36
        cosine = (1 + np.cos(np.pi * done)) / 2
        optimizer.param_groups[0]["lr"] = config.rate * min(1, (step + 1) / 5) * cosine
        optimizer.param_groups[1]["lr"] = 5e-3 * cosine
        given = batches(step)
        optimizer.zero_grad()
        plain(given, draws_of(plain, given, step))[0].backward()
        torch.nn.utils.clip_grad_norm_(network, 0.5)
        optimizer.step()
        decay = min(0.9, (step + 1) / (step + 10))
        for name, parameter in plain.named_parameters():
            averages[name] = decay * averages[name] + (1 - decay) * parameter.detach()
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], tensor)
    served = objective()
    load_candidate(served, result.candidates[-1].path)
    for name, tensor in averages.items():
        torch.testing.assert_close(served.state_dict()[name], tensor)
        assert not tensor.equal(trained.state_dict()[name])


def test_the_network_gets_better(tmp_path: Path) -> None:
    told = Told()
    config = replace(TRAINING, steps=100, log_every=1)
    train(objective(), lambda step: batches(0), config, tmp_path, observers=[told])
    assert told.numbers[100]["loss/total"] < told.numbers[1]["loss/total"] - 0.1


def test_what_is_told_and_when(tmp_path: Path) -> None:
    told, seen = Told(), []

    def validate(model):
        assert not model.training and not torch.is_grad_enabled()
        seen.append(model.state_dict()["linear_probe.weight"].clone())
        return {"val/miou": 0.25}

    def pictures(model):
        return {"labels": np.zeros((4, 4, 3), np.uint8)}

    config = replace(TRAINING, ema_decay=0.9, log_every=5, validate_every=4, pictures_every=6)
    model = objective()
    train(
        model,
        lambda step: batches(step, labels=True),
        config,
        tmp_path,
        observers=[told],
        validate=validate,
        pictures=pictures,
    )
    assert (told.begun, told.ended) == ([0], ["finished"])
    assert [p.done for p in told.steps] == list(range(1, 13))
    assert {p.total for p in told.steps} == {12} and told.steps[-1].seconds_left == 0
    assert list(told.numbers) == [4, 5, 6, 8, 10, 12]
    assert told.numbers[4] == {"val/miou": 0.25}
    expected = {"loss/total", "loss/knn/thermal", "loss/linear", "gradient/norm", "rate/probes"}
    assert expected | {"speed/steps_per_s", "rate/network"} <= set(told.numbers[5])
    assert 1 <= told.numbers[6]["clusters/used"] <= 6
    assert list(told.pictures) == [6, 12]
    names = {name for step, name in told.histograms if step == 6}
    assert len(names) == 1 + 2 * 3 * 2 and "correspondence/random/code/thermal" in names
    own = told.histograms[12, "correspondence/own/features/rgb"]
    assert own.shape == (4 * 81,) and own.max() == pytest.approx(1) and own.min() >= -1.001
    assert not seen[-1].equal(model.state_dict()["linear_probe.weight"].cpu())  # the average
    assert not model.training


def test_observing_changes_nothing(tmp_path: Path) -> None:
    one, other = objective(), objective()
    train(one, batches, FULL, tmp_path / "one")
    config = replace(FULL, pictures_every=1, validate_every=1, log_every=1, checkpoint_every=40)
    train(
        other,
        batches,
        config,
        tmp_path / "other",
        observers=[Told()],
        validate=lambda model: {"val/first": float(torch.rand(()))},
    )
    for name, tensor in one.state_dict().items():
        assert tensor.equal(other.state_dict()[name]), name


def test_probes_begin_anew_once(tmp_path: Path) -> None:
    runs = {}
    for at in (None, 6):
        runs[at] = objective()
        config = replace(TRAINING, reset_probes_at=at, ema_decay=0.99, steps=7, candidates=1)
        result = train(runs[at], batches, config, tmp_path / str(at))
    segmenters = [m.segmenter.state_dict() for m in runs.values()]
    assert all(segmenters[0][name].equal(value) for name, value in segmenters[1].items())
    served = objective()
    load_candidate(served, result.candidates[-1].path)
    # One step of Adam from the new centres, in the average as in the weights themselves.
    moved = served.cluster_probe.centers - runs[6].cluster_probe.centers
    assert moved.abs().max() < 6e-3
    assert (runs[6].cluster_probe.centers - runs[None].cluster_probe.centers).abs().max() > 0.5


def poisoned(step: int):
    batch = batches(step)
    if step == 7:
        batch.anchors["thermal"][2, 0, 0, 0] = float("nan")
    return batch


def test_a_loss_that_is_not_finite_stops_it_and_keeps_the_last_state(tmp_path: Path) -> None:
    told, model = Told(), objective()
    with pytest.raises(ModelError) as caught:
        train(model, poisoned, TRAINING, tmp_path, observers=[told])
    text = str(caught.value)
    assert "step 7" in text and "loss/own/rgb is nan" in text
    assert "thermal are not finite in anchors 2" in text and "28 29 30 31" in text
    assert "after step 6" in text and str(tmp_path / "last.ckpt") in text
    assert told.ended == ["failed"] and max(told.numbers) == 6
    result = train(objective(), batches, TRAINING, tmp_path)
    assert result.resumed_from == 6 and [c.step for c in result.candidates] == [3, 6, 9, 12]


def test_the_first_bad_term_is_named(tmp_path: Path) -> None:
    losses = dict(CONFIG.modalities)
    huge = losses["thermal"].shifts._replace(random=float("inf"))
    losses["thermal"] = replace(losses["thermal"], shifts=huge)
    model = objective(config=replace(CONFIG, modalities=losses))
    with pytest.raises(ModelError, match="loss/random/thermal") as caught:
        train(model, batches, TRAINING, tmp_path)
    assert "none was saved" in str(caught.value) and not list(tmp_path.iterdir())


def test_a_gradient_that_is_not_finite_changes_no_weight(tmp_path: Path) -> None:
    model = objective()
    model.segmenter.linear.weight.register_hook(lambda gradient: gradient * float("inf"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ModelError, match=r"gradient of segmenter\.linear\.weight"):
        train(model, batches, TRAINING, tmp_path)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


def test_control_c_closes_everything_and_leaves_the_last_state(tmp_path: Path) -> None:
    class Stubborn(Told):
        def close(self, status):
            super().close(status)
            raise OSError("cannot close")

    told, stubborn = Told(), Stubborn()

    def interrupted(step: int):
        if step == 8:
            raise KeyboardInterrupt
        return batches(step)

    with pytest.raises((KeyboardInterrupt, OSError)):
        train(objective(), interrupted, TRAINING, tmp_path, observers=[told, stubborn])
    assert told.ended == stubborn.ended == ["interrupted"]
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [
        "last.ckpt",
        "step-000003.safetensors",
        "step-000006.safetensors",
    ]
    uninterrupted, resumed = objective(), objective()
    train(uninterrupted, batches, TRAINING, tmp_path / "other")
    assert train(resumed, batches, TRAINING, tmp_path).resumed_from == 6
    for name, value in uninterrupted.state_dict().items():
        assert value.equal(resumed.state_dict()[name])


def test_bf16_is_the_network_only(tmp_path: Path) -> None:
    model, given = objective().train(), batches(0)
    draws = draws_of(model, given, 0)
    plain, _ = model(given, draws)
    dtypes = []
    model.segmenter.linear.register_forward_hook(lambda *call: dtypes.append(call[2].dtype))
    with network_in("bf16", model, "cpu"):
        rough, rough_log = model(given, draws)
        code = model.segmenter(given.anchors, draws.dropout[0]).code
        harmonized = model.segmenter.supervised_codes(code)["thermal"]
    assert set(dtypes) == {torch.bfloat16}
    assert code.dtype == harmonized.dtype == rough.dtype == torch.float32
    assert 0 < (rough - plain).abs() < 2e-2
    assert all(value.dtype == torch.float32 for value in rough_log.values())
    exact, _ = model(given, draws)
    assert exact.equal(plain) and "forward" not in vars(model.segmenter)
    told = Told()
    config = replace(TRAINING, precision="bf16")
    assert train(objective(), batches, config, tmp_path, observers=[told]).precision == "bf16"
    assert np.isfinite(told.numbers[12]["loss/total"])


def test_the_machine_is_asked_what_it_has(monkeypatch, tmp_path: Path) -> None:
    from unim2_core.learning import hardware

    facts = tmp_path / "cpuinfo"
    monkeypatch.setattr(hardware, "CPU_FACTS", facts)
    assert resolve_precision("auto", "cpu") == "fp32"
    for flags, expected in (
        ("fpu avx2", "fp32"),
        ("fpu amx_bf16", "bf16"),
        ("asimd bf16", "bf16"),
    ):
        facts.write_text(f"flags : {flags} sse\n")
        assert resolve_precision("auto", "cpu") == expected
        assert resolve_precision("fp32", "cpu") == "fp32"
        assert resolve_precision("bf16", "cpu") == "bf16"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ModelError, match="GPU"):
        resolve_device("cuda")


def test_a_process_that_torchrun_did_not_describe_is_refused(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert Process.current() == Process()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ModelError, match="torchrun"):
        Process.current()
    monkeypatch.setenv("RANK", "1")
    assert Process.current() == Process(1, 2, 2)


def test_progressive_fusion_keeps_its_running_statistics(tmp_path: Path) -> None:
    network = replace(NETWORK, fusion="progressive")
    model, resumed = objective(network), objective(network)
    result = train(model, batches, replace(TRAINING, ema_decay=0.5), tmp_path)
    load_candidate(resumed, result.candidates[-1].path)
    buffers = dict(model.named_buffers())
    assert buffers
    for name, value in resumed.named_buffers():
        assert value.equal(buffers[name])
