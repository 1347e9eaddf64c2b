"""``unim2 export``: files or engines, and what cannot be done is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("onnx", reason="onnx is not installed: pip install onnx")

from unim2_core.cli.main import app
from unim2_core.inference.cuda import device_there

runner = CliRunner()


def test_files_are_written_where_it_says(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["export", str(model_path), "--size", "64x96", "--stride", "4", "--json", "e.json"]
    done = runner.invoke(app, command)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "scene-fp32-64x96"
    written = json.loads((folder / "export.json").read_text())
    assert written == json.loads((tmp_path / "e.json").read_text())
    assert written["stride"] == 4
    assert "head.onnx" in done.output and "label agreement 1.0000" in done.output
    again = runner.invoke(app, command)
    assert again.exit_code == 1
    assert "exists" in again.output and "--overwrite" in again.output
    assert runner.invoke(app, [*command, "--overwrite"]).exit_code == 0


@pytest.mark.parametrize(
    "options",
    [
        ["--size", "60x97"],
        ["--size", "64x96", "--dynamic"],
        ["--stride", "3"],
        ["--precision", "bf16"],
        ["--build-only", "--stride", "4"],
    ],
)
def test_what_does_not_go_together_is_bad_usage(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    done = runner.invoke(app, ["export", str(model_path), *options])
    assert done.exit_code == 2, done.output
    assert list(tmp_path.iterdir()) == []


def test_engines_are_built_and_held_against_the_model(model_path: Path, tmp_path: Path) -> None:
    report = tmp_path / "built.json"
    command = ["export", str(model_path), "--build-only", "--backend", "onnxruntime"]
    done = runner.invoke(app, [*command, "--json", str(report)])
    assert done.exit_code == 0, done.output
    assert "onnxruntime, fp32: token cosine" in done.output
    assert json.loads(report.read_text())["parity"]["agreement"] > 0.99


@pytest.mark.skipif(device_there(), reason="there is a CUDA device")
def test_without_a_gpu_tensorrt_is_refused_and_nothing_crashes(model_path: Path) -> None:
    done = runner.invoke(app, ["export", str(model_path), "--build-only", "--backend", "tensorrt"])
    assert done.exit_code == 1
    assert "CUDA device" in done.output or "not installed" in done.output
    assert not (model_path / "engines").exists()
