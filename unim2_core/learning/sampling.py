"""Tokens of a drive for clustering: a fixed number of places from frames spread over it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import RigError
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.modalities import Encoder

Images = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TokenSample:
    """Places of many frames.

    Attributes:
        tokens: (N, M, D) float32, zeros where a modality was missing.
        presence: (N, M) float32.
        images: (M, H, W, 3) uint8, the first frame that had every modality, else the first.
        frames: how many frame sets were seen.
    """

    tokens: Floats
    presence: Floats
    images: Images
    frames: int


def sample_tokens(
    sets: Iterable[FrameSet],
    encoders: Sequence[Encoder],
    backbone: Callable[[Images], Floats],
    size: tuple[int, int],
    places: int,
    seed: int,
) -> TokenSample:
    """Draw the same number of places from every frame set.

    Args:
        sets: the frames; only one is held at a time.
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
        tokens.append(_draw_places(grids, places, draw))
        presences.append(np.repeat(present[None], len(tokens[-1]), axis=0))
    for index, refusal in refused.items():
        if not any(present[:, index].any() for present in presences):
            raise refusal
    if example is None:
        empty = np.zeros((0, len(encoders), 1), np.float32)
        return TokenSample(empty, empty[..., 0], np.zeros((len(encoders), *size, 3), np.uint8), 0)
    return TokenSample(np.concatenate(tokens), np.concatenate(presences), example, len(tokens))


def _draw_places(grids: Sequence[Floats | None], places: int, draw: np.random.Generator) -> Floats:
    height, width, dim = next(grid for grid in grids if grid is not None).shape
    chosen = draw.choice(height * width, min(places, height * width), replace=False)
    flat = [
        np.zeros((len(chosen), dim), np.float32) if grid is None else grid.reshape(-1, dim)[chosen]
        for grid in grids
    ]
    return np.stack(flat, axis=1)  # (places, M, D)
