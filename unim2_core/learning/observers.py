"""Who is told how a training goes: log books, progress bars, and the file of its history."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import Unim2Error
from unim2_core.files import cannot_write, write_atomically

Status = Literal["finished", "interrupted", "failed"]
Wandb = Literal["off", "offline", "online"]

HISTORY = "history.jsonl"
BINS = 20


class Progress(NamedTuple):
    """How far a training is.

    Attributes:
        done: steps that have been taken.
        total: steps that there are to take.
        loss: total loss of the last step.
        seconds_left: estimate from the steps of this process.
    """

    done: int
    total: int
    loss: float
    seconds_left: float


class Observer:
    """Told of a training by its process of rank 0; inherit and override what is of interest."""

    def start(self, facts: Mapping[str, object], resumed_from: int) -> None:
        """The training begins, or goes on, after ``resumed_from`` steps; facts are flat."""

    def progress(self, progress: Progress) -> None:
        """A step has been taken."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers after so many steps."""

    def images(self, step: int, images: Mapping[str, NDArray[np.uint8]]) -> None:
        """Pictures (H, W, 3) uint8 after so many steps."""

    def histogram(self, step: int, name: str, values: NDArray[np.float32]) -> None:
        """A flat array of float32 whose distribution is of interest."""

    def close(self, status: Status) -> None:
        """The training has ended so; called once where ``start`` was, whatever happened."""


class History(Observer):
    """JSON lines: one object for each set of scalars and each histogram.

    A training that goes on from step n drops what was written after step n, so that the file is
    that of a training that was never stopped. Values that are not finite are null.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def start(self, facts: Mapping[str, object], resumed_from: int) -> None:  # noqa: D102
        kept = [line for line in read_history(self.path) if line["step"] <= resumed_from]
        write_atomically(self.path, "".join(_line(line) for line in kept).encode())
        self._file = self.path.open("a", encoding="utf-8")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:  # noqa: D102
        self._append({"step": step, "scalars": dict(values)})

    def histogram(self, step: int, name: str, values: NDArray[np.float32]) -> None:  # noqa: D102
        finite = values[np.isfinite(values)]
        counts, edges = np.histogram(finite, BINS)
        bins = {"counts": counts.tolist(), "edges": edges.astype(float).tolist()}
        self._append({"step": step, "histogram": name, **bins})

    def close(self, status: Status) -> None:  # noqa: D102
        if self._file is not None:
            self._file.close()
            self._file = None

    def _append(self, content: Mapping[str, object]) -> None:
        if self._file is None:
            return
        try:
            self._file.write(_line(content))
            self._file.flush()
        except OSError as error:
            raise cannot_write(self.path, error) from error


def _line(content: Mapping[str, object]) -> str:
    def finite(value: object) -> object:
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(dict(content)), allow_nan=False) + "\n"


def read_history(path: Path) -> list[dict[str, Any]]:
    """What a history file holds, without a last line that a killed process left half-written.

    Raises:
        Unim2Error: the file is not a history.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines[:-1], start=1):  # the last ends in no line break
        try:
            content = json.loads(line)
            content["step"] + 0
        except (ValueError, KeyError, TypeError) as error:
            raise Unim2Error(
                f"{path} is not the history of a training",
                expected="a JSON object with a step in each line",
                found=f"line {number}: {line[:40].decode(errors='replace')!r}",
                remedy="remove the file, or train into another directory",
            ) from error
        found.append(content)
    return found


def open_observers(
    run: Path, *, tensorboard: bool = False, wandb: Wandb = "off", project: str = "unim2"
) -> tuple[Observer, ...]:
    """The log books of a run directory; its history is always kept.

    Args:
        run: the directory.
        tensorboard: whether to write event files into ``run/tensorboard``.
        wandb: whether to log to Weights & Biases, or into ``run/wandb`` to be synced later.
        project: name of the project there.

    Raises:
        Unim2Error: a library that is asked for is not installed.
    """
    observers: list[Observer] = [History(run / HISTORY)]
    try:
        if tensorboard:
            from unim2_core.learning.observers_tensorboard import TensorBoard

            observers.append(TensorBoard(run / "tensorboard"))
        if wandb != "off":
            from unim2_core.learning.observers_wandb import WeightsAndBiases

            observers.append(WeightsAndBiases(run, wandb, project))
    except ImportError as error:
        raise Unim2Error(
            "a log book that is asked for cannot be opened",
            expected="tensorboard and wandb, where they are asked for",
            found=str(error),
            remedy="pip install 'unim2[train]'",
        ) from error
    return tuple(observers)
