"""Weights & Biases, online or into a folder that ``wandb sync`` uploads later."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import wandb
from numpy.typing import NDArray

from unim2_core.errors import Unim2Error
from unim2_core.files import write_atomically
from unim2_core.learning.observers import Observer, Status

IDENTITY = "wandb-id"
EXIT_CODES: Mapping[Status, int] = {"finished": 0, "interrupted": 255, "failed": 1}
"""255 is what W&B shows as killed."""


class WeightsAndBiases(Observer):
    """Logs a run; a training that goes on goes on in the same run there.

    Args:
        run: the run directory, where ``wandb/`` and the run's identity are kept.
        mode: ``offline`` needs neither network nor account.
        project: name of the project.
    """

    def __init__(self, run: Path, mode: Literal["online", "offline"], project: str) -> None:
        self.run = run
        self.mode = mode
        self.project = project
        self._run: Any = None

    def start(self, facts: Mapping[str, object], resumed_from: int) -> None:
        """Open the run.

        Raises:
            Unim2Error: nobody is logged in, or the server cannot be reached.
        """
        identity = self.run / IDENTITY
        if not identity.exists() or not resumed_from:
            write_atomically(identity, uuid.uuid4().hex[:12].encode())
        try:
            self._run = wandb.init(
                project=self.project,
                dir=self.run,
                id=identity.read_text(),
                name=self.run.name,
                config=dict(facts),
                mode=self.mode,
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(console="off", silent=True, disable_git=True),
            )
        except (wandb.errors.Error, OSError) as error:
            raise Unim2Error(
                "Weights & Biases cannot be logged to",
                expected="an account that this machine is logged in to, and a network",
                found=str(error).strip() or type(error).__name__,
                remedy="wandb login, or set WANDB_API_KEY; or log offline and upload later with "
                "wandb sync",
            ) from error
        # W&B's own step only ever grows; a training that goes on repeats some.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:  # noqa: D102
        self._log(step, values)

    def images(self, step: int, images: Mapping[str, NDArray[np.uint8]]) -> None:  # noqa: D102
        self._log(step, {name: wandb.Image(image) for name, image in images.items()})

    def histogram(self, step: int, name: str, values: NDArray[np.float32]) -> None:  # noqa: D102
        if values.size:
            self._log(step, {name: wandb.Histogram(values)})

    def close(self, status: Status) -> None:  # noqa: D102
        if self._run is not None:
            self._run.finish(exit_code=EXIT_CODES[status])
            self._run = None

    def _log(self, step: int, values: Mapping[str, object]) -> None:
        if self._run is not None:
            self._run.log({"step": step, **values})
