"""Tokens of a drive for clustering: a fixed number of places from frames spread over it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import RigError
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.modalities import Encoder
from unim2_core.sensing.registrar import Registrar
from unim2_core.sensing.warping import gather

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TokenSample:
    """Places of many frames.

    Attributes:
        tokens: (N, M, D) float32, zeros where a modality was missing.
        presence: (N, M) float32, 1 where the modality sees that place.
        images: (M, H, W, 3) uint8, the first frame that had every modality, else the first.
        frames: how many frame sets were seen.
    """

    tokens: Floats
    presence: Floats
    images: Images
    frames: int


def sample_tokens(
    sets: Iterable[FrameSet],
    registrar: Registrar,
    encoders: Sequence[Encoder],
    backbone: Callable[[Images], Floats],
    size: tuple[int, int],
    places: int,
    seed: int,
) -> TokenSample:
    """Draw the same number of places from every frame set.

    Args:
        sets: the frames; only one is held at a time.
        registrar: takes the other sensors' tokens into the reference camera.
        encoders: one per modality, in the model's order.
        backbone: (1, H, W, 3) uint8 -> (1, h, w, D) float32.
        size: height and width that images are encoded at, pixels.
        places: tokens per frame set.
        seed: for the draw.

    Raises:
        RigError: a modality can never be encoded, for want of a calibration.
    """
    draw = np.random.default_rng(seed)
    tokens, presences = [], []
    example: Images | None = None
    example_present = 0
    refused: dict[int, RigError] = {}
    for frames in sets:
        images = np.zeros((len(encoders), *size, 3), np.uint8)
        present = np.zeros(len(encoders), np.float32)
        grids: list[Floats | None] = []
        for index, encoder in enumerate(encoders):
            frame = frames.frames.get(encoder.modality.sensor)
            grids.append(None)
            if frame is None:
                continue
            try:
                images[index] = encoder.encode(frame, size, frame.camera)[0]
            except RigError as error:  # its calibration may come later in the drive
                refused[index] = error
                continue
            present[index] = 1.0
            grids[index] = backbone(images[index : index + 1])[0]
        if not present.any():
            continue
        if present.sum() > example_present:
            example, example_present = images, int(present.sum())
        sensors = [encoder.modality.sensor for encoder in encoders]
        drawn = _draw_places(_registered(grids, sensors, registrar, frames), places, draw)
        tokens.append(drawn[0])
        presences.append(drawn[1])
    for index, refusal in refused.items():
        if not any(present[:, index].any() for present in presences):
            raise refusal
    if example is None:
        empty = np.zeros((0, len(encoders), 1), np.float32)
        return TokenSample(empty, empty[..., 0], np.zeros((len(encoders), *size, 3), np.uint8), 0)
    return TokenSample(np.concatenate(tokens), np.concatenate(presences), example, len(tokens))


Seen = tuple[Floats, NDArray[np.bool_]]
"""(h, w, D) tokens of one modality and (h, w) where it sees something."""


def _registered(
    grids: Sequence[Floats | None],
    sensors: Sequence[str],
    registrar: Registrar,
    frames: FrameSet,
) -> list[Seen | None]:
    """The grids of all modalities in the reference camera."""
    height, width, _ = next(grid for grid in grids if grid is not None).shape
    maps = registrar(frames, (height, width)).maps
    everywhere = np.ones((height, width), np.bool_)
    registered: list[Seen | None] = []
    for grid, sensor in zip(grids, sensors, strict=True):
        grid_map = maps.get(sensor)
        if grid is None:
            registered.append(None)
        elif grid_map is None:
            registered.append((grid, everywhere))
        else:
            registered.append(gather(grid, grid_map))
    return registered


def _draw_places(
    grids: Sequence[Seen | None], places: int, draw: np.random.Generator
) -> tuple[Floats, Floats]:
    """Tokens (places, M, D) and presence (places, M) of places drawn without repetition."""
    height, width, dim = next(seen for seen in grids if seen is not None)[0].shape
    chosen = draw.choice(height * width, min(places, height * width), replace=False)
    tokens = np.zeros((len(chosen), len(grids), dim), np.float32)
    presence = np.zeros((len(chosen), len(grids)), np.float32)
    for index, seen in enumerate(grids):
        if seen is not None:
            tokens[:, index] = seen[0].reshape(-1, dim)[chosen]
            presence[:, index] = seen[1].ravel()[chosen]
    return tokens, presence
