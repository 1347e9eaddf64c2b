from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scenes import PERIOD_NS, START_NS, rgb_image, thermal_image, write_bag
from typer.testing import CliRunner

from unim2_core.cli.main import app
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.bag_messages import image_message
from unim2_core.sensing.bag_writer import BagWriter

pytest.importorskip("torch", reason="making a model needs torch: pip install 'unim2[train]'")
runner = CliRunner()


def _train(drive: Path, out: Path, *more: str) -> object:
    return runner.invoke(
        app,
        [
            *("train", "--bag", str(drive), "--out", str(out), "--clusters", "4"),
            *("--backbone", "texture"),
            *("--method", "kmeans", "--cache", str(drive.parent / "cache"), *more),
        ],
    )


def test_equal_seeds_give_equal_models_and_the_report_says_what_they_are(tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 6)
    for name in ("one", "two"):
        report = str(tmp_path / f"{name}.json")
        result = _train(tmp_path / "drive", tmp_path / f"{name}.unim2", "--json", report)
        assert result.exit_code == 0, result.output
        assert "for trying" in result.output
    one, two = Bundle(tmp_path / "one.unim2"), Bundle(tmp_path / "two.unim2")
    assert one.manifest.files == two.manifest.files
    for key, array in one.weights().items():
        np.testing.assert_array_equal(array, two.weights()[key])
    figures = json.loads((tmp_path / "one.json").read_text())
    assert figures["pictures"] == 6
    assert sum(figures["shares"]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("more", "status", "expected"),
    [
        (["--modalities", "rgb,sonar"], 1, "modality .sonar."),
        (["--modalities", ""], 1, "found:    none"),
        (["--modalities", "rgb,depth"], 1, "depth stays missing"),
        (["--clusters", "255"], 1, "2 to 254"),
        (["--clusters", "9000"], 1, "2 to 254"),
        (["--size", "100x96"], 2, "multiples of 16"),
        (["--size", "96x96", "--preset", "paper", "--modalities", "rgb"], 1, "would crop"),
        (["--seed", "-1"], 2, "--seed"),
        (["--seed", "9999999999"], 2, "--seed"),
        (["--backbone", "dinov3_vits16"], 1, "three ways|accept the licence"),
        (["--backbone", "weights_that_are_not_there.pth"], 1, "weights_that_are_not_there"),
    ],
)
def test_what_cannot_be_learnt_is_explained(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    more: list[str],
    status: int,
    expected: str,
) -> None:
    import re

    monkeypatch.setenv("UNIM2_WEIGHTS", str(tmp_path / "weights"))
    write_bag(tmp_path / "drive", 3)
    result = _train(tmp_path / "drive", tmp_path / "out.unim2", *more)
    assert result.exit_code == status, result.output
    assert re.search(expected, result.output), result.output
    assert not (tmp_path / "out.unim2").exists()


def test_a_model_is_not_overwritten_unasked(tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 3)
    out = tmp_path / "out.unim2"
    assert _train(tmp_path / "drive", out).exit_code == 0
    version = Bundle(out).version
    result = _train(tmp_path / "drive", out, "--seed", "5")
    assert result.exit_code == 1
    assert "exists" in result.output
    assert Bundle(out).version == version
    assert _train(tmp_path / "drive", out, "--seed", "5", "--overwrite").exit_code == 0
    assert Bundle(out).version != version


@pytest.mark.slow
def test_weights_of_dinov3_make_a_model_that_segments(tmp_path: Path) -> None:
    import torch

    from unim2_core.model.backbone import BACKBONES, DinoV3

    torch.manual_seed(0)
    weights = tmp_path / "from_the_hub.pth"
    torch.save(DinoV3(BACKBONES["dinov3_vits16"]).state_dict(), weights)
    write_bag(tmp_path / "drive", 3)
    model, out = tmp_path / "vit.unim2", tmp_path / "out.mcap"
    result = _train(tmp_path / "drive", model, "--backbone", str(weights), "--size", "64x96")
    assert result.exit_code == 0, result.output
    assert "baseline" not in result.output
    backbone = Bundle(model).manifest.backbone
    assert (backbone.name, backbone.patch_size, backbone.embed_dim) == ("dinov3_vits16", 16, 384)
    arguments = ["segment", str(tmp_path / "drive"), "--model", str(model), "--out", str(out)]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "3 images segmented" in result.output


def _write(path: Path, broken: frozenset[int], thermal_from: int = 0) -> None:
    with BagWriter(path) as writer:
        for index in range(6):
            stamp = START_NS + index * PERIOD_NS
            colour = image_message(rgb_image(index), "rgb8", stamp, "c")
            if index in broken:
                colour.step = 1
            writer.write("/rgb/image", colour, stamp)
            if index >= thermal_from:
                warm = image_message(thermal_image(index), "mono16", stamp, "t")
                writer.write("/thermal/image", warm, stamp - 1)


def test_an_image_that_cannot_be_decoded_is_left_out(tmp_path: Path) -> None:
    _write(tmp_path / "drive", frozenset({2}))
    result = _train(tmp_path / "drive", tmp_path / "m.unim2")
    assert result.exit_code == 0, result.output
    assert "1 images of" in result.output
    assert Bundle(tmp_path / "m.unim2").manifest.training["pictures"] == 5
    _write(tmp_path / "all", frozenset(range(6)))
    result = _train(tmp_path / "all", tmp_path / "none.unim2")
    assert result.exit_code == 1
    assert "the step is not the length of a row" in result.output
    assert not (tmp_path / "none.unim2").exists()


def test_sets_without_any_of_the_modalities_are_passed_over(tmp_path: Path) -> None:
    _write(tmp_path / "drive", frozenset(), thermal_from=4)
    result = _train(tmp_path / "drive", tmp_path / "m.unim2", "--modalities", "thermal")
    assert result.exit_code == 0, result.output
    assert Bundle(tmp_path / "m.unim2").manifest.training["pictures"] == 2


def test_names_are_printed_as_they_are(tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 3)
    model = tmp_path / "run [red] 2.unim2"
    trained = _train(tmp_path / "drive", model)
    assert trained.exit_code == 0, trained.output
    assert "run [red] 2.unim2:" in trained.output
    out = str(tmp_path / "out.mcap")
    arguments = ["segment", str(tmp_path / "drive"), "--model", str(model), "--out", out]
    result = runner.invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "run [red] 2: k-means" in result.output
