"""Graphs on TensorRT: built without a GPU, run and held against the model where there is one."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from engine_samples import images, write_model

from unim2_core.errors import ModelError
from unim2_core.inference import backends, cuda
from unim2_core.inference.cuda import device, device_there
from unim2_core.inference.engine import Engine
from unim2_core.inference.engine_store import Telling
from unim2_core.inference.half_precision import halved
from unim2_core.inference.parity import EXACT
from unim2_core.inference.tensorrt import TensorRtGraph
from unim2_core.inference.tensorrt_building import built
from unim2_core.model.bundle import BACKBONE, HEAD, Bundle

needs_gpu = pytest.mark.skipif(not device_there(), reason="no CUDA device: no engine was run")


@pytest.fixture(scope="module", params=["network", "clusters"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_model(tmp_path_factory.mktemp("model") / "m.unim2", request.param)


def frame(model: Bundle) -> dict[str, dict[str, np.ndarray]]:
    """Inputs of both graphs."""
    stored = model.parity()
    presence = np.ones(stored["tokens"].shape[:3], np.float32)
    head = {"tokens": stored["tokens"], "presence": presence, **model.weights()}
    return {BACKBONE: {"images": stored["images"]}, HEAD: head}


@pytest.mark.trt
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("graph", [BACKBONE, HEAD])
def test_nvidias_compiler_builds_it_for_fixed_shapes(
    model: Bundle, graph: str, precision: str
) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx: graphs not compiled")
    content = (model.path / graph).read_bytes()
    if precision == "fp16":
        content = halved(content)
    shapes = {name: array.shape for name, array in frame(model)[graph].items()}
    telling = Telling("building")
    engine, _ = built(trt, content, shapes, tf32=False, timing_cache=b"", telling=telling)
    assert len(engine) > 100_000
    assert telling.phase  # it said what it was at


@pytest.mark.trt
def test_a_truncated_graph_is_an_error_that_says_so(model: Bundle) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx: graphs not compiled")
    content = (model.path / BACKBONE).read_bytes()
    shapes = {"images": (1, 64, 96, 3)}
    options = {"tf32": False, "timing_cache": b"", "telling": Telling("building")}
    with pytest.raises(ModelError, match="cannot read the graph"):
        built(trt, content[: len(content) // 2], shapes, **options)
    with pytest.raises(ModelError, match="whole ONNX file"):
        halved(content[: len(content) // 2])
    with pytest.raises(ModelError, match="an input images that is not known"):
        built(trt, content, {}, **options)


@pytest.mark.skipif(device_there(), reason="there is a CUDA device")
def test_without_a_device_the_library_is_not_touched(
    model: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched() -> None:
        raise AssertionError

    monkeypatch.setattr("unim2_core.inference.tensorrt.library", touched)
    with pytest.raises(ModelError, match="no CUDA device"):
        device()
    with pytest.raises(ModelError, match="no CUDA device"):
        TensorRtGraph(model.path / BACKBONE)
    assert "tensorrt" not in backends.candidates("auto", "fp32")
    assert not list(model.path.glob("engines*"))


def test_a_driver_that_fails_is_told_from_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(_: str) -> None:
        raise OSError

    monkeypatch.setattr(cuda.ctypes, "CDLL", absent)
    with pytest.raises(ModelError, match="no NVIDIA driver"):
        device()
    mismatch = 803
    driver = SimpleNamespace(cuInit=lambda _: mismatch, cuDeviceGetCount=lambda _: 0)
    monkeypatch.setattr(cuda.ctypes, "CDLL", lambda _: driver)
    with pytest.raises(ModelError, match="CUDA error 803"):
        device()
    driver.cuInit = lambda _: 0
    with pytest.raises(ModelError, match="without a device"):
        device()
    assert not device_there()


@pytest.mark.parametrize(
    ("version", "warned"),
    [("10.3.0", True), ("10.4.0", True)]
    + [(version, False) for version in ("10.16.1.11", "10.30.0", "11.4.0.106")],
)
def test_versions_that_miscompile_are_warned_of(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    version: str,
    warned: bool,
) -> None:
    found = SimpleNamespace(__name__="tensorrt", __version__=version)
    monkeypatch.setattr("unim2_core.inference.tensorrt.library", lambda: found)
    monkeypatch.setattr(
        "unim2_core.inference.tensorrt.device", lambda: cuda.Device("Orin", "8.7", 12060)
    )
    (tmp_path / "a.onnx").write_bytes(b"graph")
    TensorRtGraph(tmp_path / "a.onnx")
    assert ("miscompile" in caplog.text) == warned


@pytest.mark.gpu
@pytest.mark.trt
@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_it_answers_as_the_model_and_is_found_again(
    model: Bundle, precision: str, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine(model, "tensorrt", precision=precision)
    print(engine.summary)
    assert EXACT.passes(engine.parity)
    stored = model.parity()
    presence = np.ones(stored["tokens"].shape[:3], np.float32)
    first = engine.classify(stored["tokens"], presence)
    for _ in range(3):  # recorded work gives what came first
        again = engine.classify(stored["tokens"], presence)
        assert (again.classes == first.classes).all()
        assert (again.confidence == first.confidence).all()
    other = engine.tokens(images(seed=1)[:1])
    assert np.abs(other - engine.tokens(images(seed=2)[:1])).max() > 1e-2
    assert (other == engine.tokens(images(seed=1)[:1])).all()
    with caplog.at_level(logging.WARNING):
        Engine(model, "tensorrt", precision=precision)
    assert "building" not in caplog.text


@pytest.mark.gpu
@pytest.mark.trt
@needs_gpu
def test_other_weights_are_in_the_next_frame(model: Bundle) -> None:
    engine = Engine(model, "tensorrt")
    stored = model.parity()
    presence = np.ones(stored["tokens"].shape[:3], np.float32)
    before = engine.classify(stored["tokens"], presence).classes
    weights = dict(model.weights())
    weights["prototypes"] = weights["prototypes"][::-1]
    engine.heads.replace("turned", weights)
    after = engine.classify(stored["tokens"], presence)
    assert after.version == "turned"
    assert (len(weights["prototypes"]) - 1 - after.classes == before).mean() > 0.999
    engine.heads.roll_back()
    assert (engine.classify(stored["tokens"], presence).classes == before).all()
    presence[:, :, 0] = 0
    assert (engine.classify(stored["tokens"], presence).classes[:, 0] == 255).all()
