"""Auxiliary modalities at half the resolution: a quarter of the backbone's work, or less.

What classes look like at their edges comes from the reference; thermal and depth cameras are often
coarser than it anyway. What it costs is measured by ``unim2 evaluate --half-auxiliaries``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError
from unim2_core.inference.engine import Engine
from unim2_core.model.bundle import Manifest, Size

Tokens = NDArray[np.float32]


class TokenReader:
    """Tokens of a modality's image, the reference's at full and others' at a chosen resolution.

    Args:
        engine: runs the backbone.
        manifest: of the model.
        size: height and width of the images that will come.
        half_auxiliaries: whether modalities of other sensors than the reference are halved.

    Raises:
        ModelError: images of that size cannot be halved.
    """

    def __init__(
        self, engine: Engine, manifest: Manifest, size: Size, half_auxiliaries: bool = False
    ) -> None:
        self._engine = engine
        self._halved: set[str] = set()
        if half_auxiliaries:
            _check_halves(size, manifest.backbone.patch_size)
            self._halved = {e.name for e in manifest.modalities if e.sensor != manifest.reference}
        # A backend may compile for a shape when it first comes: now, rather than in a frame. Whole
        # images one by one have come in the gate.
        height, width = size
        halved = len(self._halved)
        if engine.batched:
            for count in range(1, 1 + len(manifest.modalities) - halved):
                engine.tokens(np.zeros((count, height, width, 3), np.uint8))
        for count in range(1, 1 + (halved if engine.batched else min(halved, 1))):
            engine.tokens(np.zeros((count, height // 2, width // 2, 3), np.uint8))

    def __call__(self, images: Mapping[str, NDArray[np.uint8]]) -> dict[str, Tokens]:
        """Compute tokens, of several modalities at once where the engine is faster so.

        Args:
            images: modality -> (H, W, 3) uint8, encoded.

        Returns:
            modality -> (h, w, D) float32 in the full grid, whatever was computed.
        """
        full = [name for name in images if name not in self._halved]
        halved = [name for name in images if name in self._halved]
        found = dict(zip(full, self._tokens([images[name] for name in full]), strict=True))
        small = self._tokens([_half(images[name]) for name in halved])
        for name, tokens in zip(halved, small, strict=True):
            found[name] = doubled(doubled(tokens, 0), 1)
        return {name: found[name] for name in images}

    def _tokens(self, images: Sequence[NDArray[np.uint8]]) -> list[Tokens]:
        if self._engine.batched and images:
            return list(self._engine.tokens(np.stack(images)))
        return [self._engine.tokens(image[None])[0] for image in images]


def _check_halves(size: Size, patch: int) -> None:
    step = 2 * patch
    height, width = size
    if height % step or width % step:
        raise ModelError(
            "the auxiliary modalities cannot be halved",
            expected=f"images in multiples of {step} pixels",
            found=f"{height}x{width}",
            remedy=f"train with --size in multiples of {step}, or leave this option out",
        )


def _half(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    size = (image.shape[1] // 2, image.shape[0] // 2)
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def doubled(tokens: Tokens, axis: int) -> Tokens:
    """Twice as many along an axis, bilinearly, centres kept and edges repeated.

    OpenCV resizes no more than 128 channels, and a token has more.

    Args:
        tokens: float32, any shape.
        axis: that becomes twice as long.
    """
    moved = np.moveaxis(tokens, axis, 0)
    before = np.concatenate([moved[:1], moved[:-1]])
    after = np.concatenate([moved[1:], moved[-1:]])
    pair = np.stack([0.25 * before + 0.75 * moved, 0.75 * moved + 0.25 * after], axis=1)
    joined: Tokens = np.moveaxis(pair.reshape(-1, *moved.shape[1:]), 0, axis)
    return joined
