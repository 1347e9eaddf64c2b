"""The comparison itself: what it measures, what it covers, and that it can fail."""

from __future__ import annotations

import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from unim2_core.errors import ModelError
from unim2_core.evaluation import parity_backbone
from unim2_core.evaluation.parity import Row, compare, deviation, golden_files
from unim2_core.evaluation.parity_backbone import rule_weights
from unim2_core.model.backbone import BACKBONES, DinoV3

COVERED = ("backbone_tiny", "vit_small_rule", "geometry", "datasets")
TINY_INPUTS = {"image", "num_heads", "depth", "n_storage"}
RULE_INPUTS = {"hw", "input_seed"}


def changed(
    source: Path, folder: Path, name: str, change: Callable[[NDArray], NDArray]
) -> dict[str, bool]:
    """Compare a copy of a golden file with one array changed: array -> whether it is ok."""
    with np.load(source) as file:
        arrays = dict(file)
    arrays[name] = change(arrays[name])
    np.savez(folder / source.name, **arrays)
    return {row.compared: row.ok for row in compare(folder, source.stem).rows}


def out_by(factor: float) -> Callable[[NDArray], NDArray]:
    def change(array: NDArray) -> NDArray:
        array = array.copy()
        place = np.unravel_index(array.size // 2, array.shape)
        step = factor * np.abs(array).max()
        array[place] += step if array.dtype.kind == "f" else 1
        return array

    return change


@pytest.mark.parametrize("name", COVERED)
def test_every_row_is_within_tolerance(parity_dir: Path, name: str) -> None:
    report = compare(parity_dir, name)
    for row in report.rows:
        print(f"{row.file} {row.case} {row.compared}: {row.max_error:.1e} of {row.tolerance:.1e}")
    assert report.rows
    assert [row for row in report.rows if not row.ok] == []
    assert report.ok


def test_every_array_of_the_backbone_files_is_compared(parity_dir: Path) -> None:
    for name, inputs in (("backbone_tiny", TINY_INPUTS), ("vit_small_rule", RULE_INPUTS)):
        with np.load(parity_dir / f"{name}.npz") as file:
            expected = {array for array in file.files if not array.startswith("w/")} - inputs
        assert {row.compared for row in compare(parity_dir, name).rows} == expected


@pytest.mark.parametrize(
    "name",
    [
        "patch_tokens_normed",
        "feature_map",
        "cls_normed",
        "storage_normed",
        "prenorm",
        "layer_minus2",
        "layer_minus1",
        "rope_sin",
        "rope_cos",
    ],
)
def test_an_array_out_by_five_tolerances_fails_alone(
    parity_dir: Path, tmp_path: Path, name: str
) -> None:
    rows = changed(parity_dir / "backbone_tiny.npz", tmp_path, name, out_by(5 * 2e-5))
    assert [row for row, ok in rows.items() if not ok] == [name]


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("patch_tokens_normed", 2e-5), ("cls_normed", 2e-5), ("param_sums", 1e-9)],
)
def test_an_array_of_a_full_size_file_out_by_five_tolerances_fails_alone(
    parity_dir: Path, tmp_path: Path, name: str, tolerance: float
) -> None:
    rows = changed(parity_dir / "vit_small_rule.npz", tmp_path, name, out_by(5 * tolerance))
    assert [row for row, ok in rows.items() if not ok] == [name]


@pytest.mark.parametrize("name", COVERED)
def test_a_changed_file_fails_alone(parity_dir: Path, tmp_path: Path, name: str) -> None:
    arrays = {
        "backbone_tiny": "layer_minus1",
        "vit_small_rule": "cls_normed",
        "geometry": "five_crop/37x53@0.5",
        "datasets": "mcubes/out/aolp",
    }
    for each in COVERED:
        shutil.copyfile(parity_dir / f"{each}.npz", tmp_path / f"{each}.npz")
    changed(parity_dir / f"{name}.npz", tmp_path, arrays[name], out_by(5 * 2e-5))
    out = {row.file for row in compare(tmp_path).rows if not row.ok}
    assert out == {f"{name}.npz"}


def test_nan_and_another_shape_fail(parity_dir: Path, tmp_path: Path) -> None:
    source = parity_dir / "backbone_tiny.npz"
    rows = changed(source, tmp_path, "prenorm", lambda array: array * np.nan)
    assert [row for row, ok in rows.items() if not ok] == ["prenorm"]
    rows = changed(source, tmp_path, "prenorm", lambda array: array[:, 1:])
    assert [row for row, ok in rows.items() if not ok] == ["prenorm"]


def test_changed_weights_fail_everywhere_but_in_the_positions(
    parity_dir: Path, tmp_path: Path
) -> None:
    source = parity_dir / "backbone_tiny.npz"
    rows = changed(source, tmp_path, "w/patch_embed.proj.weight", lambda array: array * 1.01)
    assert [row for row, ok in rows.items() if ok] == ["rope_sin", "rope_cos"]


def test_base_size_is_covered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some weights are made by the written rule once more here; all of them once, to be quick."""
    backbone = DinoV3(BACKBONES["dinov3_vitb16"])
    names = sorted(backbone.state_dict())
    state = rule_weights(backbone)
    assert list(state) == names
    for name, scale, shift in [
        ("blocks.3.ls2.gamma", 0.1, 0.5),
        ("blocks.11.norm1.weight", 0.1, 1.0),
        ("norm.bias", 0.05, 0.0),
        ("storage_tokens", 0.1, 0.0),
        ("blocks.0.attn.proj.weight", 0.04, 0.0),
    ]:
        shape = tuple(state[name].shape)
        noise = np.random.RandomState(names.index(name)).standard_normal(np.prod(shape))
        expected = (shift + scale * noise).astype(np.float32).reshape(shape)
        np.testing.assert_array_equal(state[name].numpy(), expected)
    backbone.load_state_dict(state)
    image = np.random.RandomState(7).standard_normal((1, 3, 32, 48)).astype(np.float32)
    features = backbone.forward_features(torch.from_numpy(image))
    np.savez(
        tmp_path / "vit_base_rule.npz",
        hw=[32, 48],
        input_seed=7,
        names_sorted=names,
        param_sums=[state[name].double().sum().item() for name in names],
        patch_tokens_normed=features.layers[-1].flatten(1, 2).numpy(),
        cls_normed=features.cls.numpy(),
    )
    monkeypatch.setattr(parity_backbone, "rule_weights", lambda backbone: state)
    report = compare(tmp_path)
    assert report.ok
    assert {row.case for row in report.rows} == {"weights of dinov3_vitb16", "32x48 pixels"}


def test_files_without_a_check_are_listed_and_not_ok(parity_dir: Path, tmp_path: Path) -> None:
    shutil.copyfile(parity_dir / "backbone_tiny.npz", tmp_path / "backbone_tiny.npz")
    assert compare(tmp_path).ok
    for name in ("a.npz", "tiny.ckpt", "tiny_expected.npz", "other_expected.npz", "README.md"):
        (tmp_path / name).write_bytes(b"")
    report = compare(tmp_path)
    assert report.not_covered == ("a.npz", "other_expected.npz", "tiny.ckpt")
    assert not report.ok
    assert all(row.ok for row in report.rows)


@pytest.mark.parametrize("kind", ["no zip", "cut", "an array missing", "other weights", "pickle"])
def test_damaged_file_is_a_row_that_is_out(parity_dir: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "backbone_tiny.npz"
    content = (parity_dir / "backbone_tiny.npz").read_bytes()
    with np.load(parity_dir / "backbone_tiny.npz") as file:
        arrays = dict(file)
    if kind == "no zip":
        path.write_bytes(b"nothing like it")
    elif kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "an array missing":
        del arrays["image"]
        np.savez(path, **arrays)
    elif kind == "other weights":
        del arrays["w/norm.weight"]
        np.savez(path, **arrays)
    else:
        np.savez(path, **{**arrays, "image": np.array([{}], dtype=object)})
    shutil.copyfile(parity_dir / "geometry.npz", tmp_path / "geometry.npz")
    report = compare(tmp_path)
    assert not report.ok
    [row] = [row for row in report.rows if not row.ok]
    assert row.file == "backbone_tiny.npz"
    assert row.compared.startswith("not comparable: ")


def test_backbone_of_unknown_size_is_a_row_that_is_out(tmp_path: Path) -> None:
    np.savez(tmp_path / "vit_huge_rule.npz", names_sorted=["a"], cls_normed=np.zeros((1, 1280)))
    [row] = compare(tmp_path).rows
    assert "not known here" in row.compared


def test_missing_torch_is_said(parity_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without_torch(name: str) -> object:
        if name.endswith("parity_backbone"):
            raise ImportError("No module named 'torch'")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without_torch)
    with pytest.raises(ModelError, match=r"pip install 'unim2\[train\]'"):
        compare(parity_dir, "backbone_tiny")
    assert compare(parity_dir, "geometry").ok
    assert "unim2_core.evaluation.parity_encodings" in sys.modules


def test_folder_without_golden_files_is_an_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(ModelError, match="no golden files"):
            golden_files(folder)
    (tmp_path / "a.npz").write_bytes(b"")
    assert list(golden_files(tmp_path)) == ["a"]
    with pytest.raises(ModelError, match=r"no golden file b\.npz"):
        compare(tmp_path, "b.npz")


@pytest.mark.parametrize(
    ("found", "expected", "error"),
    [
        ([1.0, 2.0], [1.0, 2.0], 0.0),
        ([1.0, 2.5], [1.0, 2.0], 0.25),
        ([1.0, -2.0], [1.0, 2.0], 2.0),
        ([0.5], [0.0], 0.5),
        ([[1.0, 2.0]], [1.0, 2.0], np.inf),
        ([1.0], [1.0, 1.0], np.inf),
        ([300], np.array([44], np.uint8), 256 / 44),
    ],
)
def test_deviation(found: object, expected: object, error: float) -> None:
    assert deviation(found, expected) == pytest.approx(error)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_never_ok(value: float) -> None:
    for found, expected in (([value], [1.0]), ([1.0], [value]), ([value], [value])):
        with np.errstate(invalid="ignore"):
            error = deviation(found, expected)
        assert not Row("a", "b", "c", error, 1.0).ok
