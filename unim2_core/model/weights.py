"""Where the weights of a backbone are: a file, a folder of downloads, or the hub when asked."""

from __future__ import annotations

import importlib
import os
from pathlib import Path

from unim2_core.errors import ModelError

CACHE_VARIABLE = "UNIM2_WEIGHTS"
DEFAULT_CACHE = Path("~/.cache/unim2")
META_FORM = "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads/"
HUB_FILE = "model.safetensors"

# The gated original first, then timm's mirror, which asks for no account; the licence is the same.
HUB = {
    "dinov3_vits16": (
        "facebook/dinov3-vits16-pretrain-lvd1689m",
        "timm/vit_small_patch16_dinov3.lvd1689m",
    ),
    "dinov3_vits16plus": (
        "facebook/dinov3-vits16plus-pretrain-lvd1689m",
        "timm/vit_small_plus_patch16_dinov3.lvd1689m",
    ),
    "dinov3_vitb16": (
        "facebook/dinov3-vitb16-pretrain-lvd1689m",
        "timm/vit_base_patch16_dinov3.lvd1689m",
    ),
    "dinov3_vitl16": (
        "facebook/dinov3-vitl16-pretrain-lvd1689m",
        "timm/vit_large_patch16_dinov3.lvd1689m",
    ),
}
"""Name of a backbone -> repositories on the hub that hold its weights."""


def cache_folder() -> Path:
    """The folder of downloaded weights."""
    return Path(os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE).expanduser()


def resolve_weights(name_or_path: str, *, download: bool = False) -> Path:
    """Find the file of weights.

    A name is looked up in the folder that ``UNIM2_WEIGHTS`` names, else ``~/.cache/unim2``: as
    ``NAME/model.safetensors``, ``NAME.safetensors``, ``NAME.pth`` or the official
    ``NAME_pretrain_lvd1689m*.pth``.

    Args:
        name_or_path: a file, or one of the names in ``HUB``.
        download: fetch a name that is not there from the hub, with ``huggingface_hub``.

    Raises:
        ModelError: no such file or name, or the weights are neither there nor to be had.
    """
    if name_or_path not in HUB:
        path = Path(name_or_path).expanduser()
        if path.is_file():
            return path
        raise ModelError(
            f"there is no backbone {name_or_path}",
            expected=f"a file of weights, tiny, texture, or one of {', '.join(HUB)}",
            found="neither",
            remedy="check the spelling of the name or the path",
        )
    folder = cache_folder()
    candidates = [
        folder / name_or_path / HUB_FILE,
        folder / f"{name_or_path}.safetensors",
        folder / f"{name_or_path}.pth",
        *sorted(folder.glob(f"{name_or_path}_pretrain_lvd1689m*.pth")),
    ]
    for path in candidates:
        if path.is_file():
            return path
    if download:
        return _download(name_or_path, folder)
    raise _no_weights(name_or_path, folder, "nothing of that name there")


def _download(name: str, folder: Path) -> Path:
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        found = "huggingface_hub is not installed (pip install huggingface_hub)"
        raise _no_weights(name, folder, found) from error
    refusals = []
    for repository in HUB[name]:
        try:
            return Path(hub.hf_hub_download(repository, HUB_FILE, local_dir=folder / name))
        except Exception as error:  # those of the hub and of its HTTP library have no common base
            reason = next(iter(str(error).splitlines()), "")
            refusals.append(f"{repository}: {type(error).__name__} {reason}".strip())
    raise _no_weights(name, folder, "; ".join(refusals))


def _no_weights(name: str, folder: Path, found: str) -> ModelError:
    original, mirror = HUB[name]
    return ModelError(
        f"the weights of {name} are not on this machine",
        expected=f"{folder / name / HUB_FILE} or {folder}/{name}_pretrain_lvd1689m*.pth",
        found=found,
        remedy=f"""get them in one of three ways (all under the DINOv3 licence):
      1. ask Meta at {META_FORM}
         then: mkdir -p {folder} && mv {name}_pretrain_lvd1689m*.pth {folder}/
      2. accept the licence at https://huggingface.co/{original}
         then: hf auth login && hf download {original} {HUB_FILE} --local-dir {folder / name}
      3. timm's mirror, without an account:
         hf download {mirror} {HUB_FILE} --local-dir {folder / name}
      Ways 2 and 3 are what --download tries, with huggingface_hub.""",
    )
