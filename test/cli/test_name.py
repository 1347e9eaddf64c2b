from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from scenes import HEIGHT, WIDTH, rgb_image, thermal_image, write_bag
from typer.testing import CliRunner

from unim2_core.cli.main import app
from unim2_core.inference.pipeline import Pipeline
from unim2_core.model.bundle import MANIFEST, UNLABELLED, Bundle
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.images import decode_image

runner = CliRunner()


@pytest.fixture
def model(model_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_path, tmp_path / "scene.unim2"))


def name(*arguments: object) -> tuple[int, str]:
    result = runner.invoke(app, ["name", *map(str, arguments)])
    return result.exit_code, result.output


def test_classes_are_named_without_a_browser(model: Path, tmp_path: Path) -> None:
    report = tmp_path / "classes.json"
    status, output = name(
        *(model, "--set", "3=wet road", "--merge", "0,1", "--unknown", 2),
        *("--color", "3=#ff8000", "--json", report),
    )
    assert status == 0, output
    assert "wet road" in output
    content = json.loads(report.read_text())
    assert content["clusters"] == 4
    assert content["served_as"] == {"1": 0, "2": UNLABELLED}
    assert content["labels"][-1] == {"id": 3, "name": "wet road", "color": [255, 128, 0]}
    assert content["sha256"] == Bundle(model).sha256


def test_listing_changes_nothing(model: Path, tmp_path: Path) -> None:
    before = (model / MANIFEST).read_bytes()
    status, output = name(model, "--list", "--json", tmp_path / "classes.json")
    assert status == 0
    assert "cluster 2" in output
    assert json.loads((tmp_path / "classes.json").read_text())["parent"] is None
    assert (model / MANIFEST).read_bytes() == before


def test_the_names_before_can_be_had_back(model: Path) -> None:
    before = Bundle(model).sha256
    assert name(model, "--set", "0=road")[0] == 0
    assert Bundle(model).sha256 != before
    assert name(model, "--back")[0] == 0
    assert Bundle(model).sha256 == before
    status, output = name(model, "--back")
    assert status == 1
    assert "no earlier names" in output


def test_merged_and_unknown_classes_are_served_by_the_table(model: Path, tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 3)
    segment = ["segment", str(tmp_path / "drive"), "--model", str(model), "--out"]
    assert runner.invoke(app, [*segment, str(tmp_path / "before.mcap")]).exit_code == 0
    assert name(model, "--merge", "0,1", "--unknown", 2)[0] == 0
    assert runner.invoke(app, [*segment, str(tmp_path / "after.mcap")]).exit_code == 0
    table = np.arange(256, dtype=np.uint8)
    table[[1, 2]] = 0, UNLABELLED
    found = set()
    for before, after in zip(
        images(tmp_path / "before.mcap"), images(tmp_path / "after.mcap"), strict=True
    ):
        assert (after == table[before]).all()
        found.update(np.unique(before).tolist())
    assert {1, 2} <= found


def images(bag: Path) -> list[np.ndarray]:
    with BagReader(bag) as reader:
        return [
            decode_image(message.decode())
            for message in reader.messages(["/segment/segmentation"])
        ]


def test_another_version_in_the_engine_brings_its_own_table(model: Path) -> None:
    from unim2_core.sensing.rig import Rig

    bundle = Bundle(model)
    pipeline = Pipeline(bundle, Rig.default(("rgb", "thermal")))
    stored = bundle.parity()
    presence = np.ones(stored["tokens"].shape[:3], np.float32)
    tokens = stored["tokens"].astype(np.float32)
    before = pipeline.engine.classify(tokens, presence).classes
    assert name(model, "--merge", "0,1,2,3")[0] == 0
    newer = Bundle(model)
    pipeline.engine.heads.replace(newer.sha256, newer.weights(), newer.manifest.served)
    merged = pipeline.engine.classify(tokens, presence)
    assert np.unique(merged.classes).tolist() == [0]
    assert merged.version == newer.sha256
    pipeline.engine.heads.replace("adapted", newer.weights())  # keeps what was said of classes
    assert np.unique(pipeline.engine.classify(tokens, presence).classes).tolist() == [0]
    pipeline.engine.heads.roll_back()
    pipeline.engine.heads.roll_back()
    assert (pipeline.engine.classify(tokens, presence).classes == before).all()


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """The scene's images with labels: sky above, ground below, a warm pipe in it."""
    for folder in ("rgb", "thermal", "labels"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for index in range(3):
        label = np.zeros((HEIGHT, WIDTH), np.uint8)
        label[HEIGHT // 2 :] = 1
        thermal = cv2.resize(
            thermal_image(index), (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST
        )
        for folder, image in (
            ("rgb", rgb_image(index)[..., ::-1]),
            ("thermal", thermal),
            ("labels", label),
        ):
            assert cv2.imwrite(str(tmp_path / "data" / folder / f"{index}.png"), image)
    content = {
        "modalities": {
            "rgb": {"as": "rgb", "glob": "rgb/*.png"},
            "thermal": {
                "as": "thermal",
                "glob": "thermal/*.png",
                "thermal": {"conversion": "centikelvin"},
            },
        },
        "labels": {"glob": "labels/*.png", "ids": {0: 0, 1: 1}},
        "classes": ["sky", "ground"],
    }
    path = tmp_path / "data" / "labelled.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def test_names_come_from_a_few_labelled_images(model: Path, labelled: Path) -> None:
    status, output = name(model, "--labels", labelled, "--accept")
    assert status == 0, output
    manifest = Bundle(model).manifest
    names = {label.name for label in manifest.labels}
    assert names >= {"sky", "ground"}
    assert names - {"sky", "ground"} <= {f"cluster {k}" for k in range(4)}  # that met no label
    assert manifest.served_as  # two clusters of one name are one class


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        ([], 2, "--bag to look at"),
        (["--list", "--set", "0=x"], 2, "expected one of"),
        (["--bag", "drive", "--unknown", "1"], 2, "expected one of"),
        (["--back", "--list"], 2, "expected one of"),
        (["--accept"], 2, "needs --labels"),
        (["--set", "road"], 2, "CLUSTER=NAME"),
        (["--set", "x=road"], 2, "CLUSTER=NAME"),
        (["--merge", "1"], 2, "5,7"),
        (["--merge", "a,b"], 2, "5,7"),
        (["--color", "1=red"], 2, "#RRGGBB"),
        (["--set", "9=road"], 1, "from 0 to 3"),
        (["--unknown", "0", "--unknown", "1", "--unknown", "2", "--unknown", "3"], 1, "one class"),
        (["--bag", "nowhere"], 1, "nowhere"),
        (["--labels", "nowhere.yaml"], 1, "nowhere.yaml"),
    ],
)
def test_bad_usage_is_explained_and_nothing_changes(
    model: Path, arguments: list[str], status: int, expected: str
) -> None:
    before = (model / MANIFEST).read_bytes()
    found, output = name(model, *arguments)
    assert found == status, output
    assert expected in " ".join(output.replace("│", " ").split())
    assert (model / MANIFEST).read_bytes() == before
    assert not (model / "history").exists()


def test_a_folder_that_may_not_be_written_to_is_explained(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Bundle(model).sha256
    (model / "history").write_text("a file where a folder should be")
    status, output = name(model, "--set", "0=road")
    assert status == 1
    assert "cannot write" in output
    assert Bundle(model).sha256 == before


@pytest.fixture
def page(model: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command as a robot without torch runs it, and the address that it prints."""
    write_bag(tmp_path / "drive", 4)
    code = (
        "import sys; sys.modules.update(torch=None, onnx=None, onnxscript=None, rclpy=None)\n"
        "from unim2_core.cli.main import run; run()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "name", str(model), "--bag", str(tmp_path / "drive")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        lines = (re.search(r"open (http\S+)", line) for line in process.stdout)
        yield process, next(found[1] for found in lines if found)
    finally:
        process.kill()
        process.communicate()


def test_the_page_is_served_without_torch_until_ctrl_c(
    page: tuple[subprocess.Popen[str], str],
) -> None:
    process, url = page
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert b"<!doctype html>" in answer.read()
    with urllib.request.urlopen(f"{url}about.json", timeout=10) as answer:
        about = json.load(answer)
    assert about["clusters"][0]["pictures"] > 0
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{url[:-2]}/", timeout=10)
    edit = urllib.request.Request(
        f"{url}edit",
        json.dumps({"do": "name", "cluster": 0, "name": "wet road"}).encode(),
        {"Content-Type": "application/json", "Origin": url[: url.index("/", 7)]},
    )
    with urllib.request.urlopen(edit, timeout=10) as answer:
        assert json.load(answer)["changed"]
    process.send_signal(signal.SIGINT)
    output, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    assert "--set '0=wet road'" in log  # nothing is lost: how to make what was not saved
    assert "cluster 0" in output
