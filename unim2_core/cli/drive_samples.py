"""Drives as an adaptation takes them in: synchronised, registered, through the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unim2_core.cli.console import progress, warn
from unim2_core.data.drive_pictures import DrivePictures
from unim2_core.data.pictures import Picture, PictureSource
from unim2_core.data.views import Mirrored
from unim2_core.errors import ModelError
from unim2_core.inference.engine import Engine
from unim2_core.learning.buffer import Sample
from unim2_core.learning.memory import (
    HELD,
    REHEARSED,
    Memory,
    concatenated,
    draw_cells,
    is_held_out,
    mirrored_cells,
    spread,
)
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.rig import Rig
from unim2_core.sensing.warping import registered

Maps = Mapping[str, NDArray[np.float32]]


class DriveSource(PictureSource, Protocol):
    """What an adaptation learns from: pictures as the model is to see them.

    Attributes:
        absent: a sentence for each modality that can never come.
    """

    @property
    def absent(self) -> list[str]: ...  # noqa: D102


Stream = Callable[[Bundle, int], DriveSource]
"""From the model and the most pictures that are wanted to their source."""


def drives_of(bundle: Bundle, bags: Sequence[Path], rig: Rig, frames: int) -> DrivePictures:
    """The pictures of drives as the model of a bundle is to see them.

    Raises:
        Unim2Error: a drive cannot be opened or gives no set, or lacks the model's reference.
    """
    manifest = bundle.manifest
    return DrivePictures(
        bags,
        rig,
        {entry.name: entry.encoding for entry in manifest.modalities},
        size=manifest.infer_size,
        patch_size=manifest.backbone.patch_size,
        frames=frames,
        warn=warn,
    )


@dataclass(frozen=True, eq=False)
class Eye:
    """What an engine sees of a picture.

    Attributes:
        engine: of the model.
        modalities: their names, the reference first.
        grid: rows and columns of the tokens.
        cells: places that an adaptation looks at.
    """

    engine: Engine
    modalities: tuple[str, ...]
    grid: tuple[int, int]
    cells: NDArray[np.int64]

    @classmethod
    def of(cls, engine: Engine, bundle: Bundle, memory: Memory | None, seed: int) -> Eye:
        """The one that looks at the places of a memory, or at places of its own.

        Raises:
            ModelError: the memory is of another grid.
        """
        manifest = bundle.manifest
        patch = manifest.backbone.patch_size
        grid = (manifest.infer_size[0] // patch, manifest.infer_size[1] // patch)
        names = tuple(entry.name for entry in manifest.modalities)
        if memory is None:
            cells = draw_cells(grid, len(names), manifest.backbone.embed_dim, seed)
            return cls(engine, names, grid, cells)
        if memory.grid != grid:
            raise ModelError(
                "what the model remembers is of another grid of tokens",
                expected=f"{grid[0]}x{grid[1]}",
                found=f"{memory.grid[0]}x{memory.grid[1]}",
                remedy="give the drives that it was trained on with --old-bag",
            )
        return cls(engine, names, grid, memory.cells)

    def tokens(self, picture: Picture) -> tuple[Maps, Maps]:
        """(h, w, D) tokens in the reference's grid and (h, w) presence, of every modality."""
        tokens, presence = {}, {}
        width = 0
        for name, image in picture.images.items():
            own = self.engine.tokens(image[None])[0]
            tokens[name], there = registered(own, picture.valid.get(name), picture.maps.get(name))
            presence[name] = there.astype(np.float32)
            width = own.shape[2]
        for name in self.modalities:
            if name not in tokens:
                tokens[name] = np.zeros((*self.grid, width), np.float32)
                presence[name] = np.zeros(self.grid, np.float32)
        order = self.modalities
        return {n: tokens[n] for n in order}, {n: presence[n] for n in order}

    def sample(self, picture: Picture, *, mirrored: bool = False) -> Sample | None:
        """What an adaptation takes in of a picture; None where a token is not a number."""
        return self.at_places(*self.tokens(picture), picture, mirrored=mirrored)

    def at_places(
        self, tokens: Maps, presence: Maps, picture: Picture, *, mirrored: bool = False
    ) -> Sample | None:
        """The same, of tokens that are known."""
        cells = mirrored_cells(self.cells, self.grid) if mirrored else self.cells
        side = round(len(cells) ** 0.5)
        drawn = {}
        for name, maps in tokens.items():
            with np.errstate(over="ignore"):
                part = maps.reshape(-1, maps.shape[2])[cells].astype(np.float16)
            if not np.isfinite(part).all():
                return None
            drawn[name] = part.reshape(side, side, -1)
        return Sample(
            drawn,
            {n: p.reshape(-1)[cells].reshape(side, side) > 0 for n, p in presence.items()},
            picture.sequence,
            picture.stamp_ns,
        )


def samples(source: PictureSource, eye: Eye) -> Iterator[Sample]:
    """All pictures of a source as samples, without those that give no numbers."""
    for picture in source:
        found = eye.sample(picture)
        if found is not None:
            yield found


def remembered(source: PictureSource, eye: Eye) -> Memory:
    """Make the memory of a model from the drives that it was trained on, which are still there.

    Raises:
        ModelError: there are too few pictures.
    """
    mirror = Mirrored(source, ())
    rehearsed: list[Sample] = []
    held: list[tuple[Sample, Sample]] = []
    with progress("old drives", source.limit) as advance:
        for index, picture in enumerate(source):
            sample = eye.sample(picture)
            if sample is not None and is_held_out(index, source.limit):
                swapped = eye.sample(mirror.seen(picture), mirrored=True)
                if swapped is not None:
                    held.append((sample, swapped))
            elif sample is not None:
                rehearsed.append(sample)
            advance(index + 1)
    if not rehearsed or not held:
        raise ModelError(
            "there are too few pictures to remember",
            expected="two or more",
            found=str(len(rehearsed) + len(held)),
            remedy="give longer drives with --old-bag",
        )
    rows = spread(np.arange(len(rehearsed)), REHEARSED)
    chosen = spread(np.arange(len(held)), HELD)
    drives = {sample.sequence for sample in (*rehearsed, *(first for first, _ in held))}
    return Memory(
        eye.cells,
        eye.grid,
        concatenated(*(rehearsed[row].store for row in rows)),
        concatenated(*(held[row][0].store for row in chosen)),
        concatenated(*(held[row][1].store for row in chosen)),
        len(drives),
    )
