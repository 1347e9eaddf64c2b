"""Auxiliary modalities at half the resolution: a quarter of the backbone's work, or less.

What classes look like at their edges comes from the reference; thermal and depth cameras are often
coarser than it anyway. What it costs is measured by ``unim2 evaluate --half-auxiliaries``.
"""

from __future__ import annotations

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
        if not half_auxiliaries:
            return
        step = 2 * manifest.backbone.patch_size
        height, width = size
        if height % step or width % step:
            raise ModelError(
                "the auxiliary modalities cannot be halved",
                expected=f"images in multiples of {step} pixels",
                found=f"{height}x{width}",
                remedy=f"train with --size in multiples of {step}, or leave this option out",
            )
        self._halved = {e.name for e in manifest.modalities if e.sensor != manifest.reference}
        # A backend may compile for a size when it first comes: now, rather than in a frame.
        engine.tokens(np.zeros((1, height // 2, width // 2, 3), np.uint8))

    def __call__(self, name: str, image: NDArray[np.uint8]) -> Tokens:
        """Compute tokens.

        Args:
            name: of the modality.
            image: (H, W, 3) uint8, encoded.

        Returns:
            (h, w, D) float32 in the full grid, whatever was computed.
        """
        if name not in self._halved:
            tokens: Tokens = self._engine.tokens(image[None])[0]
            return tokens
        size = (image.shape[1] // 2, image.shape[0] // 2)
        small = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        return doubled(doubled(self._engine.tokens(small[None])[0], 0), 1)


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
