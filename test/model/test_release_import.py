"""The release's checkpoints: read by shape, whatever the options say, and never run."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.model.release_import import import_release, model_of

CHECKPOINT = "tiny_lightning.ckpt"
EXPECTED = {
    "nyu_small_rgb_depth": ("dinov3_vits16", ("rgb", "depth"), "conv", 70, 13),
    "nyu_base_rgb_depth": ("dinov3_vitb16", ("rgb", "depth"), "conv", 70, 13),
    "mfnet_base_rgb_thermal": ("dinov3_vitb16", ("rgb", "thermal"), "conv", 90, 8),
    "mfnet_small_rgb_thermal": ("dinov3_vits16", ("rgb", "thermal"), "conv", 90, 8),
    "mcubes_small_rgb_aolp": ("dinov3_vits16", ("rgb", "aolp"), "progressive", 320, 20),
    "mcubes_small_rgb_nir_dolp": (
        "dinov3_vits16",
        ("rgb", "nir", "dolp"),
        "progressive",
        320,
        20,
    ),
    "mcubes_small_rgb_nir_aolp_dolp": (
        "dinov3_vits16",
        ("rgb", "nir", "aolp", "dolp"),
        "progressive",
        320,
        20,
    ),
    "nyu_small_rgb_only": ("dinov3_vits16", ("rgb",), "conv", 70, 13),
}


def tiny(parity_dir: Path) -> dict[str, Tensor]:
    """The state dict of the stored checkpoint, as the importer reads it."""
    from unim2_core.model import release_import

    return release_import._tensors(parity_dir / CHECKPOINT)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_published_configuration_is_recognised(parity_dir: Path, name: str) -> None:
    keys = json.loads((parity_dir.parent / "state_dict_keys.json").read_text())[name]
    tensors = {
        key: torch.zeros((), dtype=getattr(torch, dtype)).expand(shape)  # shapes without memory
        for key, (shape, dtype) in keys.items()
    }
    model = model_of(tensors)
    config = model.segmenter.config
    backbone, modalities, fusion, code_dim, classes = EXPECTED[name]
    assert model.backbone.config.name == backbone
    assert (config.modalities, config.fusion) == (modalities, fusion)
    assert (config.code_dim, config.feature_dim) == (code_dim, model.backbone.embed_dim)
    assert config.harmonizer == ("shared" if len(modalities) > 1 else "none")
    assert len(model.cluster_probe.centers) == model.linear_probe.out_channels == classes


def test_every_weight_of_a_checkpoint_arrives(parity_dir: Path) -> None:
    tensors, model = tiny(parity_dir), import_release(parity_dir / CHECKPOINT)
    ours = {
        **model.backbone.state_dict(),
        **model.segmenter.state_dict(),
        **model.cluster_probe.state_dict(),
        **model.linear_probe.state_dict(),
    }
    used = {n: t for n, t in tensors.items() if not n.startswith(("decoder", "train_cluster"))}
    assert len(ours) == len(used)
    assert sorted(float(t.double().sum()) for t in ours.values()) == sorted(
        float(t.double().sum()) for t in used.values()
    )
    assert ours["linear.weight"].equal(tensors["net.cluster1.0.weight"])
    assert not model.segmenter.training and not model.backbone.training
    assert not any(p.requires_grad for p in model.backbone.parameters())


def test_modalities_may_be_renamed(parity_dir: Path) -> None:
    path = parity_dir / CHECKPOINT
    renamed = import_release(path, modalities=("rgb", "thermal")).segmenter
    plain = import_release(path).segmenter
    assert renamed.config.modalities == ("rgb", "thermal")
    a, b = torch.randn(2, 1, 24, 3, 3)
    code = renamed({"rgb": a, "thermal": b}).code
    assert code.equal(plain({"rgb": a, "depth": b}).code)
    with pytest.raises(ModelError, match="another number of modalities"):
        import_release(path, modalities=("rgb", "thermal", "nir"))


def test_a_fusion_without_tensors_must_be_told(parity_dir: Path) -> None:
    tensors = {n: t for n, t in tiny(parity_dir).items() if "fusion_conv" not in n}
    with pytest.raises(ModelError, match="which fusion"):
        model_of(tensors)
    config = model_of(tensors, fusion="max", normalization="minmax", residual=True).segmenter
    assert config.config.fusion == "max"
    assert (config.config.normalization, config.config.residual) == ("minmax", True)


def test_three_layers_of_features_are_seen(parity_dir: Path) -> None:
    def widened(name: str, tensor: Tensor) -> Tensor:
        if not name.startswith("net.") or name.startswith("net.model."):
            return tensor
        shape = [{24: 72, 12: 36, 36: 108, 48: 144}.get(n, n) for n in tensor.shape]
        return torch.zeros(shape)

    model = model_of({n: widened(n, t) for n, t in tiny(parity_dir).items()})
    assert model.segmenter.config.feature_dim == model.backbone.embed_dim == 72


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("net.cluster1.0.weight", None, "net.cluster1.0.weight"),
        ("net.cluster2.2.bias", None, "nonlinear.2.bias"),
        ("net.fusion_conv.0.bias", torch.zeros(3), "Segmenter"),
        ("net.model.blocks.1.ls2.gamma", None, "blocks.1.ls2.gamma"),
        ("net.model.norm.weight", torch.zeros(5), "norm.weight"),
        ("net.model.cls_token", None, "cls_token"),
        ("net.model.storage_tokens", None, "storage_tokens"),
        ("cluster_probe.clusters", None, "cluster_probe.clusters"),
        ("linear_probe.bias", torch.zeros(2), "LinearProbe"),
        ("net.something_else", torch.zeros(2), "something_else"),
        ("surprise.weight", torch.zeros(2), "surprise.weight"),
    ],
)
def test_what_does_not_fit_is_named(
    parity_dir: Path, name: str, change: Tensor | None, said: str
) -> None:
    tensors = tiny(parity_dir)
    if change is None:
        del tensors[name]
    else:
        tensors[name] = change
    with pytest.raises(ModelError, match=said.replace(".", r"\.")):
        model_of(tensors)


class Harmful:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def test_code_in_a_checkpoint_is_never_run(parity_dir: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    content = {"state_dict": tiny(parity_dir), "hyper_parameters": Harmful(made)}
    torch.save(content, tmp_path / "bad.ckpt")
    with pytest.raises(ModelError, match=r"posix\.mkdir"):
        import_release(tmp_path / "bad.ckpt")
    assert not made.exists()
    torch.load(tmp_path / "bad.ckpt", weights_only=False)  # the file is as harmful as is claimed
    assert made.exists()


def test_reading_leaves_no_trace_in_torch(parity_dir: Path) -> None:
    import_release(parity_dir / CHECKPOINT)  # imports parts of torch that add their own
    before = set(torch.serialization.get_safe_globals())
    import_release(parity_dir / CHECKPOINT)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(parity_dir / CHECKPOINT, weights_only=True)


@pytest.mark.parametrize(
    "kind", ["absent", "text", "opcodes", "cut", "no state_dict", "no tensors", "zip", "nan"]
)
def test_files_that_cannot_be_read(parity_dir: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.ckpt"
    if kind == "text":
        path.write_text("nothing like it")
    elif kind == "opcodes":
        path.write_text("root:x:0:0:root\n")  # of a pickle: it pops an empty stack
    elif kind == "cut":
        content = (parity_dir / CHECKPOINT).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "no state_dict":
        torch.save({"weights": torch.zeros(2)}, path)
    elif kind == "no tensors":
        torch.save({"state_dict": {"a": 3}}, path)
    elif kind == "nan":
        torch.save({"state_dict": {"a": torch.tensor([1.0, torch.nan])}}, path)
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "b")
    with pytest.raises(ModelError, match=r"cannot read a checkpoint.*a\.ckpt"):
        import_release(path)
