"""How the three publishers of DINOv3 weights name the tensors of one and the same network.

A layout lists, for each tensor of ``DinoV3`` (official names), the tensors of the file that make
it: one, or several that are stacked along the first axis, with None for a part that is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

Parts = tuple[str | None, ...]
"""Names in the file of the tensors that, stacked, make one tensor of ours; None is zeros."""

_STEM = (
    "cls_token",
    "storage_tokens",
    "mask_token",
    "patch_embed.proj.weight",
    "patch_embed.proj.bias",
    "rope_embed.periods",
    "norm.weight",
    "norm.bias",
)


def _linear(*layers: str) -> tuple[str, ...]:
    return tuple(f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias"))


_BLOCK = (
    *_linear("norm1", "attn.qkv", "attn.proj", "norm2"),
    "attn.qkv.bias_mask",
    "ls1.gamma",
    "ls2.gamma",
)
_MLP = _linear("mlp.fc1", "mlp.fc2")
_SWIGLU = _linear("mlp.w1", "mlp.w2", "mlp.w3")


@dataclass(frozen=True)
class KeyLayout:
    """Names of one publisher.

    Attributes:
        title: what to call it in messages.
        marker: a tensor that every file of this layout has and no other.
        block: what the names of block ``{}`` begin with.
        gate: a tensor of a block that is there only with SwiGLU.
        renamed: our name -> the file's, where they differ; of a block's tensors, without prefix.
        optional: pattern of our tensors that a file may leave out, in all blocks or in none; they
            keep the value of their definition.
        ignored: pattern of the file's tensors that say nothing about inference.
    """

    title: str
    marker: str
    block: str
    gate: str
    renamed: Mapping[str, Parts]
    optional: str
    ignored: str

    def gated(self, names: frozenset[str]) -> bool:
        """Whether the feed-forward networks of a file are SwiGLU."""
        return any(name.endswith(self.gate) for name in names)

    def parts(self, depth: int, gated: bool) -> dict[str, Parts]:
        """For each tensor of ours, the names in the file that it is made of."""
        table = {name: self._named(name) for name in _STEM}
        for i in range(depth):
            prefix = self.block.format(i)
            for name in _BLOCK + (_SWIGLU if gated else _MLP):
                parts = self._named(name)
                table[f"blocks.{i}.{name}"] = tuple(part and prefix + part for part in parts)
        return table

    def _named(self, name: str) -> Parts:
        return self.renamed.get(name, (name,))


# Only official files hold masks of the bias and periods, the latter rounded to bfloat16 (as timm's
# model card says). What they hold counts, as in the official code; elsewhere our definition does.
# Satellite weights have one norm more and want another normalisation of the image: not taken.
OFFICIAL = KeyLayout(
    title="official",
    marker="storage_tokens",
    block="blocks.{}.",
    gate="mlp.w1.weight",
    renamed={},
    optional=r"mask_token|rope_embed\.periods|.*\.attn\.qkv\.bias_mask",
    ignored=r"(?!)",
)

# timm leaves out the biases of q and v, which are zero in the published weights, except where the
# model is called "..._qkvb".
TIMM = KeyLayout(
    title="timm",
    marker="reg_token",
    block="blocks.{}.",
    gate="mlp.fc1_g.weight",
    renamed={
        "storage_tokens": ("reg_token",),
        "attn.qkv.bias": ("attn.q_bias", None, "attn.v_bias"),
        "ls1.gamma": ("gamma_1",),
        "ls2.gamma": ("gamma_2",),
        "mlp.w1.weight": ("mlp.fc1_g.weight",),
        "mlp.w1.bias": ("mlp.fc1_g.bias",),
        "mlp.w2.weight": ("mlp.fc1_x.weight",),
        "mlp.w2.bias": ("mlp.fc1_x.bias",),
        "mlp.w3.weight": ("mlp.fc2.weight",),
        "mlp.w3.bias": ("mlp.fc2.bias",),
    },
    optional=r"mask_token|rope_embed\.periods|.*\.attn\.qkv\.bias(_mask)?",
    ignored=r"(?!)",
)

_QKV = ("attention.q_proj", "attention.k_proj", "attention.v_proj")

TRANSFORMERS = KeyLayout(
    title="transformers",
    marker="embeddings.register_tokens",
    block="layer.{}.",
    gate="mlp.gate_proj.weight",
    renamed={
        "cls_token": ("embeddings.cls_token",),
        "storage_tokens": ("embeddings.register_tokens",),
        "patch_embed.proj.weight": ("embeddings.patch_embeddings.weight",),
        "patch_embed.proj.bias": ("embeddings.patch_embeddings.bias",),
        "attn.qkv.weight": tuple(f"{part}.weight" for part in _QKV),
        "attn.qkv.bias": (f"{_QKV[0]}.bias", None, f"{_QKV[2]}.bias"),
        "attn.proj.weight": ("attention.o_proj.weight",),
        "attn.proj.bias": ("attention.o_proj.bias",),
        "ls1.gamma": ("layer_scale1.lambda1",),
        "ls2.gamma": ("layer_scale2.lambda1",),
        "mlp.fc1.weight": ("mlp.up_proj.weight",),
        "mlp.fc1.bias": ("mlp.up_proj.bias",),
        "mlp.fc2.weight": ("mlp.down_proj.weight",),
        "mlp.fc2.bias": ("mlp.down_proj.bias",),
        "mlp.w1.weight": ("mlp.gate_proj.weight",),
        "mlp.w1.bias": ("mlp.gate_proj.bias",),
        "mlp.w2.weight": ("mlp.up_proj.weight",),
        "mlp.w2.bias": ("mlp.up_proj.bias",),
        "mlp.w3.weight": ("mlp.down_proj.weight",),
        "mlp.w3.bias": ("mlp.down_proj.bias",),
    },
    optional=r"mask_token|rope_embed\.periods|.*\.attn\.qkv\.bias_mask",
    ignored=r"embeddings\.mask_token",
)

# Its fifth version writes the blocks one level deeper; the hub's files are of the fourth.
TRANSFORMERS_5 = replace(TRANSFORMERS, block="model.layer.{}.")

KEY_LAYOUTS = (OFFICIAL, TIMM, TRANSFORMERS, TRANSFORMERS_5)


def layout_of(names: frozenset[str]) -> KeyLayout | None:
    """The layout that a file's names follow, None where it is none of these."""
    marked = [layout for layout in KEY_LAYOUTS if layout.marker in names]
    for layout in marked:
        if any(name.startswith(layout.block.partition("{")[0]) for name in names):
            return layout
    return next(iter(marked), None)
