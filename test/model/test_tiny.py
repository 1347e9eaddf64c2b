from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors import safe_open
from safetensors.torch import save_file

from unim2_core.errors import ModelError
from unim2_core.inference.export import export_backbone
from unim2_core.model.frozen import FrozenBackbone
from unim2_core.model.texture import TextureFeatures
from unim2_core.model.tiny import KIND, WEIGHTS, TinyBackbone, is_tiny
from unim2_core.sensing.modalities import MODALITIES
from unim2_core.shares import share

HALF = 2**-11


@pytest.fixture(scope="module")
def backbone() -> TinyBackbone:
    made = TinyBackbone.untrained(3)
    draw = torch.Generator().manual_seed(0)
    made.mean = torch.randn(made.embed_dim, generator=draw)
    made.scale = torch.rand(made.embed_dim, generator=draw) + 0.5
    return made.eval()


def test_both_halves_are_side_by_side_and_standardized(backbone: TinyBackbone) -> None:
    images = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        tokens = backbone(images)
        raw = torch.cat([backbone.texture(images), backbone.transformer(images)], dim=-1)
    assert tokens.shape == (2, 6, 8, 240)
    assert raw.shape[-1] - backbone.transformer.embed_dim == TextureFeatures.embed_dim == 48
    torch.testing.assert_close(tokens, (raw - backbone.mean) * backbone.scale)


def test_a_seed_decides_the_random_weights() -> None:
    one, two, other = (TinyBackbone.untrained(seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(one[name], two[name]) for name in one)
    changed = {name for name in one if not torch.equal(one[name], other[name])}
    matrices = {name for name in one if name.startswith("transformer") and one[name].ndim > 1}
    assert changed == matrices


def test_weights_come_back_as_they_were_written_to_half_precision(
    backbone: TinyBackbone, tmp_path: Path
) -> None:
    path = tmp_path / "ours.safetensors"
    backbone.save(path, {"steps": 3})
    assert path.stat().st_size < 12e6
    assert is_tiny(path)
    with safe_open(path, framework="numpy") as file:
        assert json.loads(file.metadata()[KIND]) == {"steps": 3}
    again = TinyBackbone.load(path).state_dict()
    for name, value in backbone.state_dict().items():
        torch.testing.assert_close(again[name], value, rtol=HALF, atol=2**-24)
    frozen = FrozenBackbone(str(path))
    assert (frozen.name, frozen.baseline, frozen.patch_size, frozen.embed_dim) == (
        *("tiny", True, 8, 240),
    )


def test_the_same_weights_give_the_same_file(backbone: TinyBackbone, tmp_path: Path) -> None:
    for name in ("a", "b"):
        backbone.save(tmp_path / name, {"z": 1, "a": 2})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda state: state.pop("mean"), "mean"),
        (lambda state: state.update(more=torch.zeros(1)), "more"),
        (lambda state: state.update(mean=torch.zeros(3)), "mean"),
        (lambda state: state["scale"].fill_(float("nan")), "not finite"),
    ],
)
def test_other_weights_are_refused(
    backbone: TinyBackbone,
    tmp_path: Path,
    change: object,
    found: str,
) -> None:
    state = {name: value.clone() for name, value in backbone.state_dict().items()}
    change(state)  # type: ignore[operator]
    save_file(state, tmp_path / "x.safetensors", metadata={KIND: "{}"})
    with pytest.raises(ModelError, match="tiny backbone") as error:
        TinyBackbone.load(tmp_path / "x.safetensors")
    assert found in str(error.value)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    assert not is_tiny(tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="tiny backbone"):
        TinyBackbone.load(tmp_path / "x.safetensors")
    save_file({"mean": torch.zeros(1)}, tmp_path / "y.safetensors")
    assert not is_tiny(tmp_path / "y.safetensors")
    with pytest.raises(ModelError, match="no card"):
        TinyBackbone.load(tmp_path / "y.safetensors")


def test_masked_patches_are_not_seen_by_the_transformer(backbone: TinyBackbone) -> None:
    draw = torch.Generator().manual_seed(2)
    images = torch.rand(1, 3, 32, 32, generator=draw)
    masked = torch.zeros(1, 4, 4, dtype=torch.bool)
    masked[0, 1, 2] = True
    changed = images.clone()
    changed[..., 8:16, 16:24] = 0
    with torch.no_grad():
        one, other = (
            backbone.transformer.forward_features(x, masked=masked).layers[0]
            for x in (images, changed)
        )
        seen = backbone.transformer(changed)
    assert torch.equal(one, other)
    assert not torch.allclose(backbone.transformer(images), seen)


@pytest.mark.parametrize("size", [(32, 48), (80, 56), (120, 160)])
def test_the_graph_equals_the_network_at_sizes_that_were_not_traced(
    backbone: TinyBackbone, tmp_path_factory: pytest.TempPathFactory, size: tuple[int, int]
) -> None:
    import onnxruntime

    path = tmp_path_factory.getbasetemp() / "tiny.onnx"
    normal = MODALITIES["rgb"]
    if not path.exists():
        export_backbone(backbone, path, mean=normal.mean, std=normal.std)
    images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (tokens,) = session.run(None, {"images": images})
    expected = FrozenBackbone.of(backbone, "tiny")(images)
    np.testing.assert_allclose(tokens, expected, atol=2e-4, rtol=1e-4)


def test_the_weights_of_the_package_are_those_of_their_card() -> None:
    from unim2_core.files import sha256

    path = share(WEIGHTS)
    card = path.with_suffix(".md").read_text()
    assert sha256(path) in card
    assert "Apache-2.0" in card
    assert "synthetic drives" in card
    with safe_open(path, framework="numpy") as file:
        facts = json.loads(file.metadata()[KIND])
    assert "synthetic" in facts["data"]
    assert path.stat().st_size < 12e6
    assert TinyBackbone.load().scale.min() > 0
