"""``unim2 info`` prints what is in a bag, whole or damaged, and where it is no bag says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bag_samples import KINDS, custom_bag, images, robot, write_kind, write_rosbag2
from typer.testing import CliRunner, Result

from unim2_core.cli.main import app
from unim2_core.model.bundle import Bundle


def info(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["info", *map(str, arguments)])
    # A traceback is a defect, whatever the bag is like.
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_bag(tmp_path: Path, kind: str) -> None:
    bag = write_kind(kind, tmp_path, robot(30))
    result = info(bag, "--json", tmp_path / "info.json")
    assert result.exit_code == 0, result.output
    for text in ("/depth/image", "sensor_msgs/msg/CameraInfo", "16UC1", "rgb_optical", "100.0 %"):
        assert text in result.stdout
    content = json.loads((tmp_path / "info.json").read_text())
    assert content["stopped"] is None
    assert content["findings"] == []
    assert content["reference"] == "/rgb/image"
    depth = content["topics"]["/depth/image"]
    assert depth["messages"] == 30
    assert depth["rate_hz"] == pytest.approx(10)
    assert depth["image"]["encoding"] == "16UC1"
    (pairing,) = content["pairings"]
    assert pairing["share"] == 1
    assert pairing["offset_s"] == pytest.approx(0.003)


def test_a_damaged_bag_is_shown_and_fails(tmp_path: Path) -> None:
    bag = write_rosbag2(tmp_path / "drive", images(count=30, shape=(300, 300, 3)))
    file = bag / "drive.mcap"
    file.write_bytes(file.read_bytes()[:5_000_000])
    result = info(bag, "--json", tmp_path / "info.json")
    assert result.exit_code == 1
    assert "/rgb/image" in result.stdout
    assert "damaged at byte" in " ".join(result.stderr.split())
    content = json.loads((tmp_path / "info.json").read_text())
    assert "last good message" in content["stopped"]
    assert 12 <= content["topics"]["/rgb/image"]["messages"] < 20


def test_what_is_wrong_is_a_warning(tmp_path: Path) -> None:
    nir = images("/nir/image", offset_ns=10**12)
    bag = write_rosbag2(tmp_path / "drive", [*images(), *nir])
    (bag / "metadata.yaml").unlink()
    result = info(bag)
    assert result.exit_code == 0
    words = " ".join(result.stderr.split())
    assert "do not overlap in time" in words
    assert "ros2 bag reindex" in words


def test_types_of_others(tmp_path: Path) -> None:
    result = info(custom_bag(tmp_path / "drive.mcap"))
    assert result.exit_code == 0
    assert "robot_msgs/msg/Odd (custom)" in result.stdout
    assert "Thing (unknown)" in result.stdout


def test_another_reference(tmp_path: Path) -> None:
    bag = write_rosbag2(tmp_path / "drive", robot())
    assert "Beside /depth/image" in info(bag, "--reference", "/depth/image").stdout
    result = info(bag, "--reference", "/nothing")
    assert result.exit_code == 1
    assert "/depth/image, /rgb/image" in " ".join(result.stderr.split())


def test_names_with_brackets_are_no_markup(tmp_path: Path) -> None:
    bag = write_rosbag2(tmp_path / "drive [red]", robot())
    result = info(bag)
    assert result.exit_code == 0
    assert "drive [red]" in result.stdout


@pytest.mark.parametrize("content", [b"", b"some text", b"\x89MCAP0\r\n"])
def test_what_is_no_bag(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "drive.mcap").write_bytes(content)
    result = info(tmp_path / "drive.mcap")
    assert result.exit_code == 1
    for word in ("expected:", "found:", "to do:"):
        assert word in result.stderr
    assert result.stdout == ""


def test_usage() -> None:
    assert info().exit_code == 2
    result = info("--help")
    assert result.exit_code == 0
    assert "unim2 info drive" in result.stdout


def test_a_model(model_path: Path, tmp_path: Path) -> None:
    result = info(model_path, "--json", tmp_path / "model.json")
    assert result.exit_code == 0, result.output
    manifest = Bundle(model_path).manifest
    for text in ("preset robot", "cluster 0", "for trying, not for a robot", "image of rgb"):
        assert text in " ".join(result.stdout.split())
    content = json.loads((tmp_path / "model.json").read_text())
    assert content["sha256"] == Bundle(model_path).sha256
    assert [label["id"] for label in content["manifest"]["labels"]] == [
        label.id for label in manifest.labels
    ]
    result = info(tmp_path / "gone.unim2")
    assert result.exit_code == 1
    assert "cannot open the model" in result.stderr
