"""The replay buffer of an adaptation: the remembered past, and what comes in beside it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unim2_core.learning.features import FeatureStore, Standardization
from unim2_core.learning.pairs import Batches, NeighborConfig, describe, neighbors_of

SIMILAR = 0.9995
"""Pictures whose descriptions have a higher cosine are near-duplicates."""
OLD_SHARE = 0.5
NEIGHBORS = NeighborConfig(count=7, modalities="all", min_gap_s=1.0)


@dataclass(frozen=True, eq=False)
class Sample:
    """One picture at the places of a memory.

    Attributes:
        tokens: modality -> (s, s, D) float16, zeros where the modality is missing.
        presence: modality -> (s, s) bool.
        sequence: number of the drive, from 0.
        stamp_ns: when it was taken.
    """

    tokens: Mapping[str, NDArray[np.float16]]
    presence: Mapping[str, NDArray[np.bool_]]
    sequence: int = 0
    stamp_ns: int = -1

    @property
    def store(self) -> FeatureStore:
        """The one picture as a store."""
        return FeatureStore(
            {name: part[None] for name, part in self.tokens.items()},
            {name: part[None] for name, part in self.presence.items()},
            np.zeros(1, np.int64),
            np.array([self.sequence], np.int64),
            np.array([self.stamp_ns], np.int64),
        )


class ReplayBuffer:
    """The old domain, which keeps its place, and the new one, in the room that is left.

    Near-duplicates of what came before are refused. Once the room is full, each picture that has
    come so far is equally likely to be in it (reservoir sampling), by draws that depend on the
    seed and the picture's number alone.

    Args:
        old: to rehearse; it is never replaced.
        standardization: of the tokens.
        share: of the old domain once the room is full, in (0, 1).
        similar: see ``SIMILAR``.
        seed: of every draw.

    Attributes:
        offered: pictures of the new domain so far.
        refused: of these, near-duplicates.
        old: number of pictures of the old domain.
        capacity: room for the new one, pictures.
    """

    def __init__(
        self,
        old: FeatureStore,
        standardization: Standardization,
        *,
        share: float = OLD_SHARE,
        similar: float = SIMILAR,
        seed: int = 0,
    ) -> None:
        self.old = len(old)
        self.capacity = max(2, round(self.old * (1 - share) / share))
        self.offered = self.refused = self.filled = 0
        self._standardization, self._similar, self._seed = standardization, similar, seed
        total = self.old + self.capacity
        self._store = FeatureStore(
            {name: _extended(part, total) for name, part in old.tokens.items()},
            {name: _extended(part, total) for name, part in old.presence.items()},
            np.arange(total),
            _extended(old.sequences, total),
            _extended(old.stamps_ns, total),
        )
        described = describe(old, NEIGHBORS, standardization)
        self._first_new = 1 + int(old.sequences.max(initial=-1))
        self._descriptors = torch.zeros(total, described.shape[1])
        self._descriptors[: self.old] = described
        self._last = torch.zeros(described.shape[1])

    @property
    def store(self) -> FeatureStore:
        """Old pictures, then new ones; views, which change with the buffer."""
        return self._store.take(range(self.old + self.filled))

    @property
    def new(self) -> FeatureStore:
        """The new pictures; drives are counted from 0."""
        rows = range(self.old, self.old + self.filled)
        taken = self._store.take(rows)
        return FeatureStore(
            taken.tokens,
            taken.presence,
            np.arange(self.filled),
            taken.sequences - self._first_new,
            taken.stamps_ns,
        )

    def describe(self, sample: Sample) -> Tensor:
        """(M * D,) float32 at unit length."""
        return describe(sample.store, NEIGHBORS, self._standardization)[0]

    def is_near(self, description: Tensor, known: Tensor) -> bool:
        """Whether a picture is a near-duplicate of any of those that are described, (N, C)."""
        return bool(len(known)) and float((known @ description).max()) > self._similar

    def offer(self, sample: Sample) -> bool:
        """Take a picture in, or refuse it; returns whether it is in the buffer now."""
        description = self.describe(sample)
        known = self._descriptors[self.old : self.old + self.filled]
        self.offered += 1
        if self.is_near(description, torch.cat([known, self._last[None]])):
            self.refused += 1
            return False
        self._last = description
        distinct = self.offered - self.refused
        place = self.filled
        if self.filled == self.capacity:
            place = int(np.random.default_rng([self._seed, distinct]).integers(distinct))
            if place >= self.capacity:
                return False
        self.filled = max(self.filled, place + 1)
        row = self.old + place
        for name in self._store.modalities:
            self._store.tokens[name][row] = sample.tokens[name]
            self._store.presence[name][row] = sample.presence[name]
        self._store.sequences[row] = self._first_new + sample.sequence
        self._store.stamps_ns[row] = sample.stamp_ns
        self._descriptors[row] = description
        return True

    def batches(self, batch: int, samples: int) -> Batches:
        """What gives the batch of a step from the pictures that are here now.

        Args:
            batch: anchors of a step.
            samples: S, places of a picture are drawn S x S at a time.
        """
        store = self.store
        neighbors = neighbors_of(store, self._descriptors[: len(store)], NEIGHBORS)
        return Batches(
            *(store, neighbors.indices, self._standardization),
            batch=batch,
            samples=samples,
            seed=self._seed,
        )

    @property
    def shares(self) -> Counter[int]:
        """Drive -> pictures in the buffer."""
        return Counter(self.store.sequences.tolist())

    def state(self) -> dict[str, Any]:
        """Everything that came in, to go on from; the old domain is given anew."""
        new = slice(self.old, self.old + self.filled)
        return {
            "counts": [self.offered, self.refused, self.filled],
            "tokens": {n: torch.from_numpy(p[new].copy()) for n, p in self._store.tokens.items()},
            "presence": {
                n: torch.from_numpy(p[new].copy()) for n, p in self._store.presence.items()
            },
            "sequences": torch.from_numpy(self._store.sequences[new].copy()),
            "stamps_ns": torch.from_numpy(self._store.stamps_ns[new].copy()),
            "descriptors": self._descriptors[new].clone(),
            "last": self._last.clone(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.offered, self.refused, self.filled = state["counts"]
        new = slice(self.old, self.old + self.filled)
        for name in self._store.modalities:
            self._store.tokens[name][new] = state["tokens"][name].numpy()
            self._store.presence[name][new] = state["presence"][name].numpy()
        self._store.sequences[new] = state["sequences"].numpy()
        self._store.stamps_ns[new] = state["stamps_ns"].numpy()
        self._descriptors[new] = state["descriptors"]
        self._last = state["last"]


def _extended(array: NDArray[Any], total: int) -> NDArray[Any]:
    """A copy with room for more rows, zeros."""
    made = np.zeros((total, *array.shape[1:]), array.dtype)
    made[: len(array)] = array
    return made
