"""Run by torchrun: one of several processes that learn from a fleet; one dies once."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import torch
from shard_samples import fleet_at, store_of

from unim2_core.learning import neighbors, shard_places
from unim2_core.learning.hardware import Process
from unim2_core.learning.learner import Learner
from unim2_core.learning.methods import recipe

DEATH = 5
"""Step in which process 1 is killed in its first life; the last checkpoint is that of step 4."""


def learner_of(place: Path, cache: Path) -> Learner:
    """The same in every process, and without others."""
    made = recipe("unim2", ("rgb", "thermal"), 6, 3, steps=8, baseline=True, device="cpu")
    trainer = replace(made.trainer, checkpoint_every=2, precision="fp32")
    made = replace(made, batch=8, samples=2, trainer=trainer)
    return Learner(store_of(cache, "bag", 0, 8), made, fleet_at(str(place)))


def main(place: Path, folder: Path, *, mortal: bool) -> None:
    """Learn, and say what was held against its checksum, and where it began."""
    rank = Process.current().rank
    checked: list[int] = []
    check = shard_places.LocalRecords.check

    def counted(self, numbers):
        checked.append(len(numbers))
        check(self, numbers)

    shard_places.LocalRecords.check = counted
    neighbors.BLOCK_BYTES = 2**14  # so that there are blocks for both to search
    learner = learner_of(place, folder / "cache")
    batches, life = learner.batches(), os.environ["TORCHELASTIC_RESTART_COUNT"]
    asked: list[int] = []

    def given(step: int):
        asked.append(step)
        if mortal and rank == 1 and life == "0" and step == DEATH:
            os.kill(os.getpid(), signal.SIGKILL)
        return batches(step)

    learner.batches = lambda: given  # type: ignore[method-assign]
    objective = learner.objective()
    learner.train(objective, folder / "run", facts={"fleet": fleet_at(str(place)).identity})
    torch.save(objective.state_dict(), folder / f"weights-{rank}.pt")
    said = {"checked": sum(checked), "began": asked[0], "life": life}
    (folder / f"said-{rank}.json").write_text(json.dumps(said))
    if rank == 0:
        torch.save(torch.from_numpy(learner.neighbors.indices), folder / "neighbors.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]), mortal=sys.argv[3] == "mortal")
