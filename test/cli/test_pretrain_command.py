from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import rgb_image, thermal_image, write_bag
from typer.testing import CliRunner

torch = pytest.importorskip("torch", reason="learning needs torch: pip install 'unim2[train]'")

from unim2_core.cli import pretraining
from unim2_core.cli.main import app
from unim2_core.data import synthetic_set
from unim2_core.learning.observers import read_history
from unim2_core.model.frozen import FrozenBackbone
from unim2_core.model.tiny import TinyBackbone

runner = CliRunner()
QUICK = ("--steps", "3", "--batch", "2", "--measure-every", "2", "--size", "64x96")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def _run(out: Path, *more: str) -> object:
    arguments = ["pretrain", "--out", str(out), "--cache", str(out.parent / "cache")]
    return runner.invoke(app, [*arguments, *QUICK, *more])


def _images(folder: Path, *, labels: bool = False) -> str:
    for index in range(24):
        for kind, image in (("rgb", rgb_image(index)), ("thermal", thermal_image(index))):
            (folder / kind).mkdir(exist_ok=True)
            assert cv2.imwrite(str(folder / kind / f"{index:02}.png"), cv2.resize(image, (96, 64)))
        classes = np.repeat([0, 1], 32).astype(np.uint8)[:, None].repeat(96, axis=1)
        (folder / "labels").mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / "labels" / f"{index:02}.png"), classes)
    text = (
        "modalities:\n"
        "  rgb: {as: rgb, glob: 'rgb/*.png'}\n"
        "  thermal: {as: thermal, glob: 'thermal/*.png'}\n"
    )
    if labels:
        text += "labels: {glob: 'labels/*.png'}\nclasses: [above, below]\n"
    (folder / "data.yaml").write_text(text + "split: {train: [0, 24]}\n")
    return str(folder / "data.yaml")


def test_own_images_make_a_backbone_that_trains_a_model(tmp_path: Path) -> None:
    out, report = tmp_path / "ours.safetensors", tmp_path / "report.json"
    data = _images(tmp_path)
    run = ("--run", str(tmp_path / "run"))
    result = _run(out, "--data", data, "--start", "tiny", "--json", str(report), *run)
    assert result.exit_code == 0, result.output
    found = json.loads(report.read_text())
    assert found["measure"].startswith("simple features of other sensors")
    assert found["pictures"] == 20  # two tenths are held out
    assert set(found["before"]) == set(found["after"])
    assert found["before"] != found["after"]
    assert found["start"] == "tiny"
    card = out.with_suffix(".md").read_text()
    assert "data.yaml" in card
    assert "yours" in card
    assert str(tmp_path) not in card
    history = read_history(tmp_path / "run" / "history.jsonl")
    assert any("held/all" in line.get("scalars", {}) for line in history)
    assert FrozenBackbone(str(out)).digest != FrozenBackbone("tiny").digest

    write_bag(tmp_path / "drive", 4)
    model = tmp_path / "m.unim2"
    result = runner.invoke(
        app,
        [
            *("train", "--bag", str(tmp_path / "drive"), "--out", str(model), "--clusters", "3"),
            *("--method", "kmeans", "--backbone", str(out), "--cache", str(tmp_path / "cache")),
        ],
    )
    assert result.exit_code == 0, result.output
    assert "tiny" in result.output


def test_labels_measure_where_there_are_any(tmp_path: Path) -> None:
    out, report = tmp_path / "ours.safetensors", tmp_path / "report.json"
    data = _images(tmp_path, labels=True)
    result = _run(out, "--data", data, "--json", str(report))
    assert result.exit_code == 0, result.output
    assert "linear probe" in result.output
    assert not (tmp_path / "ours.run").exists()
    assert "held/simple/rgb" in json.loads(report.read_text())["after"]


def test_where_nothing_measures_it_says_so_and_trains(tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 24)
    out, report = tmp_path / "ours.safetensors", tmp_path / "report.json"
    one = ("--bag", str(tmp_path / "drive"), "--modalities", "rgb", "--json", str(report))
    result = _run(out, *one)
    assert result.exit_code == 0, result.output
    assert "nothing measures" in result.output
    assert "nothing measures" in out.with_suffix(".md").read_text()
    assert json.loads(report.read_text())["after"] == {}


def test_drives_are_pictures_too_and_equal_seeds_give_equal_weights(tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 24)
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        result = _run(folder / "ours.safetensors", "--bag", str(tmp_path / "drive"))
        assert result.exit_code == 0, result.output
        assert "1 recorded drives" in (folder / "ours.md").read_text()
    one, two = (tmp_path / name / "ours.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_without_pictures_of_ones_own_it_makes_a_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining, "HELD_DRIVES", 1)
    monkeypatch.setattr(pretraining, "HELD_SECONDS", 1.0)
    monkeypatch.setattr(pretraining, "HELD_SIZE", (64, 96))
    configs = synthetic_set.drive_configs
    monkeypatch.setattr(
        pretraining, "drive_configs", lambda count, **how: configs(count, **{"seconds": 1.0} | how)
    )
    out = tmp_path / "ours.safetensors"
    result = _run(out, "--worlds", "2")
    assert result.exit_code == 0, result.output
    assert "2 synthetic drives" in out.with_suffix(".md").read_text()
    assert TinyBackbone.load(out).embed_dim == 240
    worlds = {path.name.split("-")[1] for path in (tmp_path / "cache" / "worlds").iterdir()}
    assert worlds == {"1000", "1001", "200", "300"}  # none that classes are learnt from


def test_worlds_differ_and_a_seed_decides_them() -> None:
    configs = synthetic_set.drive_configs(40)
    assert configs == synthetic_set.drive_configs(40)
    assert len({config.seed for config in configs}) == 40
    assert {config.condition for config in configs} == {"day", "night"}
    assert 0 < sum(config.fog > 0 for config in configs) < 20
    assert all(config.condition == "day" for config in configs if config.glare)


@pytest.mark.parametrize(
    ("more", "status", "expected"),
    [
        (["--bag", "drive", "--data", "x.yaml"], 2, "found both"),
        (["--bag", "drive"], 1, "too few pictures"),
        (["--bag", "nowhere"], 1, "nowhere"),
        (["--data", "nowhere.yaml"], 1, "nowhere.yaml"),
        (["--bag", "drive", "--size", "60x96"], 2, "multiples of 16"),
        (["--bag", "drive", "--steps", "0"], 2, "steps"),
        (["--bag", "drive", "--start", "nothing.safetensors"], 1, "tiny backbone"),
        (["--bag", "drive", "--modalities", "rgb,sonar"], 1, "sonar"),
        (["--bag", "drive", "--modalities", "rgb,depth"], 1, "depth stays missing"),
        (["--bag", "drive", "--modalities", ""], 1, "found:    none"),
    ],
)
def test_what_cannot_be_learnt_from_is_explained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    status: int,
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_bag(tmp_path / "drive", 3)
    result = _run(tmp_path / "ours.safetensors", *more)
    assert result.exit_code == status, result.output
    assert expected in result.output
    assert not (tmp_path / "ours.safetensors").exists()


def test_weights_are_not_overwritten_unasked(tmp_path: Path) -> None:
    out = tmp_path / "ours.safetensors"
    out.write_bytes(b"precious")
    result = _run(out, "--bag", "drive")
    assert result.exit_code == 1
    assert "--overwrite" in result.output
    assert out.read_bytes() == b"precious"
    assert _run(tmp_path / "ours.pth", "--bag", "drive").exit_code == 2
