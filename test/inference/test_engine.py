"""Engines on every backend that is installed: equal to what torch stored, or not used."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from unim2_core.errors import ModelError
from unim2_core.files import sha256
from unim2_core.inference import backends
from unim2_core.inference.backends import LIBRARIES, Backend, Device, Graph, Precision
from unim2_core.inference.engine import Engine
from unim2_core.inference.parity import EXACT
from unim2_core.model.bundle import BACKBONE, HEAD, MANIFEST, PARITY, Bundle

needs_openvino = pytest.mark.skipif(
    not LIBRARIES["openvino"].installed,
    reason="openvino is not installed: pip install 'unim2[openvino]'",
)
EACH = pytest.mark.parametrize(
    "backend", [pytest.param("openvino", marks=needs_openvino), "onnxruntime", "torch"]
)


@EACH
def test_answers_equal_what_torch_stored(model_path: Path, backend: Backend) -> None:
    bundle = Bundle(model_path)
    stored = bundle.parity()
    engine = Engine(bundle, backend)
    tokens = engine.tokens(stored["images"])
    # A deviation is the root of a difference, 1e-3 at least: float32's 1e-7 there gives 5e-5.
    np.testing.assert_allclose(tokens, stored["tokens"], rtol=1e-4, atol=5e-5)
    classes, confidence, version = engine.classify(tokens, np.ones(tokens.shape[:3], np.float32))
    assert confidence.shape == classes.shape
    assert version == bundle.sha256
    differ = classes != stored["classes"]
    assert differ.mean() < 0.005
    assert (confidence[differ] <= 1).all()  # ties only
    assert engine.backend == backend and EXACT.passes(engine.parity) and not engine.refused


@EACH
def test_sizes_that_were_not_traced_and_back_again(model_path: Path, backend: Backend) -> None:
    bundle = Bundle(model_path)
    engine = Engine(bundle, backend, threads=1)
    patch = bundle.manifest.backbone.patch_size
    rng = np.random.default_rng(0)
    shapes = [(1, rows * patch, columns * patch, 3) for rows in (4, 5, 9) for columns in (3, 8)]
    images = [rng.integers(0, 256, shape, np.uint8) for shape in shapes]  # more than are kept
    first = [engine.tokens(image) for image in images]
    for image, tokens in zip(images, first, strict=True):
        assert tokens.shape[1:3] == (image.shape[1] // patch, image.shape[2] // patch)
        np.testing.assert_array_equal(engine.tokens(image), tokens)


@needs_openvino
def test_the_backends_agree(model_path: Path) -> None:
    bundle = Bundle(model_path)
    images = bundle.parity()["images"]
    one, other = (Engine(bundle, name) for name in ("openvino", "onnxruntime"))  # type: ignore[arg-type]
    np.testing.assert_allclose(one.tokens(images), other.tokens(images), rtol=1e-4, atol=5e-5)


REPLACED = """
import pathlib, signal, sys
from unim2_core.inference.backends import LIBRARIES
from unim2_core.model.bundle import BACKBONE, Bundle

caught = []
signal.signal(signal.SIGINT, lambda *_: caught.append("caught"))
load, graph = LIBRARIES[sys.argv[2]].load, Bundle(pathlib.Path(sys.argv[1])).path / BACKBONE
one = load(graph, "fp32", 1, "cpu")
other = load(graph, "fp32", 1, "cpu")
del one
del other
signal.raise_signal(signal.SIGINT)
print(*caught)
"""


@EACH
def test_a_signal_is_handled_after_an_engine_has_replaced_another(
    model_path: Path, backend: Backend
) -> None:
    command = [sys.executable, "-c", REPLACED, str(model_path), backend]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "caught\n"), done.stderr


@EACH
def test_an_engine_that_is_loaded_needs_its_files_no_more(
    model_path: Path, tmp_path: Path, backend: Backend
) -> None:
    copy = Path(shutil.copytree(model_path, tmp_path / "copy.unim2"))
    bundle = Bundle(copy)
    images = bundle.parity()["images"][:1]
    engine = Engine(bundle, backend)
    shutil.rmtree(copy)
    patch = bundle.manifest.backbone.patch_size
    assert engine.tokens(images[:, : 2 * patch]).shape[1] == 2


def test_a_backend_that_cannot_even_be_imported_is_passed_over(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Graph) -> Graph:
        raise ImportError("libtbb.so.12: cannot open shared object file")

    stand_in(monkeypatch, broken)
    engine = Engine(Bundle(model_path))
    assert engine.backend == "onnxruntime"
    assert "libtbb.so.12" in engine.refused[0]


@needs_openvino
def test_answers_stay_what_they_were_when_the_engine_runs_on(model_path: Path) -> None:
    bundle = Bundle(model_path)
    engine = Engine(bundle, "openvino")
    images = bundle.parity()["images"]
    first = engine.tokens(images[:1])
    kept = first.copy()
    engine.tokens(255 - images[:1])
    np.testing.assert_array_equal(first, kept)


@needs_openvino
def test_half_precision_is_used_where_it_passes_the_gate(model_path: Path) -> None:
    bundle = Bundle(model_path)
    try:
        engine = Engine(bundle, precision="bf16")
    except ModelError as error:
        if "this CPU does not compute" in error.what:
            pytest.skip("this CPU has no bf16")
        raise
    exact = Engine(bundle, "openvino").parity
    assert engine.backend == "openvino"
    assert EXACT.passes(engine.parity)
    assert engine.parity.max_error > exact.max_error  # it is really another precision


def altered(model_path: Path, folder: Path, name: str) -> Bundle:
    """A copy of the bundle whose stored answers are others."""
    copy = Path(shutil.copytree(model_path, folder / "copy.unim2"))
    stored = Bundle(copy).parity()
    stored[name] = stored[name][:, ::-1].copy() if name == "tokens" else stored[name][::-1].copy()
    np.savez_compressed(copy / PARITY, **stored)
    text = (copy / MANIFEST).read_text()
    text = text.replace(sha256(model_path / PARITY), sha256(copy / PARITY))
    (copy / MANIFEST).write_text(text)
    return Bundle(copy)


@EACH
@pytest.mark.parametrize("name", ["tokens", "classes"])
def test_an_engine_that_computes_something_else_is_refused(
    model_path: Path, tmp_path: Path, name: str, backend: Backend
) -> None:
    with pytest.raises(ModelError, match=f"{backend} in fp32 does not compute what"):
        Engine(altered(model_path, tmp_path, name), backend)


def test_where_every_backend_fails_the_last_says_why(model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="in fp32 does not compute what"):
        Engine(altered(model_path, tmp_path, "tokens"))


class Wrong:
    """A graph whose answers are a little off, as after a miscompilation."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run once."""
        answers = self._graph(inputs)
        rng = np.random.default_rng(0)
        return {
            name: array + 0.2 * rng.standard_normal(array.shape).astype(np.float32)
            if name == "tokens"
            else array
            for name, array in answers.items()
        }


def stand_in(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[Graph], Graph], installed: bool = True
) -> None:
    """Let OpenVINO's place be taken by ONNX Runtime, changed."""
    right = LIBRARIES["onnxruntime"]

    def load(path: Path, precision: Precision, threads: int, device: Device) -> Graph:
        return change(right.load(path, precision, threads, device))

    first = replace(right, load=load, module=right.module if installed else "no_such_module")
    monkeypatch.setattr(backends, "LIBRARIES", {"openvino": first, "onnxruntime": right})
    monkeypatch.setattr("unim2_core.inference.engine.LIBRARIES", backends.LIBRARIES)


def test_the_next_backend_is_used_where_one_fails_the_gate(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, Wrong)
    engine = Engine(Bundle(model_path))
    assert engine.backend == "onnxruntime"
    [sentence] = engine.refused
    assert sentence.startswith("openvino is not used: openvino in fp32 does not compute what")
    assert "; found 0." in sentence  # with its figures
    with pytest.raises(ModelError, match="does not compute what"):
        Engine(Bundle(model_path), "openvino")


def test_only_the_first_that_passes_is_loaded(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Backend] = []

    def load(path: Path, precision: Precision, threads: int, device: Device) -> Graph:
        loaded.append("onnxruntime")
        return right.load(path, precision, threads, device)

    right = LIBRARIES["onnxruntime"]
    libraries = {"onnxruntime": replace(right, load=load), "openvino": None}
    monkeypatch.setattr("unim2_core.inference.engine.LIBRARIES", libraries)
    assert Engine(Bundle(model_path)).backend == "onnxruntime"
    assert loaded == ["onnxruntime", "onnxruntime"]  # both graphs


def test_graphs_with_other_inputs_are_refused(model_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(model_path, tmp_path / "copy.unim2"))
    shutil.copyfile(copy / BACKBONE, copy / HEAD)
    text = (copy / MANIFEST).read_text()
    text = text.replace(sha256(model_path / HEAD), sha256(copy / HEAD))
    (copy / MANIFEST).write_text(text)
    with pytest.raises(ModelError, match="cannot run the graphs"):
        Engine(Bundle(copy), "onnxruntime")


def test_a_size_that_would_be_cut_is_refused(model_path: Path) -> None:
    engine = Engine(Bundle(model_path), "onnxruntime", threads=1)
    with pytest.raises(ModelError, match="100x64 whole"):
        engine.tokens(np.zeros((1, 64, 100, 3), np.uint8))


@pytest.mark.parametrize(
    "backend", [pytest.param("openvino", marks=needs_openvino), "onnxruntime"]
)
def test_a_truncated_graph_is_refused(model_path: Path, tmp_path: Path, backend: Backend) -> None:
    whole = (model_path / BACKBONE).read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"cannot load .*cut\.onnx") as caught:
        LIBRARIES[backend].load(tmp_path / "cut.onnx", "fp32", 1, "auto")
    assert caught.value.found and not caught.value.found.startswith("Exception from")


@pytest.mark.parametrize(
    ("backend", "precision", "said"),
    [
        ("abacus", "fp32", "unknown backend"),
        ("auto", "int3", "unknown precision"),
        ("onnxruntime", "bf16", "onnxruntime does not compute in bf16"),
    ],
)
def test_what_cannot_be_run_is_refused(
    model_path: Path, backend: Any, precision: Any, said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        Engine(Bundle(model_path), backend, precision=precision)


def test_what_is_not_installed_is_named_with_its_package(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, lambda graph: graph, installed=False)
    assert Engine(Bundle(model_path)).backend == "onnxruntime"
    with pytest.raises(ModelError, match="openvino cannot be used") as caught:
        Engine(Bundle(model_path), "openvino")
    assert "pip install" in caught.value.remedy
