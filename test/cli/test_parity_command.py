"""``unim2 parity`` as a user sees it: rows, what is not covered, exit status, JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from unim2_core.cli import parity
from unim2_core.errors import ModelError


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    app.command()(parity.command)
    return app


def golden(parity_dir: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "golden"
    folder.mkdir()
    shutil.copyfile(parity_dir / "backbone_tiny.npz", folder / "backbone_tiny.npz")
    return folder


def test_all_within_tolerance(
    app: typer.Typer, parity_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity.console, "width", 40)  # nothing is cut off or broken for it
    result = CliRunner().invoke(
        app, [str(golden(parity_dir, tmp_path)), "--json", str(tmp_path / "out.json")]
    )
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.output.splitlines()]
    rows = [line for line in lines if line and line[0] == "backbone_tiny.npz"]
    assert len(rows) == 9
    assert all(row[-1] == "ok" and row[-2] == "2.0e-05" for row in rows)
    assert "not covered" not in result.output
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["ok"] is True
    assert content["not_covered"] == []
    assert [row["compared"] for row in content["rows"]][:2] == [
        "patch_tokens_normed",
        "feature_map",
    ]
    assert all(row["max_error"] <= row["tolerance"] and row["ok"] for row in content["rows"])


def test_file_that_is_not_covered_is_listed_and_fails(
    app: typer.Typer, parity_dir: Path, tmp_path: Path
) -> None:
    folder = golden(parity_dir, tmp_path)
    for name in ("x_new.npz", "run.ckpt", "run_expected.npz"):
        (folder / name).write_bytes(b"")
    result = CliRunner().invoke(app, [str(folder)])
    assert result.exit_code == 1
    assert "not covered yet: run.ckpt, x_new.npz\n" in result.output
    assert CliRunner().invoke(app, [str(folder), "--file", "backbone_tiny.npz"]).exit_code == 0
    only = CliRunner().invoke(app, [str(folder), "--file", "run"])
    assert (only.exit_code, only.output) == (1, "not covered yet: run.ckpt\n")


def test_row_that_is_out_fails_and_is_valid_json(
    app: typer.Typer, parity_dir: Path, tmp_path: Path
) -> None:
    folder = golden(parity_dir, tmp_path)
    with np.load(folder / "backbone_tiny.npz") as file:
        arrays = dict(file)
    arrays["cls_normed"] = arrays["cls_normed"][:1]
    np.savez(folder / "backbone_tiny.npz", **arrays)
    result = CliRunner().invoke(app, [str(folder), "--json", str(tmp_path / "out.json")])
    assert result.exit_code == 1
    [out] = [line.split() for line in result.output.splitlines() if line.rstrip().endswith("OUT")]
    assert out[-4:] == ["cls_normed", "inf", "2.0e-05", "OUT"]
    content = json.loads((tmp_path / "out.json").read_text())
    assert not content["ok"]
    assert [row["max_error"] for row in content["rows"] if not row["ok"]] == [None]


def test_what_is_skipped_is_said_and_does_not_count(
    app: typer.Typer, parity_dir: Path, tmp_path: Path
) -> None:
    shutil.copyfile(parity_dir / "metrics.npz", tmp_path / "metrics.npz")
    result = CliRunner().invoke(app, [str(tmp_path), "--json", str(tmp_path / "out.json")])
    assert result.exit_code == 0, result.output
    [line] = [line for line in result.output.splitlines() if "skipped:" in line]
    assert line.split()[:3] == ["metrics.npz", "hungarian_extra2", "mapped_first"]
    assert line.endswith("skipped: the release stored nothing")
    assert result.output.splitlines()[-1] == "16 ok, 0 out, 1 skipped"
    content = json.loads((tmp_path / "out.json").read_text())
    [row] = [row for row in content["rows"] if row["skipped"]]
    assert (row["ok"], row["max_error"]) == (False, None)


def test_folder_without_golden_files_is_an_error(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(tmp_path)])
    assert isinstance(result.exception, ModelError)
    assert CliRunner().invoke(app, []).exit_code == 2
