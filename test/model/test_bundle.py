from __future__ import annotations

import json
import os
import resource
import shutil
from pathlib import Path

import numpy as np
import pytest

from unim2_core.errors import ModelError, Unim2Error
from unim2_core.model.bundle import ENGINES, MANIFEST, PARITY, WEIGHTS, Bundle, Manifest


@pytest.fixture
def copy(model_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_path, tmp_path / "copy.unim2"))


def test_what_was_written_is_read_back(model_path: Path) -> None:
    bundle = Bundle(model_path)
    assert bundle.manifest.reference == "rgb"
    assert [entry.name for entry in bundle.manifest.modalities] == ["rgb", "thermal"]
    weights = bundle.weights()
    assert weights["prototypes"].shape == (4, 2, bundle.manifest.backbone.embed_dim)
    assert all(array.dtype == np.float32 for array in weights.values())
    assert bundle.parity()["images"].shape == (2, *bundle.manifest.infer_size, 3)


def test_a_baseline_says_so(model_path: Path) -> None:
    assert "for trying" in Bundle(model_path).manifest.summary


@pytest.mark.parametrize("name", [WEIGHTS, PARITY, "onnx/backbone.onnx", "onnx/head.onnx"])
def test_a_changed_file_is_named(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        Bundle(copy)


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=f"{WEIGHTS}.*\n.*no such file"):
        Bundle(copy)


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 2}', '{"format": 1, "surprise": 3}'])
def test_a_manifest_that_is_none_is_refused(copy: Path, content: str) -> None:
    (copy / MANIFEST).write_text(content)
    with pytest.raises(ModelError, match="not a manifest"):
        Bundle(copy)


def test_a_file_outside_the_bundle_is_refused(copy: Path) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    manifest["files"]["../elsewhere"] = "0" * 64
    (copy / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="not a manifest"):
        Bundle(copy)


def test_no_bundle_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="unim2 train"):
        Bundle(tmp_path / "nothing.unim2")


def _manifest(path: Path) -> Manifest:
    return Bundle(path).manifest.model_copy(update={"files": {}})


def test_nothing_is_left_of_a_failed_write(model_path: Path, tmp_path: Path) -> None:
    def fill(folder: Path) -> tuple[Manifest, dict[str, np.ndarray]]:
        (folder / "onnx/head.onnx").write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Bundle.write(tmp_path / "new.unim2", fill, {})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [0, 1000, 20_000])
def test_a_full_disk_is_explained_and_leaves_nothing(
    model_path: Path, tmp_path: Path, limit: int
) -> None:
    manifest = _manifest(model_path)
    weights = {"mean": np.ones(4000, np.float32)}  # 16 kB
    noise = {"images": np.random.default_rng(0).integers(0, 256, 40_000, np.uint8)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(Unim2Error, match=r"cannot write.*\n.*room on its disk"):
            Bundle.write(tmp_path / "new.unim2", lambda _: (manifest, noise), weights)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_replaced_only_when_asked(copy: Path) -> None:
    manifest = _manifest(copy).model_copy(update={"name": "second"})
    weights = {"mean": np.ones(3, np.float32)}
    before = Bundle(copy).version
    with pytest.raises(ModelError, match="exists"):
        Bundle.write(copy, lambda _: (manifest, {}), weights)
    assert Bundle(copy).version == before
    (copy / ENGINES / "key").mkdir(parents=True)
    written = Bundle.write(copy, lambda _: (manifest, {}), weights, overwrite=True)
    assert (copy / ENGINES / "key").is_dir()  # minutes of work, and found only where they fit
    assert written.manifest.name == "second"
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_what_cannot_be_replaced_is_there_as_before(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename = Bundle(copy).version, os.rename

    def failing(old: Path, new: Path) -> None:
        if new == copy and not copy.exists() and ".old." not in str(old):
            raise OSError(28, "No space left on device")
        rename(old, new)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(Unim2Error, match="cannot write"):
        Bundle.write(copy, lambda _: (_manifest(copy), {}), {}, overwrite=True)
    assert Bundle(copy).version == before
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]


def test_something_else_is_never_replaced(model_path: Path, tmp_path: Path) -> None:
    (tmp_path / "photos.unim2").mkdir()
    (tmp_path / "photos.unim2" / "cat.jpg").touch()
    with pytest.raises(ModelError, match="something else"):
        Bundle.write(
            tmp_path / "photos.unim2", lambda _: (_manifest(model_path), {}), {}, overwrite=True
        )
    assert (tmp_path / "photos.unim2" / "cat.jpg").exists()
