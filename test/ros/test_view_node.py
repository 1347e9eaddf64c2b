"""The live view: what comes in and what a node answers, as a recording and in the viewer."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")
pytest.importorskip("rerun", reason="pip install 'unim2[view]'")

from live_node import Talker, talking
from sensor_msgs.msg import Image

pytestmark = pytest.mark.ros
DOMAIN = 78
RUN = "from unim2_core.cli.main import run; run()"


def _view(tmp_path: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            *(sys.executable, "-c", RUN, "ros", "view", "--rig", str(tmp_path / "rig.yaml")),
            *("--max-rate", "1000", *words),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN), "BROWSER": "true", "DISPLAY": ""},
    )


def _ended(process: subprocess.Popen[str], talker: Talker) -> str:
    """Send images until it has ended; returns what it said."""
    assert talker.until(lambda: process.poll() is not None, talker.send)
    return process.communicate(timeout=10)[0]  # where a child held the pipe it would not end


def _rows(recording: Path) -> Counter[str]:
    from rerun.chunk import RrdReader

    found: Counter[str] = Counter()
    for chunk in RrdReader(recording).stream():
        if not chunk.is_static:
            found[chunk.entity_path] += chunk.num_rows
    return found


def test_a_recording_has_the_sensors_and_the_answers_of_the_node(
    model_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "live.rrd"
    with talking(tmp_path, DOMAIN, f"model:={model_path}", "stride:=2") as talker:
        talker.says("idle", step=talker.send)
        process = _view(tmp_path, "--model", str(model_path), "--save", str(out))
        masks = talker.listen("/segment/segmentation", Image)
        assert talker.until(lambda: talker.node.count_subscribers("/segment/segmentation") == 2)
        while len(masks) < 12:  # slowly: each is to be answered in time
            talker.send()
            talker.until(lambda: False, wait_s=0.25)
        process.send_signal(signal.SIGINT)
        said = _ended(process, talker)
    assert process.returncode == 0, said
    rows = _rows(out)
    assert f"{rows['/modalities/rgb']} sets shown" in said
    assert rows["/modalities/rgb"] >= rows["/modalities/thermal"] > 0
    assert rows["/modalities/rgb"] >= rows["/mask"] > 0, "an answer may come too late"
    assert rows["/mask"] == rows["/confidence"] == rows["/latency/arrival"]
    names = json.loads((model_path / "manifest.json").read_text())["labels"]
    assert rows[f"/shares/{names[0]['id']}"] == rows["/mask"]
    assert list(tmp_path.glob(".*.partial")) == []


def test_without_a_node_the_sensors_are_shown_until_it_is_stopped(
    model_path: Path, tmp_path: Path
) -> None:
    out = tmp_path / "live.rrd"
    with talking(tmp_path, DOMAIN, f"model:={model_path}", "autostart:=false") as talker:
        process = _view(tmp_path, "--save", str(out))
        assert talker.until(lambda: talker.node.count_subscribers("/rgb/image") == 1)
        for _ in range(20):
            talker.until(lambda: False, talker.send, wait_s=0.1)
        process.send_signal(signal.SIGINT)
        said = _ended(process, talker)
    assert process.returncode == 0, said
    rows = _rows(out)
    assert rows["/modalities/rgb"] >= 3
    assert not rows["/mask"]


def test_the_web_viewer_is_served_on_this_machine_alone(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}") as talker:
        process = _view(tmp_path, "--web", "--frames", "3")
        said = _ended(process, talker)
    assert process.returncode == 0, said
    assert "3 sets shown" in said
    assert re.search(r"^http://127.0.0.1:\d+\?url=rerun%2Bhttp%3A%2F%2F127.0.0.1", said, re.M)
    addresses = set(re.findall(r"https?://([\w.]+):\d+", said)) - {"rerun.io"}
    assert addresses <= {"127.0.0.1", "localhost"}, said


def test_nothing_at_all_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "rig.yaml").write_text("sensors: {rgb: {topic: /nowhere/image}}")
    out = tmp_path / "live.rrd"
    process = _view(tmp_path, "--save", str(out))
    for line in process.stdout or ():
        if "no image of rgb came" in line:
            break
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "no image came in" in said
    assert not out.exists()
    assert list(tmp_path.glob(".*.partial")) == []
