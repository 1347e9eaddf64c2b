"""Three key layouts, each by round trip, and every way in which a file can be wrong."""

from __future__ import annotations

import pickle
import re
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from safetensors.torch import load_file, save_file
from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.model.backbone import BACKBONES, BackboneConfig, DinoV3
from unim2_core.model.checkpoints import build_backbone, load_backbone
from unim2_core.model.weights import resolve_weights

TINY = BackboneConfig("tiny", embed_dim=32, depth=3, num_heads=2, ffn_dim=64)
GATED = replace(TINY, name="tiny_gated", gated=True)

State = dict[str, Tensor]


def random_state(config: BackboneConfig) -> State:
    """Weights of the official layout, no two tensors alike."""
    generator = torch.Generator().manual_seed(0)
    state = DinoV3(config).state_dict()
    for name, tensor in state.items():
        if not name.endswith(("bias_mask", "periods")):
            state[name] = torch.randn(tensor.shape, generator=generator) * 0.1
    return state


def to_timm(state: State) -> State:
    """Inverse of what the loader does, written apart from it."""
    out = {}
    for name, tensor in state.items():
        if re.search(r"bias_mask|periods|mask_token", name):
            continue
        if name.endswith("qkv.bias"):
            q, _, v = tensor.chunk(3)
            out[name.replace("qkv.bias", "q_bias")] = q.clone()
            out[name.replace("qkv.bias", "v_bias")] = v.clone()
            continue
        name = re.sub(r"ls([12])\.gamma", r"gamma_\1", name)
        for ours, theirs in {
            "storage_tokens": "reg_token",
            "mlp.w1": "mlp.fc1_g",
            "mlp.w2": "mlp.fc1_x",
            "mlp.w3": "mlp.fc2",
        }.items():
            name = name.replace(ours, theirs)
        out[name] = tensor
    return out


def to_transformers(state: State, blocks: str = "layer") -> State:
    """Inverse of what the loader does, written apart from it."""
    gated = any("mlp.w1" in name for name in state)
    out = {"embeddings.mask_token": state["mask_token"][None]}
    for name, tensor in state.items():
        if re.search(r"bias_mask|periods|mask_token", name):
            continue
        name = re.sub(r"^(cls_token)", r"embeddings.\1", name)
        name = name.replace("storage_tokens", "embeddings.register_tokens")
        name = name.replace("patch_embed.proj", "embeddings.patch_embeddings")
        name = name.replace("blocks.", f"{blocks}.").replace("attn.proj", "attention.o_proj")
        name = re.sub(r"ls([12])\.gamma", r"layer_scale\1.lambda1", name)
        name = name.replace("mlp.w1", "mlp.gate_proj").replace("mlp.w2", "mlp.up_proj")
        name = name.replace("mlp.w3", "mlp.down_proj")
        name = name if gated else name.replace("fc1", "up_proj").replace("fc2", "down_proj")
        if "attn.qkv" in name:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                if not (part == "k" and name.endswith("bias")):
                    out[name.replace("attn.qkv", f"attention.{part}_proj")] = piece.clone()
            continue
        out[name] = tensor
    return out


def without_k_bias(state: State) -> State:
    return {
        name: tensor * state[f"{name}_mask"] if name.endswith("qkv.bias") else tensor
        for name, tensor in state.items()
    }


def assert_same(backbone: DinoV3, state: State) -> None:
    loaded = backbone.state_dict()
    assert loaded.keys() == state.keys()
    different = [name for name in state if not torch.equal(loaded[name], state[name])]
    assert not different


@pytest.mark.parametrize("config", [TINY, GATED], ids=lambda config: config.name)
@pytest.mark.parametrize("wrapper", ["", "teacher", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_official_file_round_trips(
    tmp_path: Path, config: BackboneConfig, wrapper: str, prefix: str
) -> None:
    state = random_state(config)
    content = {prefix + name: tensor for name, tensor in state.items()}
    if prefix.endswith("backbone."):
        heads = prefix.removesuffix("backbone.")
        content[f"{heads}dino_head.mlp.0.weight"] = torch.zeros(3)
        content[f"{heads}ibot_head.last_layer.weight"] = torch.zeros(3)
    torch.save({wrapper: content} if wrapper else content, tmp_path / "a.pth")
    assert_same(load_backbone(tmp_path / "a.pth", config), state)


@pytest.mark.parametrize("config", [TINY, GATED], ids=lambda config: config.name)
def test_timm_file_round_trips(tmp_path: Path, config: BackboneConfig) -> None:
    state = without_k_bias(random_state(config))
    state["mask_token"] = torch.zeros(1, config.embed_dim)
    save_file(to_timm(state), tmp_path / "a.safetensors")
    assert_same(load_backbone(tmp_path / "a.safetensors", config), state)


def test_timm_file_without_biases_has_zero_biases(tmp_path: Path) -> None:
    state = random_state(TINY)
    state["mask_token"] = torch.zeros(1, TINY.embed_dim)
    for name in state:
        if name.endswith("qkv.bias"):
            state[name] = torch.zeros_like(state[name])
    content = {k: v for k, v in to_timm(state).items() if not k.endswith(("q_bias", "v_bias"))}
    save_file(content, tmp_path / "a.safetensors")
    assert_same(load_backbone(tmp_path / "a.safetensors", TINY), state)


@pytest.mark.parametrize("config", [TINY, GATED], ids=lambda config: config.name)
@pytest.mark.parametrize("blocks", ["layer", "model.layer"], ids=["version 4", "version 5"])
def test_transformers_file_round_trips(
    tmp_path: Path, config: BackboneConfig, blocks: str
) -> None:
    state = without_k_bias(random_state(config))
    save_file(to_transformers(state, blocks), tmp_path / "a.safetensors")
    state["mask_token"] = torch.zeros(1, config.embed_dim)
    assert_same(load_backbone(tmp_path / "a.safetensors", config), state)


def test_official_file_may_leave_out_what_it_defines_itself(tmp_path: Path) -> None:
    state = random_state(TINY)
    content = {k: v for k, v in state.items() if not k.endswith(("bias_mask", "periods"))}
    del content["mask_token"]
    torch.save(content, tmp_path / "a.pth")
    state["mask_token"] = torch.zeros(1, TINY.embed_dim)
    assert_same(load_backbone(tmp_path / "a.pth", TINY), state)


def test_periods_and_masks_of_a_file_count_and_become_float32(tmp_path: Path) -> None:
    state = random_state(TINY)
    state["rope_embed.periods"] = state["rope_embed.periods"].bfloat16()
    state["blocks.1.attn.qkv.bias_mask"] = torch.ones(3 * TINY.embed_dim)
    torch.save(state, tmp_path / "a.pth")
    state["rope_embed.periods"] = state["rope_embed.periods"].float()
    backbone = load_backbone(tmp_path / "a.pth", TINY)
    assert_same(backbone, state)
    assert {tensor.dtype for tensor in backbone.state_dict().values()} == {torch.float32}
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


def broken(state: State, change: str) -> State:
    """A file with one fault; what the message must say is in the test's table."""
    if change == "missing":
        del state["blocks.1.norm2.bias"]
    elif change == "last block missing":
        return {name: t for name, t in state.items() if not name.startswith("blocks.2.")}
    elif change == "one mask missing":
        del state["blocks.2.attn.qkv.bias_mask"]
    elif change == "unexpected":
        state["head.weight"] = torch.zeros(2)
    elif change == "satellite":
        state["local_cls_norm.weight"] = torch.ones(32)
    elif change == "one block too many":
        state["blocks.3.norm1.weight"] = torch.zeros(32)
    elif change == "wrong shape":
        state["blocks.0.mlp.fc1.weight"] = torch.zeros(60, 32)
    elif change == "not finite":
        state["norm.weight"][3] = torch.nan
    return state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("missing", "missing: blocks.1.norm2.bias"),
        ("last block missing", "missing: blocks.2.norm1.weight"),
        ("one mask missing", "missing: blocks.2.attn.qkv.bias_mask"),
        ("unexpected", "unexpected: head.weight"),
        ("satellite", "unexpected: local_cls_norm.weight"),
        ("one block too many", "unexpected: blocks.3.norm1.weight"),
        ("wrong shape", "wrong: blocks.0.mlp.fc1.weight of shape (60, 32), not (64, 32)"),
        ("not finite", "wrong: norm.weight with values that are not finite"),
    ],
)
def test_every_wrong_tensor_is_named(tmp_path: Path, change: str, words: str) -> None:
    torch.save(broken(random_state(TINY), change), tmp_path / "a.pth")
    with pytest.raises(ModelError, match=re.escape(words)):
        load_backbone(tmp_path / "a.pth", TINY)


def test_half_of_timms_biases_is_an_error_in_timms_names(tmp_path: Path) -> None:
    content = to_timm(random_state(TINY))
    del content["blocks.1.attn.v_bias"]
    content["rope.periods"] = torch.zeros(2)
    save_file(content, tmp_path / "a.safetensors")
    with pytest.raises(ModelError) as caught:
        load_backbone(tmp_path / "a.safetensors", TINY)
    assert "missing: blocks.1.attn.v_bias; unexpected: rope.periods" in str(caught.value)


def test_wrong_key_of_transformers_is_named_as_there(tmp_path: Path) -> None:
    content = to_transformers(random_state(GATED))
    content["layer.0.attention.k_proj.weight"] = torch.zeros(31, 32)
    del content["layer.2.mlp.gate_proj.bias"]
    save_file(content, tmp_path / "a.safetensors")
    with pytest.raises(ModelError) as caught:
        load_backbone(tmp_path / "a.safetensors", GATED)
    assert "missing: layer.2.mlp.gate_proj.bias" in str(caught.value)
    assert "layer.0.attention.k_proj.weight of shape (31, 32), not (32, 32)" in str(caught.value)


class Code:
    def __reduce__(self) -> tuple[object, ...]:
        return (exec, ("raise SystemExit('the pickle ran code')",))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["noise", "opcodes", "empty", "cut", "code", "list", "number"])
def test_unreadable_files_are_refused(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if kind == "noise":
        path.write_bytes(bytes(range(256)) * 40)
    elif kind == "opcodes":
        path.write_text("root:x:0:0:root\n")  # of a pickle: it pops an empty stack
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        if suffix == ".pth":
            torch.save(random_state(TINY), path)
        else:
            save_file(to_timm(random_state(TINY)), path)
        path.write_bytes(path.read_bytes()[:-5000])
    elif kind == "code":
        path.write_bytes(pickle.dumps(Code()))
    elif kind == "list":
        torch.save([torch.zeros(3)], path)
    elif kind == "number":
        torch.save({"step": 3, "cls_token": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match="cannot read weights from"):
        load_backbone(path, TINY)


def test_other_networks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match=r"storage_tokens \(official\) or reg_token \(timm\)"):
        load_backbone(path)
    torch.save(random_state(TINY), path)
    with pytest.raises(ModelError, match="tokens of width 32"):
        load_backbone(path)


def test_name_finds_weights_and_checks_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIM2_WEIGHTS", str(tmp_path))
    state = random_state(BACKBONES["dinov3_vits16"])
    path = tmp_path / "dinov3_vits16_pretrain_lvd1689m-08c60483.pth"
    torch.save(state, path)
    assert resolve_weights("dinov3_vits16") == path
    backbone = build_backbone("dinov3_vits16", n_layers=3)
    assert_same(backbone, state)
    assert (backbone.embed_dim, backbone.config.name) == (3 * 384, "dinov3_vits16")
    assert load_backbone(path).config.name == "dinov3_vits16"  # by its tensors alone
    path.rename(tmp_path / "dinov3_vitb16.pth")
    with pytest.raises(ModelError) as caught:
        build_backbone("dinov3_vitb16")
    assert (caught.value.expected, caught.value.found) == ("dinov3_vitb16", "dinov3_vits16")


def test_missing_weights_say_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIM2_WEIGHTS", str(tmp_path))
    (tmp_path / "dinov3_vits16_pretrain_sat493m-eadcf0ff.pth").write_bytes(b"another network")
    with pytest.raises(ModelError) as caught:
        resolve_weights("dinov3_vits16")
    assert "ai.meta.com" in caught.value.remedy
    assert "hf download facebook/dinov3-vits16-pretrain-lvd1689m" in caught.value.remedy
    assert "hf download timm/vit_small_patch16_dinov3.lvd1689m" in caught.value.remedy
    for name in ("dinov3_vits17", str(tmp_path / "nothing.pth"), str(tmp_path)):
        with pytest.raises(ModelError, match="there is no backbone"):
            resolve_weights(name, download=True)


def test_download_tries_the_mirror_and_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNIM2_WEIGHTS", str(tmp_path))
    asked = []

    def hf_hub_download(repository: str, name: str, *, local_dir: Path) -> str:
        asked.append(repository)
        if repository.startswith("facebook/"):
            raise OSError("gated repository")
        local_dir.mkdir(parents=True)
        save_file({"a": torch.zeros(1)}, local_dir / name)
        return str(local_dir / name)

    hub = types.SimpleNamespace(hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    path = resolve_weights("dinov3_vitl16", download=True)
    assert asked == [
        "facebook/dinov3-vitl16-pretrain-lvd1689m",
        "timm/vit_large_patch16_dinov3.lvd1689m",
    ]
    assert load_file(path).keys() == {"a"}
    assert resolve_weights("dinov3_vitl16") == path


def test_failed_download_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIM2_WEIGHTS", str(tmp_path))

    def hf_hub_download(repository: str, name: str, *, local_dir: Path) -> str:
        raise ConnectionError("no route to the hub")

    hub = types.SimpleNamespace(hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(ModelError, match="ConnectionError no route to the hub"):
        resolve_weights("dinov3_vits16", download=True)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelError, match="pip install huggingface_hub"):
        resolve_weights("dinov3_vits16", download=True)
