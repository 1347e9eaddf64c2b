"""``unim2 rig`` writes a rig that the other commands take."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from bag_samples import images, robot, write_kind, write_rosbag2
from typer.testing import CliRunner, Result

from unim2_core.cli.main import app
from unim2_core.sensing.rig import Rig


def rig(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["rig", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.mark.parametrize("kind", ["mcap", "db3", "ros1"])
def test_to_standard_output(tmp_path: Path, kind: str) -> None:
    result = rig(write_kind(kind, tmp_path, robot()))
    assert result.exit_code == 0
    found = Rig.parse(yaml.safe_load(result.stdout))
    assert found.name == "drive"
    assert list(found.sensors) == ["rgb", "depth"]
    assert "# extrinsics from /tf_static" not in result.stderr
    assert "# extrinsics from /tf_static" in result.stdout


def test_to_a_file_that_is_not_overwritten(tmp_path: Path) -> None:
    bag, out = write_rosbag2(tmp_path / "drive", robot()), tmp_path / "rig.yaml"
    result = rig(bag, "--out", out)
    assert result.exit_code == 0
    assert "rgb, depth" in result.stdout and "reference rgb" in result.stdout
    assert Rig.load(out).sensors["depth"].topic == "/depth/image"
    out.write_text("edited by hand")
    result = rig(bag, "--out", out)
    assert result.exit_code == 1
    assert "--force" in result.stderr
    assert out.read_text() == "edited by hand"
    assert rig(bag, "--out", out, "--force").exit_code == 0
    assert Rig.load(out).reference == "rgb"


def test_of_a_damaged_bag(tmp_path: Path) -> None:
    bag = write_rosbag2(tmp_path / "drive", images(count=30, shape=(300, 300, 3)))
    file = bag / "drive.mcap"
    file.write_bytes(file.read_bytes()[:5_000_000])
    result = rig(bag)
    assert result.exit_code == 0
    assert "only a part of the bag was read" in " ".join(result.stderr.split())
    assert Rig.parse(yaml.safe_load(result.stdout)).sensors["rgb"].topic == "/rgb/image"


def test_of_a_bag_without_images(tmp_path: Path) -> None:
    samples = [sample for sample in robot() if sample.topic == "/tf_static"]
    result = rig(write_rosbag2(tmp_path / "drive", samples))
    assert result.exit_code == 1
    assert "no rig can be made" in result.stderr


def test_usage() -> None:
    assert rig().exit_code == 2
    result = rig("--help")
    assert result.exit_code == 0
    assert "unim2 rig drive --out rig.yaml" in result.stdout
