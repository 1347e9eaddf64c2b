"""Frozen features of many pictures: computed once, then only looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.labels import Classes
from unim2_core.errors import ModelError
from unim2_core.learning.kmeans import SMALLEST_DEVIATION

HALF_ULP = 2.0**-11
"""Largest relative error of a number that was rounded to float16."""
SMALLEST = 2.0**-24
"""Distance of float16 numbers around zero."""


class Read(NamedTuple):
    """Features of some pictures, in memory.

    Attributes:
        tokens: modality -> (B, h, w, D) float16, or (B, C, D) of C places of each.
        presence: modality -> (B, h, w) bool, or (B, C).
    """

    tokens: dict[str, NDArray[np.float16]]
    presence: dict[str, NDArray[np.bool_]]


class Features(Protocol):
    """Frozen features of N pictures, wherever they are; the first modality is the reference.

    Attributes as of ``FeatureStore``, which is one, in this machine's memory or files.
    """

    @property
    def modalities(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def grid(self) -> tuple[int, int]: ...  # noqa: D102
    @property
    def dim(self) -> int: ...  # noqa: D102
    @property
    def sources(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def sequences(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def stamps_ns(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def labels(self) -> NDArray[np.uint8] | None: ...  # noqa: D102

    @property
    def remote(self) -> bool:
        """Whether reading waits for a network."""
        ...

    @property
    def complete(self) -> bool:
        """Whether every modality sees every place of every picture."""
        ...

    @property
    def absent(self) -> tuple[str, ...]:
        """Modalities that are in none of the pictures."""
        ...

    def __len__(self) -> int: ...

    def read(self, rows: NDArray[np.int64], cells: NDArray[np.int64] | None = None) -> Read:
        """Read pictures; what is remote is read from there, anew each time.

        Args:
            rows: (B,) of pictures, each from 0 to N - 1.
            cells: (B, C) places of each, numbers in its grid; None = all.

        Raises:
            DataError: they cannot be read, or are damaged.
        """
        ...

    def check(self, rows: NDArray[np.int64]) -> None:
        """Hold pictures against their checksums, where neither opening nor reading does that.

        Raises:
            DataError: one is damaged.
        """
        ...

    def only(self, modalities: Sequence[str]) -> Features:
        """The features of some of the modalities, in the order given; nothing is read.

        Raises:
            ModelError: one of them is not there, or none is asked for.
        """
        ...


def gathered(
    array: NDArray[Any], rows: NDArray[np.int64], cells: NDArray[np.int64] | None = None
) -> NDArray[Any]:
    """Whole pictures (B, h, w, ...) of (N, h, w, ...), or places of them, (B, C, ...)."""
    if cells is None:
        return np.ascontiguousarray(array[rows])
    flat = array.reshape(len(array), -1, *array.shape[3:])  # (N, h * w, ...)
    return np.ascontiguousarray(flat[rows[:, None], cells])


@dataclass(frozen=True, eq=False)
class FeatureStore:
    """Frozen features of N pictures, in the grid of the reference; arrays may be memory-mapped.

    Attributes:
        tokens: modality -> (N, h, w, D) float16, zeros where the modality is missing; the first
            modality is the reference.
        presence: modality -> (N, h, w) bool, True where the modality sees that place.
        sources: (N,) int64, number of the image that a picture was cut from.
        sequences: (N,) int64, number of the drive or folder.
        stamps_ns: (N,) int64, -1 where not known.
        labels: (N, H, W) uint8 classes, 255 = ignored; None where there are none.
        classes: that the labels mean; None where there are none.
        names: of the pictures.
    """

    tokens: Mapping[str, NDArray[np.float16]]
    presence: Mapping[str, NDArray[np.bool_]]
    sources: NDArray[np.int64]
    sequences: NDArray[np.int64]
    stamps_ns: NDArray[np.int64]
    labels: NDArray[np.uint8] | None = None
    classes: Classes | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names; the first is the reference."""
        return tuple(self.tokens)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the token grid."""
        _, height, width, _ = next(iter(self.tokens.values())).shape
        return height, width

    @property
    def dim(self) -> int:
        """Width D of a token."""
        return int(next(iter(self.tokens.values())).shape[3])

    @property
    def remote(self) -> bool:
        """It is not."""
        return False

    @property
    def complete(self) -> bool:
        """Whether every modality sees every place of every picture."""
        return all(bool(np.all(part)) for part in self.presence.values())

    @property
    def absent(self) -> tuple[str, ...]:
        """Modalities that are in none of the pictures."""
        return tuple(
            name
            for name, presence in self.presence.items()
            if not any(picture.any() for picture in presence)  # most stop at the first one
        )

    def read(self, rows: NDArray[np.int64], cells: NDArray[np.int64] | None = None) -> Read:
        """Read pictures, see ``Features``."""
        return Read(
            {name: gathered(part, rows, cells) for name, part in self.tokens.items()},
            {name: gathered(part, rows, cells) for name, part in self.presence.items()},
        )

    def check(self, rows: NDArray[np.int64]) -> None:
        """Nothing: a store is checked when it is opened."""

    def take(self, indices: Sequence[int] | NDArray[np.int64]) -> FeatureStore:
        """The store of some of the pictures, in the order given.

        Evenly spaced pictures, such as ``range(100, 200)``, are a view: nothing is read before
        it is used. Any others are copied into memory.

        Args:
            indices: of pictures, each from 0 to N - 1.

        Raises:
            ModelError: an index is out of range.
        """
        chosen = np.asarray(indices, np.int64).reshape(-1)
        if chosen.size and (chosen.min() < 0 or chosen.max() >= len(self)):
            raise ModelError(
                "a picture that is not in the features was asked for",
                expected=f"0 to {len(self) - 1}",
                found=f"{chosen.min()} to {chosen.max()}",
                remedy="give the numbers of pictures that are there",
            )
        rows = _as_slice(chosen)
        labels = None if self.labels is None else self.labels[rows]
        return replace(
            self,
            tokens={name: array[rows] for name, array in self.tokens.items()},
            presence={name: array[rows] for name, array in self.presence.items()},
            sources=self.sources[rows],
            sequences=self.sequences[rows],
            stamps_ns=self.stamps_ns[rows],
            labels=labels,
            names=tuple(self.names[row] for row in chosen.tolist()) if self.names else (),
        )

    def only(self, modalities: Sequence[str]) -> FeatureStore:
        """The store of some of the modalities, in the order given; nothing is copied.

        Raises:
            ModelError: one of them is not there, or none is asked for.
        """
        check_there(modalities, self.modalities)
        return replace(
            self,
            tokens={name: self.tokens[name] for name in modalities},
            presence={name: self.presence[name] for name in modalities},
        )


def check_there(asked: Sequence[str], there: Sequence[str]) -> None:
    """Check that there are features of modalities.

    Raises:
        ModelError: one of them is not there, or none is asked for.
    """
    unknown = [name for name in asked if name not in there]
    if unknown or not asked:
        raise ModelError(
            "there are no features of a modality",
            expected=f"some of {', '.join(there)}",
            found=", ".join(unknown) or "none",
            remedy="name them with --modalities, the reference first",
        )


def _as_slice(rows: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """The rows as a slice, which makes views, where they are evenly spaced and rising."""
    if not rows.size:
        return slice(0, 0)
    first = int(rows[0])
    step = int(rows[1]) - first if rows.size > 1 else 1
    if step < 1 or (np.diff(rows) != step).any():
        return rows
    return slice(first, int(rows[-1]) + 1, step)


def check_presence(store: Features) -> None:
    """Check that every modality is somewhere: nothing can be learnt of one that is not.

    Raises:
        ModelError: a modality is in no picture.
    """
    never = store.absent
    if never:
        raise ModelError(
            "a modality is in none of the pictures",
            expected=f"images of each of {', '.join(store.modalities)}, matched to the reference",
            found=f"none of {', '.join(never)}",
            remedy="look at the streams with: unim2 info BAG, or leave it out of --modalities",
        )


@dataclass(frozen=True, eq=False)
class Standardization:
    """What is subtracted from tokens and multiplied after that, before anything learns from them.

    Attributes:
        mean: (M, D) float32.
        scale: (M, D) float32.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    @classmethod
    def identity(cls, modalities: int, dim: int) -> Standardization:
        """The one that changes nothing, as published."""
        return cls(np.zeros((modalities, dim), np.float32), np.ones((modalities, dim), np.float32))

    @classmethod
    def of(cls, store: Features, *, places: int = 100_000, seed: int = 0) -> Standardization:
        """The one that gives the channels of a modality mean 0 and deviation 1.

        Taken from whole pictures, drawn at random until so many places were seen where the
        modality is present; memory does not grow with the number of pictures. What hardly varies
        is not blown up to the weight of what does: it counts as if it varied by a small part of
        what varies most, as in ``fit_clusters``. A channel that varies by no more than what
        float16 rounds off is constant: its scale is 0, so that it says nothing later on either,
        instead of shouting about the first difference.

        Args:
            store: the features.
            places: of each modality that are looked at.
            seed: for the draw.

        Raises:
            ModelError: a modality is in no picture.
        """
        check_presence(store)
        names, shape = store.modalities, (len(store.modalities), store.dim)
        count, (total, squares) = np.zeros(len(names), np.int64), np.zeros((2, *shape))
        for row in np.random.default_rng(seed).permutation(len(store)):
            wanted = np.flatnonzero(count < places)
            if not len(wanted):
                break
            tokens, presence = store.read(row[None])
            for index in wanted.tolist():
                name = names[index]
                seen = tokens[name][0][presence[name][0]].astype(np.float64)
                count[index] += len(seen)
                total[index] += seen.sum(0)
                squares[index] += np.square(seen).sum(0)
        mean, scale = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        for index in range(len(names)):
            centre = total[index] / count[index]
            # Sums in float64: cancellation is far below the rounding of float16.
            deviation = np.sqrt(np.maximum(squares[index] / count[index] - np.square(centre), 0))
            varies = deviation > np.maximum(HALF_ULP * np.abs(centre), SMALLEST)
            mean[index] = centre
            floored = np.maximum(deviation, SMALLEST_DEVIATION * deviation.max())
            scale[index, varies] = 1 / floored[varies]
        return cls(mean, scale)
