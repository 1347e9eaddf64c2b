"""What a step of pre-training looks at: two overlapping crops of a scene, often of two sensors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from unim2_core.learning.pretraining.pictures import PixelStore
from unim2_core.sensing.modalities import MODALITIES

CROP = 112
"""Pixels of a crop's side, as the network sees it."""
POINTS = 98
"""Places that are compared between the two crops."""
FEWEST = 16
"""Places that two sensors must both see for their crops to be compared."""
OTHER_SENSOR = 0.6
"""Share of the pairs whose crops are of two modalities, where there are two."""
SCALES = (0.25, 1.0)
"""Side of a crop as a share of the shorter side of the picture."""
SMALLEST_PX = 32
DIRECTED = ("aolp",)
"""Modalities whose values turn with the image: never mirrored."""

Points = NDArray[np.float32]


class Views(NamedTuple):
    """A batch of pairs.

    Attributes:
        seen: (B, 3, 112, 112) float32 normalised: the student's crops, with noise.
        clean: the same without blur and noise.
        taught: (B, 3, 112, 112) float32 normalised: the teacher's crops.
        seen_at: (B, P, 2) float32 places in the student's crops, x and y in [-1, 1].
        taught_at: (B, P, 2) float32 the same places in the teacher's crops.
        weight: (B, P) float32, 0 where there is no such place.
        masked: (B, h, w) bool, patches that the student does not see: half of them.
        taught_modality: (B,) int64, number of the teacher's modality.
    """

    seen: Tensor
    clean: Tensor
    taught: Tensor
    seen_at: Tensor
    taught_at: Tensor
    weight: Tensor
    masked: Tensor
    taught_modality: Tensor


class ViewDraw(Dataset[Views]):
    """Draws the pairs of each step; they depend on the seed and the step alone.

    Args:
        store: the pictures.
        batch: pairs in a step.
        patch_size: pixels of a patch's side.
        seed: of all draws.
    """

    def __init__(self, store: PixelStore, batch: int, patch_size: int, seed: int) -> None:
        self._store, self._batch, self._seed = store, batch, seed
        self._grid = CROP // patch_size
        self._directed = {store.modalities.index(n) for n in DIRECTED if n in store.modalities}
        normal = MODALITIES["rgb"]
        self._mean = np.array(normal.mean, np.float32)
        self._std = np.array(normal.std, np.float32)

    def ahead(self, first: int, end: int, workers: int) -> Iterator[Views]:
        """The pairs of some steps, in order.

        Args:
            first: the first step, counted from 0.
            end: the step after the last one.
            workers: processes that draw ahead; 0: this one draws when it is asked.
        """
        loader = DataLoader(
            self,
            batch_size=None,
            sampler=range(first, end),
            num_workers=workers,
            # The pictures are memory-mapped: another way to start would copy them.
            multiprocessing_context="fork" if workers else None,
            worker_init_fn=_alone,
        )
        return iter(loader)

    def __getitem__(self, step: int) -> Views:
        """The pairs of a step, counted from 0."""
        draw = np.random.default_rng((self._seed, step))
        pairs = [self._pair(draw) for _ in range(self._batch)]
        clean, noisy, taught = [], [], []
        seen_at = np.zeros((self._batch, POINTS, 2), np.float32)
        taught_at = np.zeros_like(seen_at)
        weight = np.zeros((self._batch, POINTS), np.float32)
        for index, pair in enumerate(pairs):
            image = lit(unit(pair.seen), draw)
            clean.append(image)
            noisy.append(disturbed(image, draw))
            taught.append(unit(pair.taught))
            count = len(pair.seen_at)
            seen_at[index, :count] = pair.seen_at
            taught_at[index, :count] = pair.taught_at
            weight[index, :count] = 1
        cells = self._grid**2
        masked = np.argsort(draw.random((self._batch, cells)), axis=1) < cells // 2
        return Views(
            self._tensor(noisy),
            self._tensor(clean),
            self._tensor(taught),
            torch.from_numpy(seen_at),
            torch.from_numpy(taught_at),
            torch.from_numpy(weight),
            torch.from_numpy(masked.reshape(-1, self._grid, self._grid)),
            torch.tensor([pair.modality for pair in pairs]),
        )

    def _tensor(self, images: list[NDArray[np.float32]]) -> Tensor:
        normal = (np.stack(images) - self._mean) / self._std
        return torch.from_numpy(np.ascontiguousarray(normal.transpose(0, 3, 1, 2)))

    def _pair(self, draw: np.random.Generator) -> _Pair:
        store = self._store
        row = int(draw.integers(len(store)))
        present = np.flatnonzero(store.there[row])
        student, teacher = (int(draw.choice(present)) for _ in range(2))
        if draw.random() >= OTHER_SENSOR:
            teacher = student
        size = store.images.shape[2:4]
        first = second = self._around(size, draw)
        if teacher != student:
            first, second = self._both_see(row, student, teacher, first)
        if len(first) < FEWEST:
            teacher = student
            first = second = self._around(size, draw)
        one, other = (
            Window.around(places, size, draw.uniform(0.8, 1.15), draw)
            for places in (first, second)
        )
        a, b = one.within(first), other.within(second)
        inside = np.flatnonzero((np.abs(a) < 1).all(1) & (np.abs(b) < 1).all(1))
        chosen = draw.permutation(inside)[:POINTS]
        a, b = a[chosen], b[chosen]
        seen, taught = one.cut(store.images[row, student]), other.cut(store.images[row, teacher])
        if not self._directed & {student, teacher}:
            if draw.random() < 0.5:
                seen, a = seen[:, ::-1], a * np.array([-1, 1], np.float32)
            if draw.random() < 0.5:
                taught, b = taught[:, ::-1], b * np.array([-1, 1], np.float32)
        return _Pair(seen, taught, a, b, teacher)

    def _around(self, size: tuple[int, int], draw: np.random.Generator) -> Points:
        """(n, 2): a square of evenly spaced places in an image, pixels."""
        side = min(size) * np.exp(draw.uniform(*np.log(SCALES)))
        x, y = (draw.uniform(0, length - side) for length in (size[1], size[0]))
        steps = (np.arange(self._grid) + 0.5) / self._grid * side
        return np.stack(np.meshgrid(x + steps, y + steps), -1).reshape(-1, 2).astype(np.float32)

    def _both_see(
        self, row: int, student: int, teacher: int, square: Points
    ) -> tuple[Points, Points]:
        """The places in a square of the reference that both modalities see, in each, pixels."""
        places = self._store.places[row]  # (M, h, w, 2)
        height, width = places.shape[1:3]
        of = np.array(self._store.images.shape[3:1:-1], np.float32)  # width and height
        left, top = (square.min(0) / of * (width, height)).astype(int)
        right, bottom = np.ceil(square.max(0) / of * (width, height)).astype(int)
        cells = (slice(top, bottom), slice(left, right))
        a, b = places[student][cells].reshape(-1, 2), places[teacher][cells].reshape(-1, 2)
        both = np.isfinite(a[:, 0]) & np.isfinite(b[:, 0])
        return a[both] * of, b[both] * of


def _alone(_: int) -> None:
    """Keep a process that draws ahead to one core: threads of OpenCV do not survive a fork."""
    cv2.setNumThreads(0)


class _Pair(NamedTuple):
    seen: NDArray[np.uint8]
    taught: NDArray[np.uint8]
    seen_at: Points
    taught_at: Points
    modality: int


class Window(NamedTuple):
    """A square of an image, pixels."""

    left: int
    top: int
    side: int

    @classmethod
    def around(
        cls, places: Points, size: tuple[int, int], factor: float, draw: np.random.Generator
    ) -> Window:
        """One that holds most of the places (n, 2), moved a little."""
        low, high = places.min(0), places.max(0)
        side = int(np.clip((high - low).max() * factor, SMALLEST_PX, min(size)))
        centre = (low + high) / 2 + draw.uniform(-0.1, 0.1, 2) * side
        left, top = (
            int(np.clip(centre[axis] - side / 2, 0, size[1 - axis] - side)) for axis in (0, 1)
        )
        return cls(left, top, side)

    def within(self, places: Points) -> Points:
        """Places (n, 2) in pixels of the image as such in the square, each axis in [-1, 1]."""
        corner = np.array([self.left, self.top], np.float32)
        found: Points = ((places - corner) * np.float32(2 / self.side) - 1).astype(np.float32)
        return found

    def cut(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(112, 112, 3) of (H, W, 3)."""
        part = image[self.top : self.top + self.side, self.left : self.left + self.side]
        how = cv2.INTER_AREA if self.side > CROP else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(part, (CROP, CROP), interpolation=how), np.uint8)


def unit(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) uint8 in [0, 1]."""
    return image.astype(np.float32) / np.float32(255)


def lit(image: NDArray[np.float32], draw: np.random.Generator) -> NDArray[np.float32]:
    """An image (H, W, 3) in [0, 1] as another camera would show it: exposure, contrast, colour."""
    grey = image.mean(axis=2, keepdims=True)
    image = grey + (image - grey) * np.float32(draw.uniform(0.3, 1.4))
    image = np.clip(image, 0, 1) ** np.float32(np.exp(draw.uniform(-0.4, 0.4)))
    middle = image.mean()
    image = middle + (image - middle) * np.float32(draw.uniform(0.7, 1.3))
    tint = draw.uniform(0.9, 1.1, 3) * draw.uniform(0.8, 1.2)
    return np.clip(image * tint.astype(np.float32), 0, 1).astype(np.float32)


def disturbed(image: NDArray[np.float32], draw: np.random.Generator) -> NDArray[np.float32]:
    """An image (H, W, 3) in [0, 1] with the blur and the grain of a worse camera, sometimes."""
    if draw.random() < 0.3:
        image = cv2.GaussianBlur(image, (0, 0), draw.uniform(0.4, 1.5))
    if draw.random() < 0.5:
        grain = draw.standard_normal(image.shape, np.float32)
        image = image + grain * np.float32(draw.uniform(0, 0.06))
    return np.clip(image, 0, 1).astype(np.float32)
