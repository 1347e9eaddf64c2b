"""The frozen backbone of a bundle, built again from its weights; needs torch."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from unim2_core.errors import ModelError
from unim2_core.model.frozen import FrozenBackbone, Network
from unim2_core.model.release_backbone import release_backbone
from unim2_core.model.texture import TextureFeatures
from unim2_core.model.tiny import TinyBackbone


def stored_network(path: Path, embed_dim: int) -> Network:
    """Build the network that a bundle's file of weights holds; their names and shapes tell which.

    Args:
        path: safetensors, the ``state_dict`` of one of our backbones.
        embed_dim: width of a token that the network is to give.

    Raises:
        ModelError: the file cannot be read, or a tensor is missing, unexpected or of another
            shape; the message names it.
    """
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"cannot read the backbone {path}",
            expected="a safetensors file",
            found=str(error),
            remedy="copy the bundle again, or train it again",
        ) from error
    if "cls_token" in state:
        return release_backbone(state, "", max(1, embed_dim // state["cls_token"].shape[-1]))
    network = TinyBackbone() if "transformer.cls_token" in state else TextureFeatures()
    wanted = {name: tuple(part.shape) for name, part in network.state_dict().items()}
    found = {name: tuple(part.shape) for name, part in state.items()}
    odd = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    if odd:
        raise ModelError(
            f"{path} holds another backbone than this version's",
            expected=f"{odd[0]} of shape {wanted.get(odd[0], 'none: no such tensor')}",
            found=f"{found.get(odd[0], 'no such tensor')}; {len(odd)} such tensors",
            remedy="train the model again, or install the version that wrote it",
        )
    network.load_state_dict(state)
    return network.requires_grad_(False).eval()


def network_of(path: Path, name: str, embed_dim: int) -> Network:
    """The backbone of a bundle: its weights, else those at hand under its name.

    Bundles of earlier versions hold none. Whether others are the same is for the gate to say.

    Args:
        path: the bundle's file of weights; it need not be there.
        name: of the architecture, from the manifest.
        embed_dim: width of a token, from the manifest.

    Raises:
        ModelError: there are no weights, or not those of this backbone.
    """
    return stored_network(path, embed_dim) if path.exists() else FrozenBackbone(name).network
