"""``unim2 evaluate`` on a tiny drive and a tiny folder, against the robot's own pipeline."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import HEIGHT, PERIOD_NS, START_NS, WIDTH, frame_sets, rgb_image, thermal_image
from scenes import write_bag as write_unlabelled
from typer.testing import CliRunner

pytest.importorskip("torch", reason="making a model needs torch: pip install 'unim2[train]'")

from unim2_core.cli.main import app
from unim2_core.data.drive_labels import SYNTHETIC
from unim2_core.data.drives import spread_sets
from unim2_core.evaluation import crf
from unim2_core.evaluation.runner import Tally
from unim2_core.inference.engine import Engine
from unim2_core.inference.pipeline import Pipeline
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.bag_messages import image_message
from unim2_core.sensing.bag_writer import BagWriter
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.rig import Rig

runner = CliRunner()
COUNT = 4
YAML = """modalities:
  rgb: {as: rgb, glob: 'rgb/*.png'}
  warmth: {as: nir, glob: 'rgb/*.png', channels: [0]}
labels: {glob: 'labels/*.png'}
classes: [zero, one, two, three]
split: {train: [0, 1], test: [1, 4]}
"""
WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx"):
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocker())
from unim2_core.cli.main import app
app(sys.argv[1:])
"""


def truth(index: int) -> np.ndarray:
    """Sky above, road below, no label on the left: (H, W) uint8."""
    labels = np.full((HEIGHT, WIDTH), SYNTHETIC.classes.names.index("sky"), np.uint8)
    labels[HEIGHT // 2 :] = SYNTHETIC.classes.names.index("road")
    labels[:, : 4 + index] = 255
    return labels


@pytest.fixture
def drive(tmp_path: Path) -> Path:
    """Four images with ground truth."""
    with BagWriter(tmp_path / "drive") as writer:
        for index in range(COUNT):
            stamp = START_NS + index * PERIOD_NS
            for topic, image, encoding in (
                ("/rgb/image", rgb_image(index), "rgb8"),
                ("/ground_truth/label", truth(index), "mono8"),
                ("/thermal/image", thermal_image(index), "mono16"),
            ):
                writer.write(topic, image_message(image, encoding, stamp, "c"), stamp)
    return tmp_path / "drive"


@pytest.fixture
def folder(tmp_path: Path, model_path: Path) -> Path:
    """Images whose labels are what the model says of them without its thermal camera."""
    pipeline = Pipeline(Bundle(model_path), Rig.default(("rgb",)), "onnxruntime")
    for index, frames in enumerate(frame_sets(COUNT)):
        alone = FrameSet("rgb", {"rgb": frames.frames["rgb"]})
        for kind, image in (
            ("rgb", rgb_image(index)[..., ::-1]),
            ("labels", pipeline(alone).classes),
        ):
            (tmp_path / kind).mkdir(exist_ok=True)
            assert cv2.imwrite(str(tmp_path / kind / f"{index}.png"), image)
    (tmp_path / "set.yaml").write_text(YAML)
    return tmp_path / "set.yaml"


def evaluate(model: Path, *more: object) -> object:
    return runner.invoke(app, ["evaluate", str(model), *map(str, more)])


def test_a_drive_is_measured_as_the_robots_pipeline_answers(
    model_path: Path, drive: Path, tmp_path: Path
) -> None:
    report, png = tmp_path / "r.json", tmp_path / "c.png"
    result = evaluate(
        *(model_path, "--bag", drive, "--each-missing", "--backend", "onnxruntime"),
        *("--json", report, "--confusion", png),
    )
    assert result.exit_code == 0, result.output
    found = json.loads(report.read_text())
    expected = {
        name: Tally(4, len(SYNTHETIC.classes.names))
        for name in ("none left out", "without rgb", "without thermal")
    }
    pipeline = Pipeline(Bundle(model_path), Rig.default(("rgb", "thermal")), "onnxruntime")
    for index, (frames, _) in enumerate(spread_sets(drive, pipeline.rig, COUNT, print)):
        for name, tally in expected.items():
            left = name.removeprefix("without ")
            kept = {key: frame for key, frame in frames.frames.items() if key != left}
            encoded = pipeline.encode(FrameSet("rgb", kept))
            tokens = pipeline._tokens_of(encoded.images)
            classes, *_ = pipeline.engine.classify(*pipeline._registered(tokens, {}, frames))
            if name == "none left out":
                whole = np.repeat(np.repeat(classes, 2, axis=0), 2, axis=1)
                np.testing.assert_array_equal(pipeline(frames).classes, whole)
            tally.add(classes[None], truth(index)[None])
    names = expected["none left out"].scores.classes  # that the clusters keep
    for name, tally in expected.items():
        figures, scores = found["each_missing"][name], tally.scores_by(names)
        assert figures["confusion"]["pixels"] == scores.confusion.tolist(), name
        assert figures["mean_iou"] == pytest.approx(scores.mean_iou, abs=1e-6)
        assert figures["labelled_pixels"] == tally.labelled
    assert found["figures"] == found["each_missing"]["none left out"]
    assert found["figures"]["accuracy"] > 0.5  # the scene is made of these two halves
    for text in ("road", "sky", "without thermal", "only report", "for trying"):
        assert text in result.output
    assert cv2.imread(str(png)).shape[0] > 46 * len(SYNTHETIC.classes.names)
    assert found["model"]["version"] == Bundle(model_path).version
    assert found["modalities"] == {
        "model": ["rgb", "thermal"],
        "used": ["rgb", "thermal"],
        "missing": {},
        "pictures": {"rgb": COUNT, "thermal": COUNT},
    }
    assert found["data"]["name"] == [str(drive)]
    assert re.fullmatch("[0-9a-f]{64}", found["data"]["fingerprint"])
    assert found["protocol"] == {
        "name": "full",
        "size": [HEIGHT, WIDTH],
        "resized": "classes, by the nearest pixel",
        "crf": False,
    }
    assert found["engine"] == {
        "backend": "onnxruntime",
        "precision": "fp32",
        "refused": [],
        "half_auxiliaries": False,
    }
    assert "only report" in found["labels"]
    assert {entry["name"] for entry in found["figures"]["classes"] if entry["pixels"]} == {
        "road",
        "sky",
    }


def test_a_subset_is_what_is_measured_when_the_rest_is_left_out(
    model_path: Path, drive: Path, tmp_path: Path
) -> None:
    every, one = tmp_path / "every.json", tmp_path / "one.json"
    assert evaluate(model_path, "--bag", drive, "--each-missing", "--json", every).exit_code == 0
    result = evaluate(model_path, "--bag", drive, "--modalities", "thermal", "--json", one)
    assert result.exit_code == 0, result.output
    alone, rows = json.loads(one.read_text()), json.loads(every.read_text())["each_missing"]
    # The same counts; alone, the clusters get the classes that suit them best then.
    own, kept = alone["figures"], rows["without rgb"]
    for key in ("labelled_pixels", "coverage"):
        assert own[key] == kept[key]
    ours, theirs = (sorted(map(sum, part["confusion"]["pixels"])) for part in (own, kept))
    assert ours == theirs
    assert own["accuracy"] >= kept["accuracy"]
    assert alone["modalities"]["used"] == ["thermal"]
    assert alone["modalities"]["missing"] == {"rgb": "left out"}
    assert alone["each_missing"] is None


@pytest.mark.parametrize("there", [range(0), range(2)])
def test_a_sensor_that_never_spoke_is_not_shown_as_one_that_can_be_left_out(
    model_path: Path, tmp_path: Path, there: range
) -> None:
    with BagWriter(tmp_path / "drive") as writer:
        for index in range(COUNT):
            stamp = START_NS + index * PERIOD_NS
            rgb = image_message(rgb_image(index), "rgb8", stamp, "c")
            writer.write("/rgb/image", rgb, stamp)
            label = image_message(truth(index), "mono8", stamp, "c")
            writer.write("/ground_truth/label", label, stamp)
            warm_ns = stamp if index in there else stamp + 3600 * 10**9
            warm = image_message(thermal_image(index), "mono16", warm_ns, "c")
            writer.write("/thermal/image", warm, warm_ns)
    report = tmp_path / "r.json"
    result = evaluate(model_path, "--bag", tmp_path / "drive", "--each-missing", "--json", report)
    assert result.exit_code == 0, result.output
    found = json.loads(report.read_text())
    assert found["modalities"]["pictures"]["thermal"] == len(there)
    if there:
        assert "thermal (in 2)" in result.output
        assert found["modalities"]["missing"] == {}
        assert "without thermal" in found["each_missing"]
        return
    assert "thermal is in none of the pictures: it counts as missing" in result.output
    assert found["modalities"]["used"] == ["rgb"]
    assert found["modalities"]["missing"] == {"thermal": "thermal is in none of the pictures"}
    assert found["each_missing"] is None


def test_auxiliaries_at_half_the_resolution_are_measured_and_said(
    model_path: Path, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, ...]] = []
    tokens = Engine.tokens

    def recorded(engine: Engine, images: np.ndarray) -> np.ndarray:
        sizes.append(images.shape[1:3])
        return tokens(engine, images)

    monkeypatch.setattr(Engine, "tokens", recorded)
    report = tmp_path / "r.json"
    result = evaluate(model_path, "--bag", drive, "--half-auxiliaries", "--json", report)
    assert result.exit_code == 0, result.output
    assert json.loads(report.read_text())["engine"]["half_auxiliaries"] is True
    assert sizes.count((HEIGHT, WIDTH)) == COUNT  # the reference
    assert (
        sizes.count((HEIGHT // 2, WIDTH // 2)) == COUNT + 1
    )  # the other, and the first to warm up
    assert len(sizes) == 2 * COUNT + 1


def test_a_folder_is_matched_by_name_and_needs_no_torch(
    model_path: Path, folder: Path, tmp_path: Path
) -> None:
    report = tmp_path / "r.json"
    arguments = [str(model_path), "--data", str(folder), "--json", str(report)]
    arguments += ["--backend", "onnxruntime"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, "evaluate", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "thermal is not in the data, which has rgb, warmth" in done.stderr
    found = json.loads(report.read_text())
    assert found["pictures"] == 3
    assert found["figures"]["mean_iou"] == found["figures"]["accuracy"] == 1.0
    assert found["modalities"]["used"] == ["rgb"]
    assert "which has rgb, warmth" in found["modalities"]["missing"]["thermal"]


def test_the_papers_protocol_looks_at_the_square_in_the_middle(
    model_path: Path, folder: Path, tmp_path: Path
) -> None:
    report = tmp_path / "r.json"
    result = evaluate(
        model_path, "--data", folder, "--protocol", "paper", "--split", "all", "--json", report
    )
    assert result.exit_code == 0, result.output
    found = json.loads(report.read_text())
    assert found["protocol"]["size"] == [320, 320]
    assert found["pictures"] == COUNT
    assert found["figures"]["labelled_pixels"] == COUNT * 320 * 320


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        ([], 2, "either --data or --bag"),
        (["--bag", "{bag}", "--data", "{yaml}"], 2, "either --data or --bag"),
        (["--bag", "{bag}", "--protocol", "paper"], 2, "a drive is taken whole"),
        (["--data", "{yaml}", "--frames", "3"], 2, "are for --bag"),
        (["--bag", "{bag}", "--root", "."], 2, "for --data"),
        (["--bag", "{bag}", "--modalities", "rgb,sonar"], 1, "found: +sonar"),
        (["--bag", "{bag}", "--modalities", ","], 1, "found: +none"),
        (["--bag", "{bag}", "--topic", "thermal=/t", "--modalities", "thermal"], 1, "none of the"),
        (["--bag", "{bag}", "--exact"], 1, "holds no network"),
        (["--bag", "{bag}", "--crf"], 1, "pydensecrf"),
        (["--bag", "{unlabelled}"], 1, "/ground_truth/label"),
        (["--data", "{yaml}", "--modalities", "thermal"], 1, "which has rgb, warmth"),
        (["--data", "{bare}"], 1, "nothing to measure"),
        (["--data", "{other}"], 1, "not encoded as the model learnt it"),
        (["--data", "nyu"], 1, "--root"),
        (["--data", "cityscapes"], 1, "no data set cityscapes"),
        (["--data", "nowhere.yaml"], 1, "nowhere.yaml"),
        (["--bag", "nowhere"], 1, "nowhere"),
    ],
)
def test_what_cannot_be_measured_is_explained_and_nothing_is_written(
    model_path: Path,
    drive: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    status: int,
    expected: str,
) -> None:
    monkeypatch.setattr(crf, "installed", lambda: False)
    bare = "modalities: {rgb: {as: rgb, glob: 'rgb/*.png'}}\nsplit: {test: [0, 2]}\n"
    (tmp_path / "bare.yaml").write_text(bare)
    other = YAML.replace("rgb: {as: rgb", "rgb: {as: nir", 1).replace(
        "glob", "channels: [0], glob", 1
    )
    (tmp_path / "other.yaml").write_text(other)
    write_unlabelled(tmp_path / "unlabelled", 2)
    places = {
        "bag": drive,
        "yaml": folder,
        "bare": tmp_path / "bare.yaml",
        "other": tmp_path / "other.yaml",
        "unlabelled": tmp_path / "unlabelled",
    }
    before = sorted(tmp_path.rglob("*"))
    filled = [part.format(**places) for part in arguments]
    written = ("--json", tmp_path / "r.json", "--confusion", tmp_path / "c.png")
    result = evaluate(model_path, *filled, *written)
    assert result.exit_code == status, result.output
    assert re.search(expected, re.sub(r"[│\n]\s*", " ", result.output)), result.output
    assert sorted(tmp_path.rglob("*")) == before


def test_a_model_that_is_not_there_is_named(tmp_path: Path, drive: Path) -> None:
    result = evaluate(tmp_path / "no.unim2", "--bag", drive)
    assert result.exit_code == 1
    assert "cannot open the model" in result.output


def test_another_suffix_than_png_is_refused(model_path: Path, drive: Path) -> None:
    result = evaluate(model_path, "--bag", drive, "--confusion", "figure.jpg")
    assert result.exit_code == 2
    assert "png" in result.output
