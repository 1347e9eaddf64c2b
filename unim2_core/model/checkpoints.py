"""DINOv3 weights from a file: read safely, recognised by their names, loaded strictly."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.model.backbone import BACKBONES, BackboneConfig, DinoV3
from unim2_core.model.key_layouts import KEY_LAYOUTS, KeyLayout, layout_of
from unim2_core.model.weights import resolve_weights

WRAPPERS = ("teacher", "model")
"""Keys under which a training checkpoint holds the network."""
PREFIXES = ("module.", "backbone.")
HEADS = re.compile(r"(dino|ibot)_head\.")
"""Beside ``backbone.`` in a training checkpoint; no part of the network."""
SHOWN = 5
"""How many tensors of each kind a message names."""


def build_backbone(name_or_path: str, *, download: bool = False, n_layers: int = 1) -> DinoV3:
    """Make a frozen backbone with its weights.

    Args:
        name_or_path: a key of ``BACKBONES``, or a file of weights.
        download: fetch weights that are not there from the hub.
        n_layers: how many of the last blocks' outputs its ``forward`` concatenates.

    Raises:
        ModelError: the weights are not there, or are not those of that backbone.
    """
    path = resolve_weights(name_or_path, download=download)
    return load_backbone(path, BACKBONES.get(name_or_path), n_layers=n_layers)


def load_backbone(
    path: Path, config: BackboneConfig | None = None, *, n_layers: int = 1
) -> DinoV3:
    """Load a backbone from a ``.pth`` or ``.safetensors`` file of any of the key layouts.

    Args:
        path: the file.
        config: what the file must hold; None takes whichever of ``BACKBONES`` is found.
        n_layers: how many of the last blocks' outputs its ``forward`` concatenates.

    Raises:
        ModelError: the file cannot be read, holds another network, or a tensor is missing,
            unexpected, of another shape or not finite; the message names it.
    """
    tensors = _read(path)
    layout = layout_of(frozenset(tensors))
    if layout is None:
        raise ModelError(
            f"{path} holds no DINOv3 vision transformer",
            expected=" or ".join(f"{each.marker} ({each.title})" for each in KEY_LAYOUTS[:3]),
            found=_listed(tensors),
            remedy=f"give the weights of one of: {', '.join(BACKBONES)}",
        )
    found = _recognised(tensors, layout)
    if config is None:
        config = found
    if config is None or found not in (None, config):
        raise ModelError(
            f"{path} holds another backbone than was asked for",
            expected=config.name if config else f"one of {', '.join(BACKBONES)}",
            found=found.name if found else f"tokens of width {_width(tensors, layout)}",
            remedy="ask for the one that the file holds, or give another file",
        )
    state = _translated(path, tensors, layout, config)
    with torch.device("meta"):  # nothing is drawn at random only to be overwritten
        backbone = DinoV3(config, n_layers)
    backbone.load_state_dict(state, assign=True)
    return backbone


def _read(path: Path) -> dict[str, Tensor]:
    """All tensors of a file, without what a training checkpoint wraps around them."""
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unreadable(path, "a damaged pickle, or one of more than tensors") from error
    except (OSError, RuntimeError, EOFError, SafetensorError) as error:
        raise _unreadable(path, next(iter(str(error).splitlines()), "nothing")) from error
    except Exception as error:  # what a text means to an unpickler may be any mistake
        raise _unreadable(path, "no zip and no pickle") from error
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping):
        raise _unreadable(path, f"a {type(content).__name__}")
    others = [name for name, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise _unreadable(path, f"something else under {_listed(others)}")
    tensors = {str(name): value for name, value in content.items()}
    for prefix in PREFIXES:
        if any(name.startswith(prefix) for name in tensors):
            tensors = {
                name.removeprefix(prefix): value
                for name, value in tensors.items()
                if not HEADS.match(name)
            }
    return tensors


def _unreadable(path: Path, found: str) -> ModelError:
    return ModelError(
        f"cannot read weights from {path}",
        expected="a .safetensors file, or a .pth file of nothing but tensors",
        found=found,
        remedy="download it again; a pickle that needs code to be read is never opened",
    )


def _listed(names: Iterable[object]) -> str:
    shown = [str(name) for name in names]
    more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
    return (", ".join(shown[:SHOWN]) or "nothing") + more


def _width(tensors: Mapping[str, Tensor], layout: KeyLayout) -> int:
    return int(tensors[layout.marker].shape[-1])


def _recognised(tensors: Mapping[str, Tensor], layout: KeyLayout) -> BackboneConfig | None:
    """The known backbone of this width and kind of feed-forward network."""
    looks = (_width(tensors, layout), layout.gated(frozenset(tensors)))
    known = {(config.embed_dim, config.gated): config for config in BACKBONES.values()}
    return known.get(looks)


def _kind(name: str) -> str:
    """The same tensor of the first block: all blocks are alike."""
    return re.sub(r"^blocks\.\d+\.", "blocks.0.", name)


def _translated(
    path: Path, tensors: Mapping[str, Tensor], layout: KeyLayout, config: BackboneConfig
) -> dict[str, Tensor]:
    """All tensors of ``DinoV3`` under its own names, float32, each checked."""
    parts = layout.parts(config.depth, config.gated)
    by_definition = DinoV3(replace(config, depth=1)).state_dict()
    given = {_kind(name) for name, sources in parts.items() if set(sources) & set(tensors)}
    state: dict[str, Tensor] = {}
    missing: list[str] = []
    wrong: list[str] = []
    for name, sources in parts.items():
        default = by_definition[_kind(name)]
        if re.fullmatch(layout.optional, name) and _kind(name) not in given:
            state[name] = default.clone()
            continue
        shape = (default.shape[0] // len(sources), *default.shape[1:])
        pieces = []
        for source in sources:
            if source is None:
                pieces.append(torch.zeros(shape))
            elif source not in tensors:
                missing.append(source)
            elif tensors[source].shape != shape:
                wrong.append(f"{source} of shape {tuple(tensors[source].shape)}, not {shape}")
            elif not tensors[source].isfinite().all():
                wrong.append(f"{source} with values that are not finite")
            else:
                pieces.append(tensors[source].float())
        if len(pieces) == len(sources):
            state[name] = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
    known = {source for sources in parts.values() for source in sources}
    unexpected = [
        name for name in tensors if name not in known and not re.fullmatch(layout.ignored, name)
    ]
    problems = {"missing": missing, "unexpected": unexpected, "wrong": wrong}
    if any(problems.values()):
        raise ModelError(
            f"{path} does not fit {config.name}",
            expected=f"exactly the tensors of {config.name} as {layout.title} names them",
            found="; ".join(
                f"{kind}: {_listed(names)}" for kind, names in problems.items() if names
            ),
            remedy="download the file again, or give the weights of this very backbone",
        )
    return state
