"""Made-up pictures with labels, holes, maps and missing images, and a backbone to go with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from unim2_core.data.labels import Classes
from unim2_core.data.pictures import Picture
from unim2_core.sensing.warping import GridMap

PATCH, DIM = 8, 6
CLASSES = Classes(("a", "b"), ((0, 0, 0), (9, 9, 9)), (0, 1))


class Means:
    """Stands in for a frozen backbone: means of patches times fixed weights; counts its images."""

    patch_size, embed_dim = PATCH, DIM

    def __init__(self, digest: str = "means", factor: float = 1.0) -> None:
        self.digest, self.factor, self.images = digest, factor, 0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.images += len(images)
        b, h, w, _ = images.shape
        cells = images.reshape(b, h // PATCH, PATCH, w // PATCH, PATCH, 3).mean(axis=(2, 4))
        weights = np.arange(1, 3 * DIM + 1, dtype=np.float32).reshape(3, DIM)
        return (cells @ weights * self.factor).astype(np.float32)


def picture(number: int, size: tuple[int, int] = (16, 24)) -> Picture:
    """Every third without thermal, every second with a map, holes and no labels."""
    rng = np.random.default_rng(number)
    images = {name: rng.integers(0, 256, (*size, 3), np.uint8) for name in ("rgb", "thermal")}
    if number % 3 == 2:
        del images["thermal"]
    labels = None if number % 2 else rng.integers(0, 2, size).astype(np.uint8)
    valid, maps = {}, {}
    if number % 2 and "thermal" in images:
        grid = (size[0] // PATCH, size[1] // PATCH)
        columns, rows = np.meshgrid(np.arange(grid[1]) + 1.0, np.arange(grid[0]))
        shifted = np.stack([columns, rows], axis=-1).astype(np.float32)
        maps["thermal"] = GridMap.within(shifted, np.ones(grid, np.bool_), grid)
        valid["thermal"] = np.ones(size, np.bool_)
        valid["thermal"][:PATCH, :PATCH] = False
    return Picture(
        f"picture {number}", images, valid, maps, labels, number // 5, number // 4, number * 100
    )


@dataclass
class Pictures:
    """A source of made-up pictures."""

    count: int = 10
    limit: int = 10
    seed: str = "one"
    modalities: tuple[str, ...] = ("rgb", "thermal")
    encodings: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    size: tuple[int, int] = (16, 24)
    label_size: tuple[int, int] | None = (16, 24)
    classes: Classes | None = CLASSES
    decoded: int = 0

    def fingerprint(self) -> str:
        return self.seed

    def __iter__(self) -> Iterator[Picture]:
        for number in range(self.count):
            self.decoded += 1
            yield self.picture(number)

    def picture(self, number: int) -> Picture:
        return picture(number, self.size)
