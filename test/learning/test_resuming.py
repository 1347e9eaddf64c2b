"""Killed at any moment, a training goes on to the very weights of one that was not."""

from __future__ import annotations

import multiprocessing
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")
pytest.importorskip("lightning_fabric", reason="not installed: pip install 'unim2[train]'")

from training_samples import (
    CONFIG,
    FULL,
    NETWORK,
    batches,
    die_at,
    objective,
    run_but_never_end,
    run_in,
)

from unim2_core.errors import ModelError
from unim2_core.learning.observers import read_history
from unim2_core.learning.trainer import load_candidate, train

torch.set_num_threads(1)
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["torch", "lightning_fabric"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a training that nobody disturbed."""
    run = tmp_path_factory.mktemp("whole")
    run_in(run)
    return run


def state(run: Path) -> dict[str, object]:
    return torch.load(run / "last.ckpt", weights_only=True)["state"]


def assert_same(one: object, other: object, where: str = "state") -> None:
    assert type(one) is type(other), where
    if isinstance(one, dict):
        assert list(one) == list(other), where
        for name in one:
            assert_same(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, torch.Tensor):
        assert one.equal(other), where
    else:
        assert one == other, where


def assert_as_if_whole(run: Path, whole: Path) -> None:
    assert_same(state(run), state(whole))
    files = [sorted(p.name for p in r.rglob("*") if p.is_file()) for r in (run, whole)]
    assert files[0] == files[1]
    for path in (whole / "candidates").iterdir():
        assert (run / "candidates" / path.name).read_bytes() == path.read_bytes()
    logs = [read_history(r / "history.jsonl") for r in (run, whole)]
    for line in (*logs[0], *logs[1]):
        line.get("scalars", {}).pop("speed/steps_per_s", None)
    assert logs[0] == logs[1]


def test_killed_at_random_moments(tmp_path: Path, whole: Path) -> None:
    moments = random.Random(5)
    checkpoint, saved = tmp_path / "last.ckpt", 0
    for _ in range(5):
        process = FORKED.Process(target=run_but_never_end, args=(tmp_path,), daemon=True)
        process.start()
        while not checkpoint.exists() or (saved < 39 and state(tmp_path)["step"] == saved):
            assert process.is_alive()
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.03))
        process.kill()
        process.join()
        assert process.exitcode == -9
        saved = state(tmp_path)["step"]
    assert run_in(tmp_path)[1].resumed_from == saved
    assert_as_if_whole(tmp_path, whole)


@pytest.mark.parametrize("function", ["replace", "fsync"])
def test_killed_while_it_writes(function: str, tmp_path: Path, whole: Path) -> None:
    # The history, then in turns states and candidates: each is cut off once.
    for call in (1, 2, 3, 4, 6):
        process = FORKED.Process(target=die_at, args=(tmp_path, function, call))
        process.start()
        process.join()
        assert process.exitcode == -9
        assert list(tmp_path.rglob(".*")), "it was killed too late to leave something half-written"
    run_in(tmp_path)
    assert_as_if_whole(tmp_path, whole)


def test_a_finished_training_is_not_trained_again(tmp_path: Path, whole: Path) -> None:
    before = (whole / "last.ckpt").read_bytes(), (whole / "history.jsonl").read_bytes()
    model, trained = run_in(whole)
    assert trained.resumed_from == FULL.steps and len(trained.candidates) == FULL.candidates
    assert ((whole / "last.ckpt").read_bytes(), (whole / "history.jsonl").read_bytes()) == before
    assert_same(dict(model.state_dict()), dict(state(whole)["objective"]))


def test_what_does_not_decide_the_weights_may_change(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        train(objective(), lambda n: batches(n if n < 8 else fail()), FULL, tmp_path)
    config = replace(FULL, checkpoint_every=5, log_every=3, pictures_every=0)
    assert train(objective(), batches, config, tmp_path).resumed_from == 6


def fail() -> int:
    raise RuntimeError("on purpose")


def test_another_training_is_refused_by_name(whole: Path) -> None:
    for change, name in (
        ({"rate": 2e-2}, "trainer.rate = 0.01"),
        ({"seed": 4}, "trainer.seed"),
        ({"steps": 41}, "trainer.steps"),
        ({"ema_decay": 0.0}, "trainer.ema_decay"),
        ({"precision": "bf16"}, "trainer.precision"),
    ):
        with pytest.raises(ModelError, match="another training") as caught:
            train(objective(), batches, replace(FULL, **change), whole)
        assert name in str(caught.value)
    with pytest.raises(ModelError, match=r"network.code_dim = 5\n.*network.code_dim = 6"):
        train(objective(replace(NETWORK, code_dim=6)), batches, FULL, whole)
    losses = dict(CONFIG.modalities)
    losses["rgb"] = replace(losses["rgb"], shifts=losses["rgb"].shifts._replace(knn=0.1))
    with pytest.raises(ModelError, match=r"objective.modalities.rgb.shifts.knn"):
        train(objective(config=replace(CONFIG, modalities=losses)), batches, FULL, whole)
    with pytest.raises(ModelError, match=r"data.digest"):
        train(objective(), batches, FULL, whole, facts={"digest": "abc"})


def test_candidates_of_another_training_are_not_mixed_in(tmp_path: Path, whole: Path) -> None:
    folder = tmp_path / "candidates"
    folder.mkdir()
    (folder / "step-000005.safetensors").write_bytes(
        (whole / "candidates" / "step-000005.safetensors").read_bytes()
    )
    with pytest.raises(ModelError, match="step-000005"):
        train(objective(), batches, replace(FULL, seed=1), tmp_path)
    run_in(tmp_path)  # its own
    (folder / "step-000006.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="step-000006"):
        run_in(tmp_path)


@pytest.mark.parametrize("damage", ["short", "empty", "other", "version"])
def test_a_damaged_state_is_refused_and_kept(damage: str, tmp_path: Path, whole: Path) -> None:
    content = (whole / "last.ckpt").read_bytes()
    path = tmp_path / "last.ckpt"
    if damage in ("other", "version"):
        torch.save([1] if damage == "other" else {"format": 0, "facts": "{}", "state": {}}, path)
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "short" else b"")
    before = path.read_bytes()
    with pytest.raises(ModelError, match="no state to go on from"):
        run_in(tmp_path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_candidate_serves_the_average_and_fits_its_network_only(
    tmp_path: Path, whole: Path
) -> None:
    saved = state(whole)
    model = objective()
    path = whole / "candidates" / "step-000040.safetensors"
    load_candidate(model, path)
    for name, value in saved["average"].items():
        assert value.equal(model.state_dict()[name])
    with pytest.raises(ModelError, match=r"another form(.|\n)*segmenter.linear.weight \(5"):
        load_candidate(objective(replace(NETWORK, code_dim=6)), path)
    with pytest.raises(ModelError, match="another form"):
        load_candidate(objective(replace(NETWORK, projection="linear")), path)
    (tmp_path / "broken.safetensors").write_bytes(path.read_bytes()[:500])
    for broken in ("broken.safetensors", "missing.safetensors"):
        with pytest.raises(ModelError, match=broken):
            load_candidate(model, tmp_path / broken)


def test_a_decoder_is_trained_but_not_served(tmp_path: Path) -> None:
    model = objective(config=replace(CONFIG, reconstruction=0.5))
    trained = train(
        model,
        batches,
        replace(FULL, steps=6, warmup_steps=0, candidates=1, reset_probes_at=None),
        tmp_path,
    )
    load_candidate(objective(), trained.candidates[0].path)
    assert "decoder.weight" in state(tmp_path)["objective"]


def test_a_disk_that_is_full_leaves_the_old_state(tmp_path: Path, monkeypatch) -> None:
    import os

    from unim2_core.errors import Unim2Error

    original, states = os.replace, iter(range(9))

    def full(source, target):
        if str(target).endswith("last.ckpt") and next(states) == 2:
            raise OSError(28, "No space left on device")
        original(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(Unim2Error, match=r"last.ckpt(.|\n)*No space left"):
        train(objective(), batches, FULL, tmp_path)
    assert state(tmp_path)["step"] == 6 and not list(tmp_path.glob(".*"))
