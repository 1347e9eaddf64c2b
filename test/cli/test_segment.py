from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from scenes import write_bag
from typer.testing import CliRunner

from unim2_core.cli.main import COMMANDS, app
from unim2_core.sensing.bags import BagReader

runner = CliRunner()


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS), ["ros", "segment"]])
def test_help_shows_an_example(command: list[str]) -> None:
    result = runner.invoke(app, [*command, "--help"])
    assert result.exit_code == 0
    if command:
        assert f"unim2 {' '.join(command)}" in result.output.split("Example", 1)[1]


def test_version() -> None:
    from unim2_core import __version__

    assert __version__ in runner.invoke(app, ["--version"]).output


def test_a_bag_is_segmented_and_reported(model_path: Path, tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 4)
    out, report = tmp_path / "out.mcap", tmp_path / "report.json"
    arguments = ["segment", str(tmp_path / "drive"), "--model", str(model_path)]
    result = runner.invoke(app, [*arguments, "--out", str(out), "--json", str(report)])
    assert result.exit_code == 0, result.output
    assert "for trying" in result.output
    assert "4 images segmented" in result.output
    figures = json.loads(report.read_text())
    assert figures["frames"] == 4
    assert figures["used"] == {"rgb": 4, "thermal": 4}
    with BagReader(out) as reader:
        assert reader.topics["/segment/segmentation"].count == 4


def test_a_damaged_bag_ends_with_status_1_and_what_could_be_read(
    model_path: Path, tmp_path: Path
) -> None:
    write_bag(tmp_path / "drive.mcap", 200)
    content = (tmp_path / "drive.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(content[: int(len(content) * 0.6)])
    out = tmp_path / "out.mcap"
    arguments = ["segment", str(tmp_path / "cut.mcap"), "--model", str(model_path)]
    result = runner.invoke(app, [*arguments, "--out", str(out)])
    assert result.exit_code == 1
    assert "is damaged" in result.output
    with BagReader(out) as reader:
        assert reader.topics["/segment/segmentation"].count > 0


def test_streams_without_overlap_are_named(model_path: Path, tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 4, thermal_delay_ns=60_000_000_000)
    arguments = ["segment", str(tmp_path / "drive"), "--model", str(model_path)]
    result = runner.invoke(app, [*arguments, "--out", str(tmp_path / "out.mcap")])
    assert result.exit_code == 0, result.output
    assert "thermal was in no set" in result.output


def test_a_robot_segments_without_torch(model_path: Path, tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 2)
    arguments = ["segment", str(tmp_path / "drive"), "--model", str(model_path)]
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None, onnxscript=None, rclpy=None)\n"
        "from unim2_core.cli.main import run; run()"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments, "--out", str(tmp_path / "out.mcap")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    assert "2 images segmented" in result.stdout


@pytest.mark.parametrize(
    ("change", "status", "expected"),
    [
        (["--topic", "rgb=/none"], 1, "to do:    name it with --topic rgb=/its/topic"),
        (["--topic", "sonar=/rgb/image"], 2, "SENSOR=TOPIC"),
        (["--rig", "missing.yaml"], 1, "unim2 rig BAG"),
        (["--backend", "abacus"], 2, "onnxruntime"),
        (["--backend", "onnxruntime", "--precision", "bf16"], 1, "does not compute in bf16"),
    ],
)
def test_bad_usage_is_explained_and_nothing_is_written(
    model_path: Path, tmp_path: Path, change: list[str], status: int, expected: str
) -> None:
    write_bag(tmp_path / "drive", 2)
    arguments = ["segment", str(tmp_path / "drive"), "--model", str(model_path)]
    result = runner.invoke(app, [*arguments, "--out", str(tmp_path / "out.mcap"), *change])
    assert result.exit_code == status, result.output
    assert expected in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["drive"]


def test_ctrl_c_says_so(model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bag(tmp_path / "drive", 2)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("unim2_core.inference.bag_segmenter.BagSegmenter.run", interrupt)
    arguments = ["segment", str(tmp_path / "drive"), "--model", str(model_path)]
    result = runner.invoke(app, [*arguments, "--out", str(tmp_path / "out.mcap")])
    assert result.exit_code == 130
    assert "interrupted" in result.output
