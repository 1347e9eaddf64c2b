"""``unim2 fleet`` does with each drive what the command of the same name does with one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scenes import write_bag
from typer.testing import CliRunner

pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from unim2_core.cli.main import app
from unim2_core.files import sha256

NONE = ["--address", "none"]


def run(*words: object, status: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == status, done.output
    return done.output


def files_of(model: Path) -> dict[Path, str]:
    """Digests of all that a bundle holds, its lock left out."""
    files = (path for path in model.rglob("*") if path.is_file() and path.name != ".lock")
    return {path: sha256(path) for path in files}


def test_segment_is_that_of_each_drive(model_path: Path, tmp_path: Path) -> None:
    for number in range(2):
        write_bag(tmp_path / "drives" / f"d{number}", 3, first=10 * number)
    (tmp_path / "drives" / "bad.mcap").write_bytes(b"not a bag")
    write_bag(tmp_path / "long.mcap", 200)
    whole = (tmp_path / "long.mcap").read_bytes()
    (tmp_path / "drives" / "cut.mcap").write_bytes(whole[: len(whole) // 2])
    out, figures = tmp_path / "out", tmp_path / "figures.json"
    words = ["fleet", "segment", "--drives", f"{tmp_path}/drives/*", "--model", model_path]
    said = run(*words, "--out", out, *NONE, "--json", figures, status=1)
    assert "bad is quarantined" in said and "cut is quarantined" in said
    for name in ("d0", "d1"):
        alone = tmp_path / f"{name}.mcap"
        run("segment", tmp_path / "drives" / name, "--model", model_path, "--out", alone)
        assert sha256(alone) == sha256(out / "drives" / alone.name)
    found = json.loads(figures.read_text())
    assert found == json.loads((out / "fleet.json").read_text())
    assert found["totals"]["done"] == 2 and found["totals"]["frames"] == 6
    # What could be read of a damaged drive is kept, apart from what is whole.
    assert [path.name for path in (out / "quarantined").iterdir()] == ["cut.mcap"]
    assert "what could be read" in (out / "fleet.html").read_text()
    said = run(*words, "--out", out, *NONE, status=1)
    assert "4 drives, 0 of them to be done" in said
    said = run(*words, "--out", out, *NONE, "--keep", status=1)
    assert "belongs to another fleet" in said and "keep True" in said


def test_features_are_found_by_a_training(tmp_path: Path) -> None:
    write_bag(tmp_path / "drives" / "d0", 4)
    write_bag(tmp_path / "drives" / "d1", 4, first=10)
    out = tmp_path / "out"
    same = ["--modalities", "rgb,thermal", "--backbone", "texture"]
    run("fleet", "features", "--drives", f"{tmp_path}/drives/*", "--out", out, *same, *NONE)
    there = sorted(path.name for path in (out / "drives").iterdir())
    assert len(there) == 2
    drive = ["--bag", tmp_path / "drives" / "d1", "--cache", out / "drives"]
    run("train", *drive, *same, "--method", "kmeans", "--out", tmp_path / "m.unim2")
    assert sorted(path.name for path in (out / "drives").iterdir() if path.is_dir()) == there


def test_adapt_judges_each_drive_and_leaves_the_model(site_path: Path, tmp_path: Path) -> None:
    model, rig = site_path / "site.unim2", site_path / "rig.yaml"
    before = files_of(model)
    words = ["fleet", "adapt", "--drives", site_path / "night", "--model", model, "--rig", rig]
    run(*words, "--frames", 8, "--steps", 1, "--out", tmp_path / "out", *NONE)
    (row,) = json.loads((tmp_path / "out" / "fleet.json").read_text())["drives"]
    assert row["verdict"] in ("accepted", "review", "rejected") and row["shift"] > 0.3
    kept = (tmp_path / "out" / "drives" / "night.unim2").is_dir()
    assert kept == (row["verdict"] != "rejected")
    assert "Worth adapting to" in (tmp_path / "out" / "fleet.html").read_text()
    after = files_of(model)
    assert after == before and len(before) > 5
    # One that is like the past is left alone where that is asked for.
    words[3] = site_path / "day"
    run(*words, "--frames", 8, "--if-shifted", "--out", tmp_path / "other", *NONE)
    (row,) = json.loads((tmp_path / "other" / "fleet.json").read_text())["drives"]
    assert row["verdict"] == "not needed" and row["shift"] <= 0.3


def test_evaluate_is_that_of_each_drive(site_path: Path, tmp_path: Path) -> None:
    same = ["--rig", site_path / "rig.yaml", "--frames", 6]
    model, drive = site_path / "site.unim2", site_path / "night"
    words = ["fleet", "evaluate", "--drives", drive, "--model", model, *same]
    run(*words, "--out", tmp_path / "out", *NONE)
    run("evaluate", model, "--bag", drive, *same, "--json", tmp_path / "alone.json")
    alone = json.loads((tmp_path / "alone.json").read_text())
    fleet = json.loads((tmp_path / "out" / "drives" / "night.json").read_text())
    assert alone["data"].pop("name") == [str(drive)] and fleet["data"].pop("name") == ["night"]
    assert alone == fleet
    rows = json.loads((tmp_path / "out" / "fleet.json").read_text())["drives"]
    assert rows[0]["mean_iou"] == alone["figures"]["mean_iou"]


def test_without_ray_a_cluster_says_what_to_install(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bag(tmp_path / "drives" / "d0", 2)
    write_bag(tmp_path / "drives" / "d1", 2)
    monkeypatch.setattr("unim2_core.fleet.cluster.find_spec", lambda name: None)
    words = ["fleet", "segment", "--drives", f"{tmp_path}/drives/*", "--model", model_path]
    said = run(*words, "--out", tmp_path / "out", "--address", "local", status=1)
    assert "pip install 'unim2[fleet]'" in said
    run(*words, "--out", tmp_path / "out")  # one drive after the other


def test_outputs_are_sent_to_addresses_alone(model_path: Path, tmp_path: Path) -> None:
    write_bag(tmp_path / "d0", 2)
    words = ["fleet", "segment", "--drives", tmp_path / "d0", "--model", model_path]
    said = run(*words, "--out", tmp_path / "out", "--to", tmp_path / "x", *NONE, status=1)
    assert "leave out --to" in said and not (tmp_path / "out").exists()
