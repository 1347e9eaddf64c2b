"""Two real processes, started by torchrun: the gradient is the mean of both."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")
pytest.importorskip("lightning_fabric", reason="not installed: pip install 'unim2[train]'")

import numpy as np
import training_samples
from training_samples import TRAINING, batches, objective

from unim2_core.learning.features import FeatureStore, Standardization
from unim2_core.learning.objective import build_optimizer
from unim2_core.learning.pairs import Batches

torch.set_num_threads(1)
PARALLEL = Path(__file__).with_name("parallel_training.py")


def torchrun(program: Path, *arguments: object, options: tuple[str, ...] = ()) -> str:
    """Two processes of a program; returns what went wrong on the way."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", "2", *options, str(program), *map(str, arguments)),
    ]
    given = {"env": environment, "capture_output": True, "text": True, "check": False}
    try:
        done = subprocess.run(command, timeout=100, **given)
    except subprocess.TimeoutExpired:  # on a busy machine the processes have failed to meet
        warnings.warn(f"{arguments} did not end and was begun again", stacklevel=2)
        done = subprocess.run(command, timeout=100, **given)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_two_processes_end_alike_and_one_writes(tmp_path: Path) -> None:
    torchrun(Path(training_samples.__file__), tmp_path)
    ends = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert ends[0]["candidates"] == ends[1]["candidates"] == [3, 6, 9, 12]

    model = objective().train()
    optimizer = build_optimizer(model, TRAINING.rate)
    for step in range(TRAINING.steps):
        optimizer.zero_grad()
        for rank in (0, 1):
            given = batches(step, rank=rank)
            draws = training_samples.draws_of(model, given, step, rank)
            (model(given, draws)[0] / 2).backward()
        optimizer.step()
    for name, tensor in model.state_dict().items():
        assert ends[0]["weights"][name].equal(ends[1]["weights"][name]), name
        torch.testing.assert_close(ends[0]["weights"][name], tensor, rtol=1e-4, atol=1e-5)
    saved = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert saved["state"]["step"] == 12 and '"trainer.processes": 2' in saved["facts"]
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["candidates", "history.jsonl", "last.ckpt"]
    steps = (tmp_path / "run" / "history.jsonl").read_text().count("loss/total")
    assert steps == 6


def test_gradients_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    torchrun(PARALLEL, "gradients", tmp_path)
    found = [torch.load(tmp_path / f"gradients-{r}.pt", weights_only=True) for r in (0, 1)]
    model = objective().train()
    optimizer = build_optimizer(model, TRAINING.rate)
    for step in range(len(found[0])):
        optimizer.zero_grad(set_to_none=True)
        for rank in (0, 1):
            given = batches(step, rank=rank)
            draws = training_samples.draws_of(model, given, step, rank)
            (model(given, draws)[0] / 2).backward()
        expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        assert expected.keys() <= found[0][step].keys() and len(expected) > 5
        for name, gradient in expected.items():
            assert found[0][step][name].equal(found[1][step][name]), name
            torch.testing.assert_close(found[0][step][name], gradient, rtol=0, atol=1e-5)
        assert max(gradient.abs().max() for gradient in expected.values()) > 1e-2
        optimizer.step()


def test_a_killed_process_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    said = torchrun(PARALLEL, "dying", tmp_path, options=("--max-restarts", "1"))
    assert "SIGKILL" in said or "exitcode: -9" in said
    for rank in (0, 1):
        lives = [(tmp_path / f"lives-{rank}" / life).read_text() for life in ("0", "1")]
        assert lives == ["", "6"]  # cut off, and on from the checkpoint of step 6
    model = objective().train()
    optimizer = build_optimizer(model, TRAINING.rate)
    for step in range(TRAINING.steps):
        optimizer.zero_grad()
        for rank in (0, 1):
            given = batches(step, rank=rank)
            draws = training_samples.draws_of(model, given, step, rank)
            (model(given, draws)[0] / 2).backward()
        optimizer.step()
    for rank in (0, 1):
        weights = torch.load(tmp_path / f"weights-{rank}.pt", weights_only=True)
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_the_batch_of_32_is_kept_whatever_the_number_of_processes(world: int) -> None:
    count, rng = 70, np.random.default_rng(0)
    names = ("rgb", "thermal")
    tokens = {name: rng.normal(size=(count, 2, 2, 4)).astype(np.float16) for name in names}
    presence = {name: np.ones((count, 2, 2), bool) for name in names}
    rows = np.arange(count)
    store = FeatureStore(tokens, presence, rows, np.zeros(count, np.int64), rows)
    neighbors = (rows[:, None] + [[1, 2]]) % count
    identity = Standardization.identity(2, 4)

    def anchors(step: int, rank: int, world: int) -> list[int]:
        made = Batches(store, neighbors, identity, rank=rank, world=world)(step)
        assert made.indices is not None and len(made.indices) == 32 // world
        return made.indices.tolist()

    for step in range(4):  # beyond the end of an epoch
        parts = [anchors(step, rank, world) for rank in range(world)]
        assert [row for part in parts for row in part] == anchors(step, 0, 1)
