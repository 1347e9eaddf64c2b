"""Minimise an objective: on a CPU or a GPU, in one process or several, able to go on exactly.

All that is drawn in a step depends on the seed and the step alone, so a training that was killed
and goes on gives the weights, bit for bit, of one that was not. (On one kind of CPU, and as many
processes. A GPU adds up the gradients of sampled points in any order.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unim2_core.errors import ModelError
from unim2_core.learning.averaging import serving
from unim2_core.learning.checkpointing import (
    CHECKPOINT,
    Candidate,
    Facts,
    candidates_in,
    facts_of,
    load_candidate,
    load_checkpoint,
    remove_unfinished,
    save_candidate,
    save_checkpoint,
)
from unim2_core.learning.diagnostics import (
    Diverged,
    assigned_clusters,
    cluster_use,
    correspondences,
)
from unim2_core.learning.hardware import Process, open_machine
from unim2_core.learning.objective import Batch, Objective
from unim2_core.learning.observers import Observer, Progress, Status
from unim2_core.learning.schedule import TrainerConfig
from unim2_core.learning.training import Taken, Training

__all__ = ["Candidate", "Process", "Trained", "TrainerConfig", "load_candidate", "train"]

Pictures = Callable[[Objective], Mapping[str, NDArray[np.uint8]]]
Validate = Callable[[Objective], Mapping[str, float]]

NO_INFLUENCE = {"checkpoint_every", "log_every", "validate_every", "pictures_every", "device"}
"""Settings that may change when a training goes on; the weights do not depend on them."""


@dataclass(frozen=True)
class Trained:
    """A training that came to its end.

    Attributes:
        candidates: the snapshots, in order; the last is of the last step.
        resumed_from: steps that had been taken before; 0 = it began from nothing.
        checkpoint: the last state.
        scalars: what was logged last.
        seconds: that this process trained.
        device: ``cpu`` or ``cuda``.
        precision: ``fp32`` or ``bf16``.
    """

    candidates: tuple[Candidate, ...]
    resumed_from: int
    checkpoint: Path
    scalars: Mapping[str, float]
    seconds: float
    device: str
    precision: str


def train(
    objective: Objective,
    batches: Callable[[int], Batch],
    config: TrainerConfig,
    run: Path,
    *,
    observers: Sequence[Observer] = (),
    validate: Validate | None = None,
    pictures: Pictures | None = None,
    facts: Mapping[str, object] | None = None,
) -> Trained:
    """Train, or go on where a run directory says.

    Under ``torchrun`` every process calls this with its part of each batch; the gradient is that
    of the whole batch, and rank 0 alone writes, observes and validates.

    Args:
        objective: what to minimise, with the weights to begin with. Afterwards it holds the last
            weights (not their average) in eval mode, on the device; see ``load_candidate``.
        batches: gives the batch of a step, from 0, the same whenever it is asked.
        config: how.
        run: directory of ``last.ckpt`` and ``candidates/``.
        observers: told how it goes.
        validate: measures the weights that would be served, in eval mode, without gradient.
        pictures: draws what those weights see, (H, W, 3) uint8 by name.
        facts: what else decides the weights, say a digest of the data; a run directory that holds
            other facts is refused.

    Raises:
        ModelError: a loss or gradient is not finite; the run directory holds another training or
            a damaged state; the device is not there.
        Unim2Error: nothing can be written to ``run``, or an observer cannot be opened.
    """
    with (
        closing(open_machine(config.device, config.precision)) as machine,
        closing(Training(objective, batches, config, machine)) as training,
    ):
        decisive = decisive_facts(training, facts or {})
        resumed_from = _resume(training, run, decisive)
        began = time.monotonic()
        scalars: Mapping[str, float] = {}
        if training.done < config.steps:
            recorder = _Recorder(training, run, decisive, observers, validate, pictures)
            scalars = _train(training, recorder, run)
        machine.fabric.barrier()  # all files are written
        return Trained(
            candidates_in(run, decisive, config.candidate_steps),
            resumed_from,
            run / CHECKPOINT,
            scalars,
            time.monotonic() - began,
            machine.device,
            machine.precision,
        )


def decisive_facts(training: Training, others: Mapping[str, object]) -> Facts:
    """What decides the weights of a training."""
    objective, config, machine = training.objective, training.config, training.machine
    settings = {name: value for name, value in vars(config).items() if name not in NO_INFLUENCE}
    return facts_of(
        trainer=settings | {"precision": machine.precision},
        objective=objective.config,
        network=objective.segmenter.config,
        clusters=len(objective.cluster_probe.centers),
        classes=objective.linear_probe.out_channels,
        data=others,
    )


def _resume(training: Training, run: Path, facts: Facts) -> int:
    """Load what rank 0 sees in the run directory, in all processes."""
    process, state = training.machine.process, None
    if process.rank == 0:
        state = load_checkpoint(run, facts)
        candidates_in(run, facts, ())
        remove_unfinished(run)
    if process.world > 1:
        state = training.machine.fabric.broadcast(state)
    if state is not None:
        training.load(state)
    return training.done


def _train(training: Training, recorder: _Recorder, run: Path) -> Mapping[str, float]:
    """Take all steps that are left; returns the last scalars."""
    status: Status = "failed"
    try:
        recorder.start()
        while training.done < training.config.steps:
            recorder.record(training.step())
        status = "finished"
    except Diverged as error:
        path, step = run / CHECKPOINT, recorder.saved
        kept = f"the state after step {step} is kept in {path}" if step else "none was saved yet"
        raise ModelError(
            error.what,
            expected=error.expected,
            found=error.found,
            remedy=f"a lower rate or a clipped gradient, into another directory; {kept}",
        ) from error
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        recorder.close(status)
    return recorder.scalars


class _Recorder:
    """Writes and tells what there is after a step; in a process that is not rank 0, nothing.

    The state is written last: what was logged after the step to go on from is logged again.
    """

    def __init__(
        self,
        training: Training,
        run: Path,
        facts: Facts,
        observers: Sequence[Observer],
        validate: Validate | None,
        pictures: Pictures | None,
    ) -> None:
        self.training = training
        self.run = run
        self.facts = facts
        self.observers = observers
        self.validate = validate
        self.pictures = pictures
        self.writes = training.machine.process.rank == 0
        self.saved = self.first = training.done
        self.began = self.logged_s = time.monotonic()
        self.logged = training.done
        self.scalars: Mapping[str, float] = {}
        self._started: list[Observer] = []

    def start(self) -> None:
        """Tell all observers that it begins."""
        for observer in self.observers if self.writes else ():
            observer.start(self.facts, self.training.done)
            self._started.append(observer)

    def close(self, status: Status) -> None:
        """Tell all that it ends; one that fails does not keep the others open."""
        with ExitStack() as closing:
            for observer in self._started:
                closing.callback(observer.close, status)

    def record(self, taken: Taken) -> None:
        """Snapshot, log and save what is due after a step."""
        if not self.writes:
            return
        training, config, done = self.training, self.training.config, self.training.done
        scalars: dict[str, float] = {}
        if config.due(done, config.log_every):
            scalars |= self._log(taken)
        evaluates = self.validate is not None and config.due(done, config.validate_every)
        draws = bool(self._started) and config.due(done, config.pictures_every)
        snapshot = done in config.candidate_steps
        if evaluates or draws or snapshot:
            with serving(training.objective, training.average), torch.no_grad():
                if snapshot:
                    save_candidate(self.run, done, training.objective, self.facts)
                if draws:
                    scalars |= self._draw(taken)
                if evaluates and self.validate is not None:
                    scalars |= self.validate(training.objective)
        if scalars:
            self.scalars = scalars
        for observer in self._started:
            if scalars:
                observer.scalars(done, scalars)
            observer.progress(Progress(done, config.steps, taken.loss, self._seconds_left()))
        if config.due(done, config.checkpoint_every):
            save_checkpoint(self.run, self.facts, training.state())
            self.saved = done

    def _log(self, taken: Taken) -> dict[str, float]:
        now, done = time.monotonic(), self.training.done
        speed = (done - self.logged) / max(now - self.logged_s, 1e-9)
        self.logged, self.logged_s = done, now
        return {name: float(value) for name, value in taken.log.items()} | {
            "gradient/norm": taken.gradient_norm,
            "rate/network": taken.rates[0],
            "rate/probes": taken.rates[1],
            "speed/steps_per_s": speed,
        }

    def _draw(self, taken: Taken) -> dict[str, float]:
        """Show histograms and pictures of the weights that would be served."""
        objective, done = self.training.objective, self.training.done
        assigned = assigned_clusters(objective, taken.batch)
        values = {"clusters/assigned": assigned.flatten()}
        draws = taken.draws
        if self.training.machine.process.world > 1:  # it pairs with images of other processes
            draws = draws.paired_by_turns()
        values |= correspondences(objective, taken.batch, draws)
        images = self.pictures(objective) if self.pictures is not None else {}
        for observer in self._started:
            for name, value in values.items():
                observer.histogram(done, name, value.float().cpu().numpy())
            if images:
                observer.images(done, images)
        return cluster_use(assigned, len(objective.cluster_probe.centers))

    def _seconds_left(self) -> float:
        done, steps = self.training.done, self.training.config.steps
        return (time.monotonic() - self.began) / (done - self.first) * (steps - done)
