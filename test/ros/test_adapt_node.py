"""Learning from the topics as they come: the same learner, the same guard, served by the node."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import adaptation_samples as samples
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")
pytest.importorskip("torch", reason="adapting a model needs torch: pip install 'unim2[train]'")

from live_node import talking

from unim2_core.model.bundle import Bundle
from unim2_core.model.versions import read_history, served
from unim2_core.sensing.rig import Rig

pytestmark = [pytest.mark.ros, pytest.mark.slow]
DOMAIN = 77
RUN = "from unim2_core.cli.main import run; run()"
PICTURES = 36


@pytest.fixture
def model(site_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(site_path / "site.unim2", tmp_path / "site.unim2"))


def _start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, "ros", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)},
    )


def test_an_accepted_version_is_served_by_the_node_beside_it(
    site_path: Path, model: Path, tmp_path: Path
) -> None:
    drive = samples.write_more(tmp_path / "more", seed=4)
    rig, before = Rig.load(site_path / "rig.yaml"), Bundle(model)
    report = tmp_path / "report.json"
    with talking(tmp_path, DOMAIN, f"model:={model}", "watch_model:=0.2", rig=rig) as talker:
        learning = _start(
            *("adapt", str(model), "--rig", str(site_path / "rig.yaml"), "--steps", "1"),
            *("--frames", str(PICTURES), "--max-rate", "1000", "--json", str(report)),
        )
        playing = None
        try:
            talker.says("waits for the first picture", "adapt")
            playing = _start("play", str(drive), "--now", "--rate", "1.5")
            said, _ = learning.communicate(timeout=90)
            assert learning.returncode == 0, said
            now = served(model)
            assert talker.until(lambda: talker.version() == now.sha256[:12])
        finally:
            for process in filter(None, (learning, playing)):
                process.kill()
                process.wait()
    assert "accepted: version 1" in said
    assert (now.number, Bundle(model).manifest.parent) == (1, before.sha256)
    content = json.loads(report.read_text())
    assert content["verdict"] == "accepted"
    [entry] = read_history(model)
    assert entry.details["drives"] == ["live topics"]
    assert entry.details["figures"]["frames"] > 20


def test_nothing_that_comes_in_and_an_end_by_signal_leave_the_model(
    site_path: Path, model: Path
) -> None:
    before = (model / "manifest.json").read_bytes()
    words = ("adapt", str(model), "--rig", str(site_path / "rig.yaml"))
    process = _start(*words, "--wait", "0.5")
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "no picture came in" in said
    assert "images on /rgb/image within 0.5 s" in said
    process = _start(*words, "--rounds", "0")
    for line in process.stdout or ():
        if "remembered:" in line:
            break
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert (model / "manifest.json").read_bytes() == before
    assert read_history(model) == []
