"""Two real processes, started by torchrun: the gradient is the mean of both."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")
pytest.importorskip("lightning_fabric", reason="not installed: pip install 'unim2[train]'")

import training_samples
from training_samples import TRAINING, batches, objective

from unim2_core.learning.objective import build_optimizer

torch.set_num_threads(1)


def test_two_processes_end_alike_and_one_writes(tmp_path: Path) -> None:
    program = str(Path(training_samples.__file__))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", program, str(tmp_path)),
        ],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
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
