"""How many operations a model takes, read off the shapes of its weights; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from safetensors import safe_open

from unim2_core.model.bundle import NETWORK, Bundle

NO_MATRICES = ("mean", "scale", "stand_in")
"""Of the head's weights: vectors, one for each modality."""


@dataclass(frozen=True)
class Work:
    """Multiplications and additions of all matrix products of a frame, 1e9.

    Attributes:
        backbone: of all modalities; None where the bundle does not say.
        head: of one answer.
    """

    backbone: float | None
    head: float


def work_of(bundle: Bundle) -> Work:
    """Count what one frame of a bundle takes, all modalities there.

    What is no matrix product is left out: norms, activations, the windows of simple features.
    """
    manifest = bundle.manifest
    patch = manifest.backbone.patch_size
    places = (manifest.infer_size[0] // patch) * (manifest.infer_size[1] // patch)
    head = sum(
        2 * places * array.size
        for name, array in bundle.weights().items()
        if array.ndim > 1 and name not in NO_MATRICES
    )
    each = _backbone(bundle, places)
    return Work(None if each is None else 1e-9 * each * len(manifest.modalities), 1e-9 * head)


def _backbone(bundle: Bundle, places: int) -> float | None:
    """Of one modality."""
    if not (bundle.path / NETWORK).is_file():
        return None
    found, extra, blocks, width = 0.0, 0, 0, 0
    with safe_open(bundle.path / NETWORK, framework="numpy") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    for name, shape in shapes.items():
        if name.endswith(("cls_token", "storage_tokens")):
            extra += shape[1]
    for name, shape in shapes.items():
        if ".mlp." in f".{name}" or ".attn." in f".{name}":
            if len(shape) == 2:
                found += 2 * (places + extra) * shape[0] * shape[1]
            if name.endswith("attn.proj.weight"):
                blocks, width = blocks + 1, shape[0]
        elif name.endswith("patch_embed.proj.weight"):
            found += 2 * places * shape[0] * shape[1] * shape[2] * shape[3]
    return found + 4 * blocks * (places + extra) ** 2 * width
