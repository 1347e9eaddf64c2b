"""The node in a process of its own, fed by another over DDS, recorded by a third."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scenes import HEIGHT, WIDTH, write_bag

from unim2_core.cli.live import run_live
from unim2_core.inference.backends import LIBRARIES
from unim2_core.sensing.bag_messages import stamp_ns
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.rig import Rig

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")
pytestmark = pytest.mark.ros

RIG = Rig.parse(
    {
        "sensors": {
            "rgb": {"topic": "/rgb/image"},
            "thermal": {"topic": "/thermal/image", "thermal": {"conversion": "centikelvin"}},
        }
    }
)
DOMAIN = 61


@pytest.fixture
def rig_file(tmp_path: Path) -> Path:
    (tmp_path / "rig.yaml").write_text(RIG.dump())
    return tmp_path / "rig.yaml"


def _published(bag: Path) -> dict[str, list[object]]:
    found: dict[str, list[object]] = {}
    with BagReader(bag) as reader:
        for message in reader.messages():
            found.setdefault(message.topic, []).append(message.decode())
    return found


@pytest.mark.parametrize(
    ("settings", "runs_on"),
    [
        ((), "onnxruntime, fp32"),
        pytest.param(
            ("backend:=openvino", "half_auxiliaries:=true"),
            "openvino, fp32",
            marks=pytest.mark.skipif(
                not LIBRARIES["openvino"].installed,
                reason="openvino is not installed: pip install 'unim2[openvino]'",
            ),
        ),
    ],
)
def test_every_image_is_published_or_counted(
    model_path: Path, rig_file: Path, tmp_path: Path, settings: tuple[str, ...], runs_on: str
) -> None:
    write_bag(tmp_path / "drive", 30)
    live = tmp_path / "live"
    report = run_live(
        tmp_path / "drive", model_path, rig_file, live, domain=DOMAIN, settings=settings
    )
    assert runs_on in (live / "segment_node.log").read_text()
    published = _published(tmp_path / "live" / "outputs")
    masks = published["/segment/segmentation"]
    counts = report.counters
    lost = sum(counts[key] for key in ("superseded by a newer set", "failed"))
    assert report.played == 30
    assert counts["published"] + lost + counts["idle, nobody subscribes"] == 30
    assert counts["published"] == len(masks) > 0  # how many is a matter of the machine
    assert (masks[0].height, masks[0].width, masks[0].encoding) == (HEIGHT, WIDTH, "mono8")
    assert {mask.header.frame_id for mask in masks} == {"rgb_optical_frame"}
    stamps = [stamp_ns(mask.header) for mask in masks]
    assert stamps == sorted(set(stamps))
    assert set(np.unique(masks[-1].data)) <= set(range(4))
    overlay = published["/segment/overlay"][0]
    assert (overlay.encoding, overlay.step) == ("rgb8", 3 * WIDTH)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "no model is given"),
        (["-p", "model:=/nowhere/none.unim2"], "cannot open the model"),
        (["-p", "model:={model}", "-p", "rig:=/nowhere/rig.yaml"], "cannot read the rig file"),
        (["-p", "model:={model}", "-p", "backend:=abacus"], "parameter backend cannot be used"),
        (["-p", "model:={model}", "-p", "precision:=int3"], "parameter precision cannot be used"),
        (
            ["-p", "model:={model}", "-p", "backend:=onnxruntime", "-p", "precision:=bf16"],
            "onnxruntime does not compute in bf16",
        ),
        (["-p", "model:={model}", "-p", "threads:=-1"], "parameter threads cannot be used"),
        (["-p", "model:={model}", "-p", "threads:=two"], "a parameter cannot be declared"),
        (["--sonar"], "ROS cannot start with these arguments"),
        (["--params-file", "/nowhere/params.yaml"], "ROS cannot start with these arguments"),
    ],
)
def test_a_start_that_cannot_work_says_why(
    model_path: Path, arguments: list[str], expected: str
) -> None:
    given = [argument.format(model=model_path) for argument in arguments]
    result = subprocess.run(
        [sys.executable, "-m", "unim2_ros.segment_node", "--ros-args", *given],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)},
    )
    assert result.returncode == 1
    assert f"error: {expected}" in result.stderr
    assert "to do:" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["segment", "--model", "a: b #1.unim2"], "cannot open the model a: b #1.unim2"),
        (["segment", "--model", "2024"], "cannot open the model 2024"),
        (["play", "drive", "--rate", "nan"], "expected a rate above 0"),
        (["play", "--help"], "move the stamps to the present"),
    ],
)
def test_arguments_reach_the_node_as_they_are(
    tmp_path: Path, arguments: list[str], expected: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-c", "from unim2_core.cli.main import run; run()", "ros", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "ROS_DOMAIN_ID": str(DOMAIN)},
    )
    assert expected in result.stdout + result.stderr
    assert "Traceback" not in result.stderr
