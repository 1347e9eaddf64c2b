"""Pictures decoded once, kept as pixels on the disk: pre-training looks at each many times."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.pictures import Picture, PictureSource
from unim2_core.errors import DataError
from unim2_core.learning.feature_files import cannot_store
from unim2_core.sensing.warping import GridMap

FORMAT = 1
Progress = Callable[[int, int], object]


@dataclass(frozen=True, eq=False)
class PixelStore:
    """Images of N pictures and where places are in them; arrays are memory-mapped.

    Attributes:
        modalities: M names; the first is the reference.
        images: (N, M, H, W, 3) uint8, each in its own camera.
        there: (N, M) bool, False where a picture lacks a modality.
        places: (N, M, h, w, 2) float32: column and row, as shares of width and height, of each
            cell of the reference's grid in the image of a modality; NaN where it is not seen.
    """

    modalities: tuple[str, ...]
    images: NDArray[np.uint8]
    there: NDArray[np.bool_]
    places: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.there)


def pixel_bytes(source: PictureSource, patch_size: int) -> int:
    """Bytes that the pictures of a source take on the disk, at most."""
    height, width = source.size
    cells = (height // patch_size) * (width // patch_size)
    return source.limit * len(source.modalities) * (3 * height * width + 8 * cells)


def open_pixels(
    source: PictureSource, patch_size: int, cache: Path, progress: Progress | None = None
) -> PixelStore:
    """Pixels of all pictures of a source; decoded where they are not in the cache yet.

    Args:
        source: the pictures.
        patch_size: pixels of a cell's side.
        cache: folder of all stores.
        progress: called with how many pictures are done, and of how many at most.

    Raises:
        DataError: there are no pictures.
        Unim2Error: there is no room.
    """
    rules = f"{FORMAT} {patch_size} {source.modalities} {source.size} {source.fingerprint()}"
    folder = cache / f"pixels-{hashlib.sha256(rules.encode()).hexdigest()[:32]}"
    if not folder.exists():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".pixels-", dir=cache) as scratch:
                made = Path(scratch) / "made"
                made.mkdir()
                _write(source, patch_size, made, progress)
                try:
                    made.rename(folder)
                except OSError:
                    if not folder.exists():  # else another process was faster
                        raise
        except OSError as error:
            size = pixel_bytes(source, patch_size)
            raise cannot_store(cache, size, error, "the pictures") from error
    count = json.loads((folder / "count.json").read_text())
    return PixelStore(
        source.modalities,
        np.load(folder / "images.npy", mmap_mode="r")[:count],
        np.load(folder / "there.npy")[:count],
        np.load(folder / "places.npy", mmap_mode="r")[:count],
    )


def _write(
    source: PictureSource, patch_size: int, folder: Path, progress: Progress | None
) -> None:
    (height, width), count = source.size, source.limit
    names = source.modalities
    grid = (height // patch_size, width // patch_size)
    several = (count, len(names))
    images = _reserved(folder / "images.npy", np.uint8, (*several, height, width, 3))
    there = _reserved(folder / "there.npy", np.bool_, several)
    places = _reserved(folder / "places.npy", np.float32, (*several, *grid, 2))
    done = 0
    for picture in source:
        for index, name in enumerate(names):
            places[done, index] = np.nan
            if name in picture.images:
                images[done, index] = picture.images[name]
                there[done, index] = True
                places[done, index] = _places(picture, name, grid)
        done += 1
        if progress:
            progress(done, count)
    if not done:
        raise DataError(
            "there is nothing to look at",
            expected="at least one picture",
            found="none",
            remedy="look at the streams of a bag with: unim2 info BAG",
        )
    for array in (images, there, places):
        array.flush()
    (folder / "count.json").write_text(json.dumps(done))


def _reserved(path: Path, dtype: type, shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    """A new array in a file, mapped; its room is taken now: later a full disk would be a signal.

    Raises:
        OSError: there is not enough.
    """
    array: np.memmap[Any, Any] = np.lib.format.open_memmap(path, "w+", dtype, shape)
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def _places(picture: Picture, name: str, grid: tuple[int, int]) -> NDArray[np.float32]:
    """(h, w, 2): where the cells of the reference are, see ``PixelStore``."""
    grid_map = picture.maps.get(name) or GridMap.stretched(grid, grid)
    share = (grid_map.coordinates + 0.5) / np.array(grid_map.source[::-1], np.float32)
    seen = grid_map.valid.copy()
    valid = picture.valid.get(name)
    if valid is not None:
        rows, columns = (
            np.clip((share[..., axis] * valid.shape[1 - axis]).astype(np.intp), 0, None)
            for axis in (1, 0)
        )
        seen &= valid[
            np.minimum(rows, valid.shape[0] - 1), np.minimum(columns, valid.shape[1] - 1)
        ]
    found: NDArray[np.float32] = np.where(seen[..., None], share, np.float32(np.nan))
    return found
