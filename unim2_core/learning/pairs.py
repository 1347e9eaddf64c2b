"""Batches: pictures, each with one that looks like it, from a store of frozen features."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.learning.features import FeatureStore, Standardization
from unim2_core.learning.neighbors import nearest
from unim2_core.learning.objective import Batch

BLOCK = 256
"""Pictures whose features are in memory at once while neighbours are looked for."""


@dataclass(frozen=True)
class NeighborConfig:
    """Which pictures count as alike.

    Attributes:
        count: neighbours of each picture.
        modalities: what they are told by: the ``reference`` alone, or ``all``.
        distinct_sources: crops of one image are no neighbours of each other.
        min_gap_s: pictures of one drive closer in time are no neighbours of each other, seconds;
            0 = all may be.
    """

    count: int = 7
    modalities: Literal["reference", "all"] = "all"
    distinct_sources: bool = True
    min_gap_s: float = 2.0

    @classmethod
    def paper(cls) -> NeighborConfig:
        """The published rule: by the reference, every other picture."""
        return cls(7, "reference", False, 0.0)


def describe(
    store: FeatureStore, config: NeighborConfig, standardization: Standardization
) -> NDArray[np.float32]:
    """Describe each picture by the mean of its tokens, at unit length: (N, D or M * D) float32.

    Only places that a modality sees count; one that is missing in a picture is zero there.
    """
    names = store.modalities[:1] if config.modalities == "reference" else store.modalities
    parts = []
    for index, name in enumerate(names):
        means = np.zeros((len(store), store.dim), np.float32)
        for start in range(0, len(store), BLOCK):
            rows = slice(start, start + BLOCK)
            seen = store.presence[name][rows][..., None]  # (n, h, w, 1)
            tokens = store.tokens[name][rows].astype(np.float32)
            tokens = (tokens - standardization.mean[index]) * standardization.scale[index]
            means[rows] = (tokens * seen).sum((1, 2)) / seen.sum((1, 2)).clip(1)
        parts.append(_unit(means))
    return _unit(np.concatenate(parts, axis=1))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-12), np.float32)


@dataclass(frozen=True, eq=False)
class Neighbors:
    """What looks like what.

    Attributes:
        indices: (N, k) int64, the most alike first.
        min_gap_s: the distance in time that could be kept, seconds.
    """

    indices: NDArray[np.int64]
    min_gap_s: float


def find_neighbors(
    store: FeatureStore, config: NeighborConfig, standardization: Standardization
) -> Neighbors:
    """Find the pictures most alike to each.

    In a drive that is too short for the distance in time that is asked for, it is halved until
    every picture has its neighbours, and where there are fewer pictures than that, there are
    fewer neighbours; crops of one image never become neighbours.

    Raises:
        ModelError: a picture has no other to be compared with; with the published rule, fewer
            than are asked for.
    """
    descriptors = torch.from_numpy(describe(store, config, standardization))
    if not config.distinct_sources:
        return Neighbors(nearest(descriptors, config.count + 1)[:, 1:].numpy(), 0.0)
    others = len(store) - int(np.unique(store.sources, return_counts=True)[1].max(initial=0))
    config = replace(config, count=max(1, min(config.count, others)))
    gap_s = config.min_gap_s if (store.stamps_ns >= 0).any() else 0.0
    groups = torch.from_numpy(np.unique(store.sources, return_inverse=True)[1].astype(np.int64))
    while gap_s > 0:
        spans = _spans(store, gap_s)
        if (len(store) - (spans[:, 1] - spans[:, 0])).min() >= config.count:
            found = nearest(descriptors, config.count, groups, torch.from_numpy(spans))
            return Neighbors(found.numpy(), gap_s)
        gap_s = gap_s / 2 if gap_s > 0.05 else 0.0
    return Neighbors(nearest(descriptors, config.count, groups).numpy(), 0.0)


def _spans(store: FeatureStore, gap_s: float) -> NDArray[np.int64]:
    """(N, 2) rows from and to (exclusive) that are too close in time to each picture.

    The rows of a drive follow each other in the order of time.
    """
    spans = np.stack([np.arange(len(store)), np.arange(len(store)) + 1], axis=1)
    for sequence in np.unique(store.sequences):
        rows = np.flatnonzero(store.sequences == sequence)
        stamps = store.stamps_ns[rows]
        if (stamps < 0).any():
            continue
        gap_ns = int(gap_s * 1e9)
        spans[rows, 0] = rows[0] + np.searchsorted(stamps, stamps - gap_ns, side="right")
        spans[rows, 1] = rows[0] + np.searchsorted(stamps, stamps + gap_ns, side="left")
    return spans


class Batches:
    """The batch of each step; it depends on the seed, the step and the rank alone.

    Anchors pass over all pictures in an order drawn anew for each epoch; a positive is drawn from
    the neighbours of its anchor.

    Args:
        store: the features.
        neighbors: (N, k) rows that look alike.
        standardization: of the tokens.
        batch: anchors of one step, over all ranks together; at most as many as there are.
        samples: S, to gather S x S random places of each picture, the same for all modalities;
            None: whole maps.
        labels: whether labels go along, for the linear probe. Only whole maps have them.
        seed: of every draw.
        rank: of this process.
        world: number of processes.
        device: where the tensors are wanted.

    Raises:
        ModelError: there are fewer than two pictures for each process.
    """

    def __init__(
        self,
        store: FeatureStore,
        neighbors: NDArray[np.int64],
        standardization: Standardization,
        *,
        batch: int = 32,
        samples: int | None = None,
        labels: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.size = min(batch, len(store)) // world
        if self.size < 2:
            raise ModelError(
                "a batch needs two pictures or more: each is compared with others",
                expected=f"at least {2 * world} pictures, and as large a batch",
                found=f"{len(store)} pictures, a batch of {batch}",
                remedy="give more frames or a larger --batch",
            )
        self._store = store
        self._neighbors = neighbors
        self._samples = samples
        self._labels = labels and store.labels is not None and samples is None
        self._seed, self._rank, self._world = seed, rank, world
        self._device = torch.device(device)
        self._mean, self._scale = (
            torch.from_numpy(part).to(self._device)
            for part in (standardization.mean, standardization.scale)
        )
        self._complete = all(bool(np.all(part)) for part in store.presence.values())

    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        draw = np.random.default_rng([self._seed, step, self._rank])
        anchors = self._anchors(step)
        chosen = draw.integers(self._neighbors.shape[1], size=len(anchors))
        positives = self._neighbors[anchors, chosen]
        maps, presence = zip(
            *(self._maps(rows, draw) for rows in (anchors, positives)), strict=True
        )
        labels = None
        if self._labels and self._store.labels is not None:
            labels = torch.from_numpy(self._store.labels[anchors].astype(np.int64))
        return Batch(
            maps[0],
            maps[1],
            labels=None if labels is None else labels.to(self._device),
            presence=None if self._complete else (presence[0], presence[1]),
            sources=torch.from_numpy(self._store.sources[anchors]).to(self._device),
            indices=torch.from_numpy(anchors),
        )

    def _anchors(self, step: int) -> NDArray[np.int64]:
        """This rank's rows: the next ones of a random order of all, which are drawn on and on."""
        total, count = len(self._store), self.size * self._world
        first = step * count
        rows = np.arange(first, first + count)
        orders = {
            int(epoch): np.random.default_rng([self._seed, int(epoch)]).permutation(total)
            for epoch in np.unique(rows // total)
        }
        drawn = np.array([orders[int(row // total)][row % total] for row in rows], np.int64)
        return drawn[self._rank * self.size : (self._rank + 1) * self.size]

    def _maps(
        self, rows: NDArray[np.int64], draw: np.random.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(B, D, h, w) float32 features and (B, h, w) float32 presence of each modality."""
        cells = None
        if self._samples is not None:
            height, width = self._store.grid
            cells = draw.integers(height * width, size=(len(rows), self._samples**2))
        maps, presence = {}, {}
        for index, name in enumerate(self._store.modalities):
            tokens = self._gathered(self._store.tokens[name], rows, cells)  # (B, h, w, D)
            features = torch.from_numpy(tokens).to(self._device, torch.float32)
            features = (features - self._mean[index]) * self._scale[index]
            if not self._complete:
                seen = self._gathered(self._store.presence[name], rows, cells)
                presence[name] = torch.from_numpy(seen).to(self._device, torch.float32)
                features = features * presence[name][..., None]
            maps[name] = features.permute(0, 3, 1, 2)  # (B, D, h, w), channels last in memory
        return maps, presence

    def _gathered(
        self, array: NDArray[np.generic], rows: NDArray[np.int64], cells: NDArray[np.int64] | None
    ) -> NDArray[np.generic]:
        """Whole pictures (B, h, w, ...), or their drawn places as (B, S, S, ...)."""
        if cells is None or self._samples is None:
            return np.ascontiguousarray(array[rows])
        flat = array.reshape(len(array), -1, *array.shape[3:])  # (N, h * w, ...)
        drawn = flat[rows[:, None], cells]  # (B, S * S, ...)
        return np.ascontiguousarray(
            drawn.reshape(len(rows), self._samples, self._samples, *array.shape[3:])
        )
