from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import rgb_image, thermal_image, write_bag
from typer.testing import CliRunner

from unim2_core.cli.main import app

torch = pytest.importorskip("torch", reason="a search needs torch: pip install 'unim2[train]'")
pytest.importorskip("optuna", reason="a search needs optuna: pip install 'unim2[train]'")

from unim2_core.learning.settings import Settings
from unim2_core.model.bundle import Bundle

runner = CliRunner()
QUICK = ("--clusters", "3", "--steps", "2", "--stages", "1", "--size", "64x96")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _run(folder: Path, *more: str) -> object:
    arguments = ["search", "--out", str(folder / "best.yaml"), "--cache", str(folder / "cache")]
    return runner.invoke(app, [*arguments, *QUICK, *more])


def _images(folder: Path) -> str:
    """A folder of six labelled pictures; returns the file that describes it."""
    for index in range(6):
        name = f"{index}.png"
        labels = np.repeat([0, 1], 32).astype(np.uint8)[:, None].repeat(96, axis=1)
        for kind, image in (
            ("rgb", rgb_image(index)),
            ("thermal", cv2.resize(thermal_image(index), (96, 64))),
            ("labels", labels),
        ):
            (folder / kind).mkdir(exist_ok=True)
            assert cv2.imwrite(str(folder / kind / name), image)
    (folder / "data.yaml").write_text(
        "modalities:\n"
        "  rgb: {as: rgb, glob: 'rgb/*.png'}\n"
        "  thermal: {as: thermal, glob: 'thermal/*.png'}\n"
        "labels: {glob: 'labels/*.png'}\n"
        "classes: [above, below]\n"
        "split: {train: [0, 6], test: [0, 6]}\n"
    )
    return str(folder / "data.yaml")


def test_what_is_found_without_labels_trains_a_model(tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 6)
    drive = ("--bag", str(tmp_path / "drive"))
    result = _run(tmp_path, *drive, "--trials", "1")
    assert result.exit_code == 0, result.output
    report = tmp_path / "report.json"
    result = _run(tmp_path, *drive, "--trials", "2", "--json", str(report))  # goes on
    assert result.exit_code == 0, result.output
    assert "1 trials to go" in result.output
    assert "without labels" in result.output
    found = json.loads(report.read_text())
    assert found["basis"] == "without labels"
    assert [trial["number"] for trial in found["trials"]] == [0, 1]
    settings = Settings.load(tmp_path / "best.yaml")
    assert settings.origin is not None
    assert settings.origin.basis == "without labels"
    assert list(settings.modalities) == ["rgb", "thermal"]

    out = tmp_path / "site.unim2"
    result = runner.invoke(
        app,
        [
            *("train", *drive, "--out", str(out), "--config", str(tmp_path / "best.yaml")),
            *("--cache", str(tmp_path / "cache"), *QUICK[:4], *QUICK[6:]),
        ],
    )
    assert result.exit_code == 0, result.output
    made = Bundle(out).manifest.training["settings"]
    assert made["code_dim"] == settings.code_dim
    assert made["origin"]["basis"] == "without labels"


def test_an_oracle_is_marked_everywhere_and_has_a_study_of_its_own(tmp_path: Path) -> None:
    data, report = _images(tmp_path), tmp_path / "report.json"
    oracle = ("--data", data, "--trials", "1", "--oracle", "--json", str(report))
    result = _run(tmp_path, *oracle)
    assert result.exit_code == 0, result.output
    assert "oracle (uses labels)" in result.output
    assert json.loads(report.read_text())["basis"] == "oracle (uses labels)"
    assert "oracle (uses labels)" in (tmp_path / "best.yaml").read_text()
    assert Settings.load(tmp_path / "best.yaml").uses_labels

    result = _run(tmp_path, "--data", data, "--trials", "1")
    assert result.exit_code == 1
    assert "another task" in result.output
    assert "basis: oracle" in result.output
    assert _run(tmp_path, "--data", data, "--trials", "1", "--study", "mine").exit_code == 0


@pytest.mark.parametrize(
    ("more", "status", "expected"),
    [
        ((), 2, "either --bag or --data"),
        (("--bag", "drive", "--clusters", "some"), 2, "whole number or auto"),
        (("--bag", "drive", "--trials", "0"), 2, "--trials"),
        (("--bag", "drive", "--out", "best.txt"), 2, ".yaml"),
        (("--bag", "drive", "--storage", "nonsense"), 1, "cannot open the trials"),
        (("--bag", "drive", "--oracle"), 1, "/ground_truth/label"),
    ],
)
def test_what_cannot_be_searched_is_explained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: tuple[str, ...],
    status: int,
    expected: str,
) -> None:
    write_bag(tmp_path / "drive", 3)
    monkeypatch.chdir(tmp_path)
    result = _run(tmp_path, *more)
    assert result.exit_code == status, result.output
    assert expected in result.output
    assert not (tmp_path / "best.yaml").exists()


def test_a_number_of_clusters_is_suggested_and_its_curve_kept(tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 4)
    out = tmp_path / "site.unim2"
    arguments = [
        "train",
        "--bag",
        str(tmp_path / "drive"),
        "--out",
        str(out),
        "--clusters",
        "auto",
    ]
    result = runner.invoke(
        app, [*arguments, "--method", "kmeans", "--cache", str(tmp_path / "cache")]
    )
    assert result.exit_code == 0, result.output
    assert "stability" in result.output
    assert "#####" in result.output
    suggested = Bundle(out).manifest.training["cluster_count"]
    assert len(Bundle(out).manifest.labels) == suggested["clusters"]
    assert suggested["curve"][0]["clusters"] == 4
