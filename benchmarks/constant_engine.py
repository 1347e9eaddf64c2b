"""The live node with an engine that answers at once, for what the node itself costs.

    python benchmarks/constant_engine.py --ros-args -p model:=NAME.unim2

Images are decoded, encoded, registered and published as ever; tokens and classes are constant.
"""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from unim2_core.inference import pipeline
from unim2_core.inference.engine import Classified, Engine
from unim2_core.model.bundle import Bundle
from unim2_ros.segment_node import main


class ConstantEngine(Engine):
    """An engine whose graphs are not run."""

    def __init__(self, bundle: Bundle, *rest: object) -> None:
        super().__init__(bundle, *rest)  # type: ignore[arg-type]
        manifest = bundle.manifest
        height, width = (side // manifest.stride for side in manifest.infer_size)
        self._classes = np.zeros((height, width), np.uint8)
        self._made: dict[tuple[int, ...], NDArray[np.float32]] = {}
        self._patch, self._width = manifest.backbone.patch_size, manifest.backbone.embed_dim

    def tokens(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Zeros of the right shape."""
        count, height, width, _ = images.shape
        shape = (count, height // self._patch, width // self._patch, self._width)
        if shape not in self._made:
            self._made[shape] = np.zeros(shape, np.float32)
        return self._made[shape]

    def classify(self, tokens: NDArray[np.float32], presence: NDArray[np.float32]) -> Classified:
        """Class 0 everywhere, and sure of it."""
        return Classified(self._classes, 255 - self._classes, self.heads.current.version)


if __name__ == "__main__":
    pipeline.Engine = ConstantEngine  # type: ignore[misc]
    sys.exit(main())
