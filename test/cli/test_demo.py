from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from unim2_core.cli import demo
from unim2_core.cli.main import app

runner = CliRunner()


@pytest.fixture(autouse=True)
def no_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "write_drive", stop)


def _demo(out: Path, *more: str) -> object:
    return runner.invoke(app, ["demo", "--out", str(out), *more])


def test_an_earlier_demo_is_replaced_and_its_folder_stays(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    (out / "drive").mkdir(parents=True)
    (out / "drive" / "drive.mcap").touch()
    (out / "overlay.mp4").touch()
    (out / demo.MARKER).touch()
    folder = out.stat().st_ino
    assert _demo(out).exit_code == 130
    assert {entry.name for entry in out.iterdir()} == {demo.MARKER, "rig.yaml"}
    assert out.stat().st_ino == folder


def test_nothing_else_is_ever_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    result = _demo(tmp_path)
    assert result.exit_code == 1
    assert "was not made by unim2 demo" in result.output
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_its_place_is_explained(tmp_path: Path) -> None:
    (tmp_path / "demo").touch()
    result = _demo(tmp_path / "demo")
    assert result.exit_code == 1
    assert "cannot write" in result.output
    assert "to do:" in result.output


def test_a_number_of_classes_that_cannot_be_is_refused_before_any_work(tmp_path: Path) -> None:
    result = _demo(tmp_path / "demo", "--clusters", "1")
    assert result.exit_code == 1
    assert "2 to 254" in result.output
    assert not (tmp_path / "demo").exists()
