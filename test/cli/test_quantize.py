"""``unim2 quantize``: an int8 graph from a drive, kept only where it is near enough to float32."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from scenes import write_bag
from typer.testing import CliRunner

from unim2_core.cli.main import app
from unim2_core.errors import ModelError
from unim2_core.files import sha256
from unim2_core.inference import parity, quantization
from unim2_core.inference.engine import Engine
from unim2_core.inference.int8 import FACTS, FILES, Quantized, folder_of
from unim2_core.inference.parity import APPROXIMATE, Gate
from unim2_core.model.bundle import BACKBONE, HEAD, MANIFEST, NETWORK, PARITY, WEIGHTS, Bundle

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")
pytest.importorskip("nncf", reason="nncf is not installed: pip install 'unim2[openvino]'")


@pytest.fixture(scope="module")
def model(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model with a transformer as its backbone, and classes that fit its tokens."""
    from unim2_core.inference.export import export_backbone
    from unim2_core.model.backbone import BackboneConfig, DinoV3
    from unim2_core.sensing.modalities import MODALITIES

    path = tmp_path_factory.mktemp("int8") / "model.unim2"
    shutil.copytree(model_path, path)
    bundle = Bundle(path)
    torch.manual_seed(0)
    config = BackboneConfig("small", 64, depth=2, num_heads=2, ffn_dim=128, patch_size=8)
    width = bundle.manifest.backbone.embed_dim
    network = torch.nn.Sequential(DinoV3(config).eval(), torch.nn.Linear(64, width)).eval()
    network.patch_size = 8
    normal = MODALITIES["rgb"]
    export_backbone(network, path / BACKBONE, mean=normal.mean, std=normal.std)
    stored = bundle.parity()
    manifest = json.loads((path / MANIFEST).read_text())
    graph = parity_tokens(path, stored["images"])
    weights = bundle.weights()
    flat = graph.reshape(2, -1, width)
    weights["mean"] = flat.mean(1)
    weights["scale"] = 1 / flat.std(1)
    unit = (flat - weights["mean"][:, None]) * weights["scale"][:, None]
    unit /= np.linalg.norm(unit, axis=2, keepdims=True)
    halves = unit.reshape(2, 2, -1, width).mean(2)  # above and below, of each modality
    halves /= np.linalg.norm(halves, axis=2, keepdims=True)
    weights["prototypes"] = halves.transpose(1, 0, 2)
    weights["valid"] = np.ones(2, np.float32)
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(a) for name, a in weights.items()}, path / WEIGHTS)
    head = Head(path, weights)
    np.savez_compressed(path / PARITY, images=stored["images"], tokens=graph, classes=head(graph))
    for name in (BACKBONE, WEIGHTS, PARITY):
        manifest["files"][name] = sha256(path / name)
    manifest["files"].pop(NETWORK)
    (path / NETWORK).unlink()
    (path / MANIFEST).write_text(json.dumps(manifest))
    return path


def parity_tokens(path: Path, images: np.ndarray) -> np.ndarray:
    from unim2_core.inference.onnxruntime import OnnxRuntimeGraph

    tokens: np.ndarray = OnnxRuntimeGraph(path / BACKBONE)({"images": images})["tokens"]
    return tokens


class Head:
    """Classes of tokens, by ONNX Runtime."""

    def __init__(self, path: Path, weights: dict[str, np.ndarray]) -> None:
        from unim2_core.inference.onnxruntime import OnnxRuntimeGraph

        self._graph, self._weights = OnnxRuntimeGraph(path / HEAD), weights

    def __call__(self, tokens: np.ndarray) -> np.ndarray:
        seen = np.ones(tokens.shape[:3], np.float32)
        return self._graph({"tokens": tokens, "presence": seen, **self._weights})["classes"]


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drive") / "drive"
    write_bag(path, 8)
    return path


def quantize(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["quantize", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_an_int8_graph_is_made_once_and_then_run(
    model: Path, drive: Path, tmp_path: Path, backend: Quantized
) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "model.unim2"))
    before = Bundle(copy).sha256
    with pytest.raises(ModelError, match="has no int8 graph") as caught:
        Engine(Bundle(copy), backend, precision="int8")
    assert f"unim2 quantize BAG --model NAME.unim2 --backend {backend}" in caught.value.remedy
    facts = tmp_path / "facts.json"
    options = ("--frames", 8, "--backend", backend, "--json", facts)
    status, out, errors = quantize(drive, "--model", copy, *options)
    assert status == 0, errors
    assert "int8 on 4 held-out sets" in out
    found = json.loads(facts.read_text())
    assert found == json.loads((copy / folder_of(backend) / FACTS).read_text())
    assert found["calibrated"] == found["held_out"] == 4
    bundle = Bundle(copy)
    assert bundle.sha256 == before  # the model is the same one
    engine = Engine(bundle, precision="int8")
    assert engine.backend == backend and APPROXIMATE.passes(engine.parity)
    exact = Engine(bundle, backend)
    assert engine.parity.max_error > 10 * exact.parity.max_error  # it is really another precision
    small = (copy / folder_of(backend) / FILES[backend][-1]).stat().st_size
    assert small < 0.6 * (copy / BACKBONE).stat().st_size


@pytest.mark.slow
def test_one_that_is_too_far_off_is_refused_with_its_figures(
    model: Path, drive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "model.unim2"))
    monkeypatch.setattr(quantization, "gate_of", lambda _: Gate(1.0, 1.0))
    status, _, errors = quantize(drive, "--model", copy, "--frames", 4)
    assert status == 1
    assert "int8 is too far from float32 on 2 held-out sets" in errors
    assert "found:    0.9" in errors
    assert not (copy / folder_of("openvino")).exists() and not list((copy / "engines").iterdir())


@pytest.mark.slow
def test_a_graph_of_another_backbone_or_a_damaged_one_is_not_run(
    model: Path, drive: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "model.unim2"))
    assert quantize(drive, "--model", copy, "--frames", 4)[0] == 0
    facts = json.loads((copy / folder_of("openvino") / FACTS).read_text())
    (copy / folder_of("openvino") / FACTS).write_text(json.dumps(facts | {"backbone": "0" * 64}))
    with pytest.raises(ModelError, match="does not fit this model"):
        Engine(Bundle(copy), precision="int8")
    (copy / folder_of("openvino") / FACTS).write_text(json.dumps(facts))
    (copy / folder_of("openvino") / FILES["openvino"][0]).write_text("cut")
    with pytest.raises(ModelError, match="does not fit this model") as caught:
        Engine(Bundle(copy), precision="int8")
    assert FILES["openvino"][0] in caught.value.expected


def test_int8_has_a_gate_of_its_own() -> None:
    figures = parity.Parity(token_cosine=0.95, max_error=1.0, agreement=0.98)
    assert parity.gate_of("int8").passes(figures)
    assert not any(parity.gate_of(one).passes(figures) for one in ("fp32", "bf16", "fp16"))
    assert not parity.gate_of("int8").passes(parity.Parity(float("nan"), 1.0, 1.0))


@pytest.mark.slow
def test_too_few_images_are_refused(model: Path) -> None:
    with pytest.raises(ModelError, match="too few images"):
        quantization.quantize(Bundle(model), [{}] * 3, "drive")
