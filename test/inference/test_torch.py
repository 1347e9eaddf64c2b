"""The torch backend: built from what a bundle holds, equal to what was stored, on CPU and GPU."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scenes import frame_sets

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from safetensors.torch import load_file, save_file

from unim2_core.errors import ModelError
from unim2_core.inference.backends import LIBRARIES
from unim2_core.inference.engine import Engine
from unim2_core.inference.parity import EXACT
from unim2_core.inference.pipeline import Pipeline
from unim2_core.model.backbone import BackboneConfig, DinoV3
from unim2_core.model.bundle import BACKBONE, NETWORK, Bundle
from unim2_core.model.prepared import prepared
from unim2_core.model.stored import network_of, stored_network
from unim2_core.model.texture import TextureFeatures
from unim2_core.model.tiny import TinyBackbone
from unim2_core.sensing.rig import Rig

RIG = Rig.default(("rgb", "thermal"))
SMALL = BackboneConfig("custom", embed_dim=64, depth=3, num_heads=2, ffn_dim=128)
GATED = BackboneConfig("custom", embed_dim=64, depth=2, num_heads=2, ffn_dim=96, gated=True)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def drawn(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """Every parameter at a value that matters, also scales, masked biases and learnt tokens."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        network = make()
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return network.eval().requires_grad_(False)


def networks() -> dict[str, torch.nn.Module]:
    """One of each kind that a bundle may hold."""
    return {
        "texture": TextureFeatures().eval(),
        "tiny": drawn(TinyBackbone),
        "dinov3": drawn(lambda: DinoV3(SMALL)),
        "gated, two layers": drawn(lambda: DinoV3(GATED, n_layers=2)),
    }


@pytest.mark.parametrize("kind", networks())
def test_a_network_that_was_stored_and_prepared_computes_the_same(
    kind: str, tmp_path: Path
) -> None:
    network = networks()[kind]
    save_file(network.state_dict(), tmp_path / NETWORK)
    side = 4 * network.patch_size
    images = torch.randn(2, 3, side, 2 * side, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = network(images)
        fast = prepared(stored_network(tmp_path / NETWORK, network.embed_dim), torch.float32)
        for _ in range(2):  # the second time with angles that were kept
            found = fast(images)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_differs_by_rounding_alone(dtype: torch.dtype) -> None:
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = drawn(lambda: DinoV3(SMALL))(images)
        found = prepared(drawn(lambda: DinoV3(SMALL)), dtype)(images)  # type: ignore[arg-type]
    assert found.dtype == torch.float32
    error = (found - expected).abs().max() / expected.abs().max()
    assert 0 < error < (0.05 if dtype == torch.bfloat16 else 0.01)


def test_weights_of_another_network_are_refused_by_name(tmp_path: Path) -> None:
    state = TinyBackbone().state_dict()
    state["mean"] = state["mean"][:-1].clone()
    save_file(state, tmp_path / "odd.safetensors")
    with pytest.raises(ModelError, match="mean of shape"):
        stored_network(tmp_path / "odd.safetensors", 256)
    state = DinoV3(SMALL).state_dict()
    del state["norm.bias"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(ModelError, match=r"norm\.bias"):
        stored_network(tmp_path / "less.safetensors", 64)
    (tmp_path / "no.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match="cannot read the backbone"):
        stored_network(tmp_path / "no.safetensors", 64)


def test_a_bundle_holds_the_backbone_that_it_was_made_with(model_path: Path) -> None:
    stored = load_file(model_path / NETWORK)
    for name, tensor in TextureFeatures().state_dict().items():
        torch.testing.assert_close(stored[name], tensor)
    assert NETWORK in Bundle(model_path).manifest.files


def test_an_older_bundle_runs_on_weights_at_hand(tmp_path: Path) -> None:
    network = network_of(tmp_path / NETWORK, "texture", TextureFeatures.embed_dim)
    assert isinstance(network, TextureFeatures)
    with pytest.raises(ModelError):
        network_of(tmp_path / NETWORK, "custom", 64)


def test_a_gpu_is_asked_for_where_there_is_none(model_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ModelError, match="torch cannot use a CUDA device") as caught:
        Engine(Bundle(model_path), "torch", device="cuda")
    assert "--device cpu" in caught.value.remedy
    with pytest.raises(ModelError, match="this CPU does not compute in fp16"):
        Engine(Bundle(model_path), "torch", precision="fp16")


def test_what_knows_no_gpu_is_not_tried_for_one(model_path: Path) -> None:
    with pytest.raises(ModelError, match="openvino does not run on cuda"):
        Engine(Bundle(model_path), "openvino", device="cuda")
    assert Engine(Bundle(model_path), device="cpu").backend == "onnxruntime"


def test_a_batch_answers_as_images_one_by_one(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = next(frame_sets(1))
    expected = Pipeline(Bundle(model_path), RIG, "torch")(frames)
    pipeline = Pipeline(Bundle(model_path), RIG, "torch")
    monkeypatch.setattr(pipeline.engine, "batched", True)
    calls: list[int] = []
    tokens = pipeline.engine.tokens
    monkeypatch.setattr(
        pipeline.engine, "tokens", lambda images: calls.append(len(images)) or tokens(images)
    )
    found = pipeline(frames)
    assert calls == [2]
    differ = found.classes != expected.classes
    assert differ.mean() < 0.005


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_on_a_gpu_it_passes_the_gate_and_answers_stay(model_path: Path, precision: str) -> None:
    bundle = Bundle(model_path)
    engine = Engine(bundle, "torch", precision=precision, device="cuda")  # type: ignore[arg-type]
    assert engine.batched and EXACT.passes(engine.parity)
    images = bundle.parity()["images"]
    first = engine.tokens(images)
    kept = first.copy()
    engine.tokens(255 - images)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(engine.tokens(images), kept)
    presence = np.ones(kept.shape[:3], np.float32)
    classes = engine.classify(kept, presence).classes
    weights = bundle.weights()
    weights["prototypes"] = weights["prototypes"][::-1].copy()
    engine.heads.replace("turned", weights)
    turned = engine.classify(kept, presence)
    assert turned.version == "turned"
    assert ((3 - turned.classes) == classes).mean() > 0.99
    engine.heads.roll_back()
    np.testing.assert_array_equal(engine.classify(kept, presence).classes, classes)


@pytest.mark.gpu
@needs_gpu
def test_on_a_gpu_the_pipeline_answers_as_on_the_cpu(model_path: Path) -> None:
    frames = next(frame_sets(1))
    bundle = Bundle(model_path)
    one, other = (
        Pipeline(bundle, RIG, "torch", device=device)(frames) for device in ("cpu", "cuda")
    )
    assert (one.classes == other.classes).mean() > 0.995


def test_an_engine_without_its_manifest_is_refused(model_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(model_path, tmp_path / "copy.unim2"))
    bundle = Bundle(copy)
    (copy / NETWORK).write_bytes(b"cut off")
    with pytest.raises(ModelError, match="cannot read the backbone"):
        Engine(bundle, "torch")
    assert LIBRARIES["torch"].load(model_path / BACKBONE, "fp32", 0, "cpu")
