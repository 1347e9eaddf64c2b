"""Batches: pictures, each with one that looks like it, from a store of frozen features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.learning.features import Features, Standardization
from unim2_core.learning.group import ALONE, Group
from unim2_core.learning.neighbors import nearest
from unim2_core.learning.objective import Batch

BLOCK = 64
"""Pictures whose features are in memory at once while they are described."""
SHORTEST_GAP_S = 0.05
"""Below it, the distance in time of neighbours is given up."""

_PAIRS, _ORDER = 2, 3
"""What a seed is for; 0 and 1 are the trainer's."""


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

    def __post_init__(self) -> None:
        known = self.modalities in ("reference", "all")
        if not known or self.count < 1 or not 0 <= self.min_gap_s < np.inf:
            raise ModelError(
                "neighbours cannot be found",
                expected="one or more, told by the reference or all, no negative distance in time",
                found=f"{self.count}, {self.modalities!r}, {self.min_gap_s} s",
            )

    @classmethod
    def paper(cls) -> NeighborConfig:
        """The published rule: by the reference, every other picture."""
        return cls(7, "reference", False, 0.0)


def describe(
    store: Features,
    config: NeighborConfig,
    standardization: Standardization,
    group: Group = ALONE,
) -> Tensor:
    """Describe each picture by the mean of its tokens, at unit length: (N, D or M * D) float32.

    Only places that a modality sees count; one that is missing in a picture is zero there.

    Args:
        store: the features.
        config: by which modalities.
        standardization: of the tokens.
        group: the processes that each read a part, and all get the whole.

    Raises:
        DataError: a picture cannot be read, or is damaged.
    """
    names = store.modalities[:1] if config.modalities == "reference" else store.modalities
    found = torch.zeros(len(store), len(names), store.dim)
    looked_at = store.only(names)
    for start in range(0, len(store), BLOCK)[group.rank :: group.world]:
        rows = np.arange(start, min(start + BLOCK, len(store)))
        store.check(rows)
        read = looked_at.read(rows)
        for index, name in enumerate(names):
            mean, scale = (
                torch.from_numpy(part[index])
                for part in (standardization.mean, standardization.scale)
            )
            tokens = torch.from_numpy(read.tokens[name].astype(np.float32))
            seen = torch.from_numpy(read.presence[name].astype(np.float32))
            count = seen.sum(dim=(1, 2))[:, None]  # (n, 1)
            total = torch.einsum("nhwd,nhw->nd", tokens, seen)
            means = (total / count.clamp(min=1) - mean) * scale  # (n, D)
            found[torch.from_numpy(rows), index] = F.normalize(means, dim=1) * (count > 0)
    return F.normalize(group.summed(found).flatten(1), dim=1)


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
    store: Features,
    config: NeighborConfig,
    standardization: Standardization,
    group: Group = ALONE,
) -> Neighbors:
    """Find the pictures most alike to each; the processes of a group share the work.

    In a drive that is too short for the distance in time that is asked for, it is halved until
    every picture has its neighbours, and where there are fewer pictures than that, there are
    fewer neighbours; crops of one image never become neighbours.

    Raises:
        ModelError: a picture has no other to be compared with; with the published rule, fewer
            than are asked for.
    """
    descriptors = describe(store, config, standardization, group)
    return neighbors_of(store, descriptors, config, group)


def neighbors_of(
    store: Features, descriptors: Tensor, config: NeighborConfig, group: Group = ALONE
) -> Neighbors:
    """As ``find_neighbors``, for pictures that have been described, (N, C) float32."""
    if not config.distinct_sources:
        found = nearest(descriptors, config.count + 1, group=group)[:, 1:]
        return Neighbors(found.numpy(), 0.0)
    order = np.lexsort((store.sources, store.stamps_ns, store.sequences))  # by drive, then time
    spans = _spans(store, order, 0.0)
    count = max(1, min(config.count, _fewest_others(spans)))
    gap_s = config.min_gap_s if (store.stamps_ns >= 0).any() else 0.0
    while gap_s:
        apart = _spans(store, order, gap_s)
        if _fewest_others(apart) >= count:
            spans = apart
            break
        gap_s = gap_s / 2 if gap_s > SHORTEST_GAP_S else 0.0
    ordered, excluded = descriptors[torch.from_numpy(order)], torch.from_numpy(spans)
    alike = nearest(ordered, count, excluded, group).numpy()
    indices = np.empty_like(alike)
    indices[order] = order[alike]
    return Neighbors(indices, gap_s)


def _fewest_others(spans: NDArray[np.int64]) -> int:
    """Of all pictures, those that are not too close to one of them, where these are fewest."""
    return len(spans) - int(np.ptp(spans, axis=1).max(initial=0))


def _spans(store: Features, order: NDArray[np.int64], gap_s: float) -> NDArray[np.int64]:
    """(N, 2), from and to (exclusive) in this order: what is too close to each picture in it.

    That is, of one source with it, or of one drive and closer in time, where all times are known.
    """
    sources, sequences, stamps = (
        array[order] for array in (store.sources, store.sequences, store.stamps_ns)
    )
    spans = _runs(sequences, sources)
    gap_ns = int(gap_s * 1e9)
    for first, end in np.unique(_runs(sequences), axis=0) if gap_ns else ():
        times = stamps[first:end]
        if times[0] >= 0:  # the smallest
            spans[first:end, 0] = first + np.searchsorted(times, times - gap_ns, side="right")
            spans[first:end, 1] = first + np.searchsorted(times, times + gap_ns, side="left")
    return spans


def _runs(*keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N, 2), from and to (exclusive): the rows around each whose keys are the same as its own."""
    changes = np.any([np.diff(key) != 0 for key in keys], axis=0)
    edges = np.concatenate([[0], np.flatnonzero(changes) + 1, [len(keys[0])]])
    return np.repeat(np.stack([edges[:-1], edges[1:]], axis=1), np.diff(edges), axis=0)


class Batches:
    """The batch of each step; it depends on the seed and the step alone.

    Anchors pass over all pictures in an order drawn anew for each epoch, a batch at the end of
    one reaching into the next; a positive is drawn from the neighbours of its anchor. Of many
    processes each draws for all and reads its own part, so that together they have the batch that
    one alone would have.

    Args:
        store: the features.
        neighbors: (N, k) rows that look alike.
        standardization: of the tokens.
        batch: anchors of one step, of all processes together; at most as many as there are.
        samples: S, to gather S x S random places of each picture, the same for all modalities, no
            place twice where there are as many; None: whole maps.
        labels: whether labels go along, for the linear probe. Only whole maps have them.
        seed: of every draw.
        rank: of this process.
        world: number of processes.
        device: where the tensors are wanted.

    Attributes:
        group: the processes, and how many anchors a step has.

    Raises:
        ModelError: there are fewer than two pictures, or fewer than processes.
    """

    def __init__(
        self,
        store: Features,
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
        self.group = Group(rank, world, min(batch, len(store)))
        if self.group.total < max(2, world):
            raise ModelError(
                "a batch needs two pictures or more: each is compared with others",
                expected=f"at least {max(2, world)} pictures, and as large a batch",
                found=f"{len(store)} pictures, a batch of {batch}",
                remedy="give more pictures, with --frames or another --bag",
            )
        self._store = store
        self._neighbors = neighbors
        self._samples = samples
        self._labels = labels and store.labels is not None and samples is None
        self._seed = seed
        self._device = torch.device(device)
        self._mean, self._scale = (
            torch.from_numpy(part).to(self._device)
            for part in (standardization.mean, standardization.scale)
        )
        self._complete = store.complete

    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        draw = np.random.default_rng([self._seed, step, 0, _PAIRS])
        anchors = self._anchors(step)
        chosen = draw.integers(self._neighbors.shape[1], size=len(anchors))
        positives = self._neighbors[anchors, chosen]
        own = self.group.own
        maps, presence = zip(
            *(self._maps(rows, draw) for rows in (anchors, positives)), strict=True
        )
        labels = None
        if self._labels and self._store.labels is not None:
            labels = torch.from_numpy(self._store.labels[anchors[own]].astype(np.int64))
        return Batch(
            maps[0],
            maps[1],
            labels=None if labels is None else labels.to(self._device),
            presence=None if self._complete else (presence[0], presence[1]),
            sources=torch.from_numpy(self._store.sources[anchors]).to(self._device),
            indices=torch.from_numpy(anchors[own]),
            total=len(anchors),
        )

    def _anchors(self, step: int) -> NDArray[np.int64]:
        """The next rows of a random order of all, which are drawn on and on."""
        total, count = len(self._store), self.group.total
        first = step * count
        rows = np.arange(first, first + count)
        orders = {
            int(epoch): np.random.default_rng([self._seed, int(epoch), 0, _ORDER]).permutation(
                total
            )
            for epoch in np.unique(rows // total)
        }
        return np.array([orders[int(row // total)][row % total] for row in rows], np.int64)

    def _maps(
        self, rows: NDArray[np.int64], draw: np.random.Generator
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(B, D, h, w) float32 features and (B, h, w) float32 presence of one's own rows."""
        cells = None if self._samples is None else self._cells(len(rows), self._samples**2, draw)
        rows, cells = rows[self.group.own], None if cells is None else cells[self.group.own]
        maps, presence = {}, {}
        read = self._store.read(rows, cells)
        for index, name in enumerate(self._store.modalities):
            tokens = self._as_map(read.tokens[name])  # (B, h, w, D)
            features = torch.from_numpy(tokens).to(self._device, torch.float32)
            features = (features - self._mean[index]) * self._scale[index]
            if not self._complete:
                seen = self._as_map(read.presence[name])
                presence[name] = torch.from_numpy(seen).to(self._device, torch.float32)
                features = features * presence[name][..., None]
            maps[name] = features.permute(0, 3, 1, 2)  # (B, D, h, w), channels last in memory
        return maps, presence

    def _cells(self, pictures: int, count: int, draw: np.random.Generator) -> NDArray[np.int64]:
        """Random places of each picture, (B, S * S)."""
        places = int(np.prod(self._store.grid))
        if count > places:
            return draw.integers(places, size=(pictures, count))
        return np.argsort(draw.random((pictures, places)), axis=1)[:, :count]

    def _as_map(self, read: NDArray[np.generic]) -> NDArray[np.generic]:
        """Whole pictures as they are, drawn places as (B, S, S, ...)."""
        if self._samples is None:
            return read
        return read.reshape(len(read), self._samples, self._samples, *read.shape[2:])
