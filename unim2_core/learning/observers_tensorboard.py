"""TensorBoard: ``tensorboard --logdir RUN`` shows a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard.writer import SummaryWriter

from unim2_core.learning.observers import Observer, Status


class TensorBoard(Observer):
    """Writes event files.

    Args:
        folder: where to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._writer: SummaryWriter | None = None

    def start(self, facts: Mapping[str, object], resumed_from: int) -> None:  # noqa: D102
        # What was written after the step to go on from is shown no more.
        self._writer = SummaryWriter(str(self.folder), purge_step=resumed_from + 1)
        if not resumed_from:
            rows = [f"| {name} | {value} |" for name, value in facts.items()]
            table = "\n".join(["| setting | value |", "|---|---|", *rows])
            self._writer.add_text("settings", table, 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:  # noqa: D102
        for name, value in values.items():
            if self._writer is not None:
                self._writer.add_scalar(name, value, step)

    def images(self, step: int, images: Mapping[str, NDArray[np.uint8]]) -> None:  # noqa: D102
        for name, image in images.items():
            if self._writer is not None:
                self._writer.add_image(name, image, step, dataformats="HWC")

    def histogram(self, step: int, name: str, values: NDArray[np.float32]) -> None:  # noqa: D102
        if self._writer is not None and values.size:
            self._writer.add_histogram(name, values, step)

    def close(self, status: Status) -> None:  # noqa: D102
        if self._writer is not None:
            self._writer.close()
            self._writer = None
