"""Real processes, started by torchrun: the gradient is that of one on the whole batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")
pytest.importorskip("lightning_fabric", reason="not installed: pip install 'unim2[train]'")

import numpy as np
import parallel_training
import training_samples
from training_samples import TRAINING, batches, draws_of, objective

from unim2_core.learning.features import FeatureStore, Standardization
from unim2_core.learning.objective import Objective, build_optimizer, training_step
from unim2_core.learning.pairs import Batches
from unim2_core.learning.trainer import train

torch.set_num_threads(1)
PARALLEL = Path(__file__).with_name("parallel_training.py")


def torchrun(
    program: Path, *arguments: object, options: tuple[str, ...] = (), world: int = 2
) -> str:
    """Processes of a program; returns what went wrong on the way."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
        *("--nproc-per-node", str(world), *options, str(program), *map(str, arguments)),
    ]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stderr


def test_two_processes_end_as_one_does_and_one_writes(tmp_path: Path) -> None:
    torchrun(Path(training_samples.__file__), tmp_path)
    ends = [torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert ends[0]["candidates"] == ends[1]["candidates"] == [3, 6, 9, 12]

    model, losses = trained_alone()
    for name, tensor in model.state_dict().items():
        assert ends[0]["weights"][name].equal(ends[1]["weights"][name]), name
        torch.testing.assert_close(ends[0]["weights"][name], tensor, rtol=1e-4, atol=1e-5)
    saved = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert saved["state"]["step"] == 12 and "processes" not in saved["facts"]
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["candidates", "history.jsonl", "last.ckpt"]
    lines = map(json.loads, (tmp_path / "run" / "history.jsonl").read_text().splitlines())
    said = [line["scalars"]["loss/total"] for line in lines if "scalars" in line]
    assert said == pytest.approx(losses[1::2], abs=1e-5)  # of the whole batch


def test_one_goes_on_where_four_with_an_image_each_stopped(tmp_path: Path) -> None:
    torchrun(PARALLEL, "interrupted", tmp_path, world=4)
    lines = map(json.loads, (tmp_path / "run" / "history.jsonl").read_text().splitlines())
    shown = {line["histogram"] for line in lines if "histogram" in line}
    assert "correspondence/knn/code/rgb" in shown and not any("random" in one for one in shown)

    model, _ = trained_alone()
    last = objective()
    assert train(last, batches, TRAINING, tmp_path / "run").resumed_from == 6
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(last.state_dict()[name], tensor, rtol=1e-4, atol=1e-5)


def trained_alone() -> tuple[Objective, list[float]]:
    """What one process makes of whole batches, and its losses."""
    model = objective().train()
    optimizer = build_optimizer(model, TRAINING.rate)
    losses = []
    for step in range(TRAINING.steps):
        given = batches(step)
        log = training_step(model, optimizer, given, draws_of(model, given, step))
        losses.append(float(log["loss/total"]))
    return model, losses


@pytest.mark.parametrize("world", [2, 3])
def test_gradients_of_processes_are_those_of_one(tmp_path: Path, world: int) -> None:
    torchrun(PARALLEL, "gradients", tmp_path, world=world)
    for name, config in parallel_training.CONFIGS.items():
        found = [
            torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in range(world)
        ]
        model = objective(config=config).train()
        optimizer = build_optimizer(model, TRAINING.rate)
        for step in range(parallel_training.STEPS):
            given = parallel_training.varied(step, name)
            training_step(model, optimizer, given, draws_of(model, given, step))
            expected = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
            assert expected.keys() <= found[0][step].keys() and len(expected) > 5
            for parameter, gradient in expected.items():
                for one in found:
                    torch.testing.assert_close(one[step][parameter], gradient, rtol=0, atol=1e-5)
            assert max(gradient.abs().max() for gradient in expected.values()) > 1e-2


def test_a_killed_process_goes_on_from_the_checkpoint(tmp_path: Path) -> None:
    said = torchrun(PARALLEL, "dying", tmp_path, options=("--max-restarts", "1"))
    assert "SIGKILL" in said or "exitcode: -9" in said
    for rank in (0, 1):
        lives = [(tmp_path / f"lives-{rank}" / life).read_text() for life in ("0", "1")]
        assert lives == ["", "6"]  # cut off, and on from the checkpoint of step 6
    model, _ = trained_alone()
    for rank in (0, 1):
        weights = torch.load(tmp_path / f"weights-{rank}.pt", weights_only=True)
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("world", [1, 2, 3, 8])
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
        assert made.indices is not None and abs(len(made.indices) - 32 / world) < 1
        return made.indices.tolist()

    for step in range(4):  # beyond the end of an epoch
        parts = [anchors(step, rank, world) for rank in range(world)]
        assert [row for part in parts for row in part] == anchors(step, 0, 1)
