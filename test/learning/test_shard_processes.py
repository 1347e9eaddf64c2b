"""Two real processes of torchrun learn from a fleet; one is killed on the way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")
pytest.importorskip("lightning_fabric", reason="not installed: pip install 'unim2[train]'")

import parallel_shards
from shard_samples import write_shard
from test_training_processes import torchrun

import unim2_core.learning.pairs as pairs

torch.set_num_threads(1)
COUNT = 2 * pairs.BLOCK


@pytest.mark.parametrize("kind", ["immortal", pytest.param("mortal", marks=pytest.mark.slow)])
def test_each_reads_its_part_and_a_killed_one_goes_on(kind: str, tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_shard(tmp_path, name, ord(name), COUNT)
    program, killed = Path(parallel_shards.__file__), kind == "mortal"
    said = torchrun(program, tmp_path, tmp_path, kind, options=("--max-restarts", "1"))
    assert killed == ("SIGKILL" in said or "exitcode: -9" in said)
    parts = [json.loads((tmp_path / f"said-{rank}.json").read_text()) for rank in (0, 1)]
    began = (4, "1") if killed else (0, "0")
    assert [(part["began"], part["life"]) for part in parts] == [began] * 2
    assert sum(part["checked"] for part in parts) == 2 * COUNT  # each record by one of them
    assert min(part["checked"] for part in parts) >= 2 * COUNT // 3
    alone = parallel_shards.learner_of(tmp_path, tmp_path / "cache")
    there = torch.load(tmp_path / "neighbors.pt", weights_only=True)
    assert there.equal(torch.from_numpy(alone.neighbors.indices))
    ends = [torch.load(tmp_path / f"weights-{rank}.pt", weights_only=True) for rank in (0, 1)]
    objective = alone.objective()
    before = {name: tensor.clone() for name, tensor in objective.state_dict().items()}
    alone.train(objective, tmp_path / "alone")
    for name, tensor in objective.state_dict().items():
        assert ends[0][name].equal(ends[1][name]), name
        torch.testing.assert_close(ends[0][name], tensor, rtol=1e-3, atol=1e-5)
    assert any(not tensor.equal(before[name]) for name, tensor in ends[0].items())
