"""An adaptation that is stopped at any moment: what is served, and what it comes to in the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from adaptation_samples import rewritten

from unim2_core.model.bundle import TRAINING, WEIGHTS, Bundle

pytest.importorskip("torch", reason="adapting a model needs torch: pip install 'unim2[train]'")
pytestmark = pytest.mark.slow

PROGRAM = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from unim2_core.cli import adapting
from unim2_core.learning.adapter import Adapter, AdapterConfig
from unim2_core.sensing.rig import Rig

model, drive, rig, run, killed_after, resume = sys.argv[1:]
original, count = Adapter.take, 0

def take(self, *arguments):
    global count
    if count == int(killed_after):
        os.kill(os.getpid(), signal.SIGKILL)
    count += 1
    return original(self, *arguments)

Adapter.take = take
plan = adapting.Plan(
    [Path(drive)], Rig.load(Path(rig)), Path(run),
    config=AdapterConfig(steps_per_picture=2, seed=3), resume=resume == "resume",
    checkpoint_every=7,
)
made = adapting.adapt_model(Path(model), plan)
print(made.judgement.verdict, made.steps)
"""


def run(model: Path, drive: Path, rig: Path, folder: Path, killed_after: int, resume: str) -> str:
    arguments = [str(part) for part in (model, drive, rig, folder, killed_after, resume)]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ,
    )
    expected = 0 if killed_after < 0 else -signal.SIGKILL
    assert done.returncode == expected, done.stderr
    return done.stdout.splitlines()[-1] if done.stdout else ""


def test_what_goes_on_after_a_kill_ends_in_the_model_of_what_was_not_stopped(
    site_path: Path, tmp_path: Path
) -> None:
    def few(topic: str, number: int, message: object) -> object:
        return message if number < 30 else None

    rig = site_path / "rig.yaml"
    drive = rewritten(site_path / "night", tmp_path / "drive", few)
    whole = Path(shutil.copytree(site_path / "site.unim2", tmp_path / "whole.unim2"))
    broken = Path(shutil.copytree(site_path / "site.unim2", tmp_path / "broken.unim2"))
    first = Bundle(broken).sha256
    ended = run(whole, drive, rig, tmp_path / "one", -1, "anew")
    for killed_after in (5, 12, 9):  # before the first checkpoint, after it, after more
        run(broken, drive, rig, tmp_path / "two", killed_after, "resume")
        assert Bundle(broken).sha256 == first
    resumed = run(broken, drive, rig, tmp_path / "two", -1, "resume")
    assert resumed == ended
    assert not resumed.startswith("rejected"), "there is nothing to compare"
    folders = [model / "versions" / "0001" for model in (whole, broken)]
    for name in (WEIGHTS, TRAINING, "memory.safetensors"):
        ours, theirs = ((folder / name).read_bytes() for folder in folders)
        assert ours == theirs, name
