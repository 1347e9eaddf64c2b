"""Tiny imitations of the published data sets, in the layout of their archives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
SIZE = (48, 64)
UNSEEN = 192


def save(path: Path, image: NDArray[Any]) -> Path:
    """Write an image with channels in the order red, green, blue, alpha, or an array."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, image)
        return path
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[2]]]
    assert cv2.imwrite(str(path), np.ascontiguousarray(image))
    return path


def random_arrays(seed: int = 0, size: tuple[int, int] = SIZE) -> Arrays:
    """Inputs of one image of each data set, under the names of the reference numbers."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int, high: int = 256) -> NDArray[Any]:
        return rng.integers(0, high, (*size, *shape)).astype(
            np.uint8 if high <= 256 else np.uint16
        )

    angle = rng.uniform(0, np.pi, size).astype(np.float32)
    return {
        "nyu/rgb_upright": draw(3),
        "nyu/hha": draw(3),
        "nyu/label_raw": draw(high=41),
        "mfnet/rgba": draw(4),
        "mfnet/label_raw": draw(high=9),
        "mcubes/rgb16": draw(3, high=65536),
        "mcubes/nir16": draw(high=65536),
        "mcubes/aolp_sin": np.sin(2 * angle),
        "mcubes/aolp_cos": np.cos(2 * angle),
        "mcubes/dolp": rng.uniform(0.01, 0.9, size).astype(np.float32),
        "mcubes/label_raw": draw(high=20),
    }


def write_nyu(
    root: Path, images: dict[int, Arrays], test: tuple[int, ...] = (), suffix: str = ".png"
) -> Path:
    """Number -> inputs; those not in ``test`` are for training. Returns ``root``."""
    for number, arrays in images.items():
        save(root / f"RGB/{number:04d}{suffix}", arrays["nyu/rgb_upright"].transpose(1, 0, 2))
        save(root / f"HHA/{number:04d}.png", arrays["nyu/hha"])
        save(root / f"Labels/{number:04d}.png", arrays["nyu/label_raw"])
    _list(root / "train.txt", [number for number in images if number not in test])
    _list(root / "test.txt", test)
    return root


def write_mfnet(
    root: Path, images: dict[str, Arrays], train: tuple[str, ...], test: tuple[str, ...]
) -> Path:
    """Name -> inputs, and what the lists name. Returns ``root``."""
    for name, arrays in images.items():
        save(root / f"images/{name}.png", arrays["mfnet/rgba"])
        save(root / f"labels/{name}.png", arrays["mfnet/label_raw"])
    _list(root / "train.txt", train)
    _list(root / "test.txt", test)
    return root


def write_mcubes(root: Path, images: dict[str, Arrays], test: tuple[str, ...] = ()) -> Path:
    """Name -> inputs without the columns that not every camera sees. Returns ``root``."""
    files = {
        "polL_color": ("rgb16", ".png"),
        "NIR_warped": ("nir16", ".png"),
        "polL_aolp_sin": ("aolp_sin", ".npy"),
        "polL_aolp_cos": ("aolp_cos", ".npy"),
        "polL_dolp": ("dolp", ".npy"),
        "GT": ("label_raw", ".png"),
    }
    for name, arrays in images.items():
        for folder, (key, suffix) in files.items():
            image = arrays[f"mcubes/{key}"]
            # Extremes that would show in every stretched range if they were not cut away.
            unseen = np.full((image.shape[0], UNSEEN, *image.shape[2:]), 7, image.dtype)
            save(root / folder / f"{name}{suffix}", np.concatenate([unseen, image], axis=1))
    _list(root / "list_folder/train.txt", [name for name in images if name not in test])
    _list(root / "list_folder/test.txt", test)
    return root


def _list(path: Path, names: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
