"""A checkpoint of the release becomes a bundle that decides as the release does."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from unim2_core.cli.main import app
from unim2_core.data.made_up_pictures import MadeUpPictures
from unim2_core.inference.engine import Engine
from unim2_core.learning.correspondence import Shifts
from unim2_core.learning.objective import ModalityLoss, Objective, ObjectiveConfig, TermWeights
from unim2_core.model import release_import
from unim2_core.model.bundle import TRAINING, Bundle
from unim2_core.model.classifier import Classifier
from unim2_core.model.probes import resized
from unim2_core.model.release_import import ReleaseModel, import_release
from unim2_core.sensing.modalities import MODALITIES, Encoder

CHECKPOINT = "tiny_lightning.ckpt"
SIZE = (64, 96)


def run(file: Path, out: Path, *more: str) -> Result:
    arguments = ["import", str(file), "--out", str(out), "--size", "64x96", *more]
    return CliRunner().invoke(app, arguments)


@pytest.fixture(scope="module")
def checkpoint(parity_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stored one with other clusters: its own put every place of any image into one."""
    tensors = release_import._tensors(parity_dir / CHECKPOINT)
    code = codes(import_release(parity_dir / CHECKPOINT), images(1, (64, 64)))[0]
    around = code.flatten(1).T - code.mean(dim=(1, 2))  # (16, d)
    mean = F.normalize(code.mean(dim=(1, 2)), dim=0)
    tensors["cluster_probe.clusters"] = (around - (around @ mean)[:, None] * mean)[:13]
    path = tmp_path_factory.mktemp("checkpoint") / "c.ckpt"
    torch.save({"state_dict": tensors}, path)
    return path


@pytest.fixture(scope="module")
def imported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("imported")
    report = str(folder / "r.json")
    result = run(checkpoint, folder / "m.unim2", "--json", report)
    assert result.exit_code == 0, result.output
    assert "aspect 64x96" in result.output
    bundle = Bundle(folder / "m.unim2")
    assert json.loads(Path(report).read_text())["version"] == bundle.version
    return bundle


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> ReleaseModel:
    return import_release(checkpoint)


@torch.no_grad()
def codes(model: ReleaseModel, pixels: np.ndarray) -> Tensor:
    """(1, d, h, w) of one image of each modality, (2, H, W, 3) uint8."""
    normal = torch.from_numpy(np.stack([MODALITIES["rgb"].normalize(one) for one in pixels]))
    maps = model.backbone(normal).permute(0, 3, 1, 2)
    return model.segmenter({"rgb": maps[:1], "depth": maps[1:]}).code


def images(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(2, H, W, 3) uint8 that the import has not seen."""
    draw = np.random.default_rng(seed)
    blocks = draw.integers(0, 256, (2, size[0] // 8, size[1] // 8, 3), np.uint8)
    return blocks.repeat(8, axis=1).repeat(8, axis=2)


@pytest.mark.parametrize("size", [SIZE, (80, 48)])
@pytest.mark.parametrize("blind", [False, True])
def test_the_engine_decides_as_the_release_does(
    imported: Bundle, model: ReleaseModel, size: tuple[int, int], blind: bool
) -> None:
    engine = Engine(imported, threads=1)
    pixels = images(7, size)
    presence = np.ones((2, size[0] // 16, size[1] // 16), np.float32)
    classes, *_ = engine.classify(engine.tokens(pixels), presence)

    scores = model.cluster_probe.scores(codes(model, pixels)).detach()
    scores = resized(scores, (size[0] // 2, size[1] // 2))[0]
    best = scores.topk(2, dim=0).values
    clear = ((best[0] - best[1]) > 1e-4 * best[0]).numpy()  # of the others rounding decides
    assert clear.mean() > 0.99
    assert (classes == scores.argmax(dim=0).numpy())[clear].all()
    assert len(np.unique(classes)) > 2
    if blind:
        presence[:, 0, 0] = 0
        classes, *_ = engine.classify(engine.tokens(pixels), presence)
        assert (classes[:8, :8] == 255).all() and (classes[8:] != 255).all()


def test_all_that_was_trained_is_there_to_go_on_from(
    imported: Bundle, model: ReleaseModel
) -> None:
    config = Classifier.load(imported).segmenter.config
    loss = ModalityLoss(1.0, TermWeights(1, 1, 1), Shifts(0, 0, 0))
    form = ObjectiveConfig(dict.fromkeys(config.modalities, loss))
    objective = Objective(config, form, len(model.linear_probe.weight))
    objective.load_state_dict(load_file(imported.path / TRAINING))
    assert objective.cluster_probe.centers.equal(model.cluster_probe.centers)
    assert objective.linear_probe.weight.equal(model.linear_probe.weight)
    harmonizer = objective.segmenter.harmonizers["shared"][0].weight
    assert harmonizer.equal(model.segmenter.harmonizers["shared"][0].weight)


def test_the_manifest_says_what_it_is(imported: Bundle, model: ReleaseModel) -> None:
    manifest = imported.manifest
    assert [entry.name for entry in manifest.modalities] == ["rgb", "depth"]
    assert [entry.sensor for entry in manifest.modalities] == ["rgb", "depth"]
    encodings = [entry.encoding for entry in manifest.modalities]
    assert encodings == [
        {"modality": "rgb", "preset": "paper"},
        {"modality": "hha", "preset": "paper"},
    ]
    assert all(Encoder.from_description(encoding).preset == "paper" for encoding in encodings)
    assert manifest.infer_size == SIZE
    assert not manifest.backbone.baseline
    assert manifest.backbone.embed_dim == model.backbone.embed_dim
    assert len(manifest.labels) == len(model.cluster_probe.centers)
    assert "release" in manifest.method
    assert manifest.training["checkpoint"] == "c.ckpt"
    margin = imported.weights()["full_margin"]
    assert 0 < margin < 2


def test_the_stored_predictions_come_out_under_other_names(
    imported: Bundle, parity_dir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "m.unim2"
    shutil.copytree(imported.path, out)
    result = run(parity_dir / CHECKPOINT, out)
    assert result.exit_code == 1 and "--overwrite" in result.output
    assert Bundle(out).version == imported.version
    result = run(parity_dir / CHECKPOINT, out, "--overwrite", "--modalities", "rgb, thermal")
    assert result.exit_code == 0, result.output
    manifest = Bundle(out).manifest
    assert [entry.name for entry in manifest.modalities] == ["rgb", "thermal"]
    assert manifest.modalities[1].encoding == {"modality": "thermal", "preset": "paper"}

    with np.load(parity_dir / "tiny_lightning_expected.npz") as golden:
        stored = {name: torch.from_numpy(golden[name]) for name in golden}
    backbone = import_release(parity_dir / CHECKPOINT).backbone
    tokens = {"rgb": backbone(stored["rgb"]), "thermal": backbone(stored["depth"])}
    classifier = Classifier.load(Bundle(out))
    torch.testing.assert_close(classifier.codes(tokens), stored["code"], rtol=1e-5, atol=1e-5)
    found = resized(classifier.scores(tokens), (64, 64)).argmax(dim=1)
    assert found.equal(stored["cluster_pred"].long())


@pytest.mark.parametrize(
    ("more", "status", "expected"),
    [
        (["--modalities", "rgb,sonar"], 1, "found: +sonar"),
        (["--modalities", "rgb"], 1, "another number of modalities"),
        (["--modalities", "rgb,rgb"], 1, "each once"),
        (["--modalities", ""], 1, "found: +none"),
        (["--fusion", "sum"], 1, "conv, as its tensors show"),
        (["--fusion", "glue"], 2, "--fusion"),
        (["--size", "100x100"], 2, "multiples of 16"),
    ],
)
def test_options_that_do_not_fit_are_explained(
    parity_dir: Path, tmp_path: Path, more: list[str], status: int, expected: str
) -> None:
    result = run(parity_dir / CHECKPOINT, tmp_path / "m.unim2", *more)
    assert result.exit_code == status, result.output
    assert re.search(expected, result.output), result.output
    assert list(tmp_path.iterdir()) == []


def changed(parity_dir: Path, tmp_path: Path, change: str) -> Path:
    """The checkpoint's tensors without options, changed in one way."""
    tensors = release_import._tensors(parity_dir / CHECKPOINT)
    if change == "no fusion":
        tensors = {name: part for name, part in tensors.items() if "fusion_conv" not in name}
    elif change == "other architecture":
        tensors = {name: part for name, part in tensors.items() if "cls_token" not in name}
    elif change == "many clusters":
        tensors["cluster_probe.clusters"] = torch.randn(300, 8)
    elif change == "odd name":
        tensors = {name.replace(".depth.", ".lidar."): part for name, part in tensors.items()}
    elif change == "code":
        tensors["net.later"] = Harmful()
    torch.save({"state_dict": tensors}, tmp_path / "c.ckpt")
    return tmp_path / "c.ckpt"


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("no fusion", "--fusion sum, mean or max"),
        ("other architecture", "cls_token"),
        ("many clusters", "2 to 254"),
        ("odd name", "lidar"),
        ("code", "GLOBAL"),
        ("text", "cannot read a checkpoint"),
        ("absent", "No such file"),
    ],
)
def test_files_that_cannot_be_imported_are_explained(
    parity_dir: Path, tmp_path: Path, change: str, expected: str
) -> None:
    path = tmp_path / "c.ckpt"
    if change == "text":
        path.write_text("nothing like it")
    elif change != "absent":
        path = changed(parity_dir, tmp_path, change)
    result = run(path, tmp_path / "m.unim2")
    assert result.exit_code == 1, result.output
    assert expected in result.output
    assert {file.name for file in tmp_path.iterdir()} <= {"c.ckpt"}


def test_a_fusion_without_tensors_is_taken_as_told(parity_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.unim2"
    path = changed(parity_dir, tmp_path, "no fusion")
    result = run(path, out, "--fusion", "max", "--residual")
    assert result.exit_code == 0, result.output
    network = Bundle(out).manifest.network
    assert network is not None
    assert (network["fusion"], network["residual"], network["normalization"]) == (
        "max",
        True,
        "l2",
    )
    result = run(path, tmp_path / "n.unim2", "--fusion", "conv")
    assert result.exit_code == 1 and not (tmp_path / "n.unim2").exists()


def test_made_up_pictures_are_the_same_each_time_and_differ_from_each_other() -> None:
    source = MadeUpPictures(("rgb", "depth"), {}, (32, 48))
    first, second = list(source), list(source)
    assert len(first) == source.limit
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.images["rgb"], b.images["rgb"])
        assert a.images["rgb"].shape == (32, 48, 3) and a.images["rgb"].dtype == np.uint8
        assert not np.array_equal(a.images["rgb"], a.images["depth"])
        assert a.images["rgb"].std() > 20
    assert not np.array_equal(first[0].images["rgb"], first[1].images["rgb"])
    assert source.fingerprint() != MadeUpPictures(("rgb",), {}, (32, 48)).fingerprint()
