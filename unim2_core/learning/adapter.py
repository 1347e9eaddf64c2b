"""Streaming adaptation: each picture of a drive is seen once, and pays for a few gradient steps.

All that is drawn depends on the seed and on how many pictures and steps there were, so an
adaptation that was stopped and goes on gives the weights of one that was not.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.learning.anchored import AnchoredObjective
from unim2_core.learning.averaging import serving
from unim2_core.learning.buffer import ReplayBuffer, Sample
from unim2_core.learning.features import FeatureStore, Standardization
from unim2_core.learning.hardware import Device, Process, open_machine
from unim2_core.learning.memory import Memory, concatenated, is_held_out
from unim2_core.learning.methods import Method, recipe
from unim2_core.learning.pairs import Batches
from unim2_core.learning.schedule import TrainerConfig
from unim2_core.learning.shifts import measured_shifts, with_shifts
from unim2_core.learning.training import Taken, Training
from unim2_core.model.bundle import TRAINING, Bundle
from unim2_core.model.classifier import Classifier

FIRST_STEPS = 4
"""New pictures that must be there before the first step."""
NAIVE = "naive fusion"


@dataclass(frozen=True)
class AdapterConfig:
    """How a model is adapted.

    Attributes:
        steps_per_picture: gradient steps that each new picture pays for.
        rate: learning rate of the network; it rises over the first steps and then stays.
        batch: pictures of a step, old and new ones as the buffer has them.
        ema_decay: of the moving average of the weights, which is what may be served.
        staying: weight of staying with the served model on the old pictures.
        old_share: of the buffer, at least, once it is full.
        seed: of everything that is drawn.
        device: where to train.
    """

    steps_per_picture: int = 4
    rate: float = 5e-4
    batch: int = 16
    ema_decay: float = 0.99
    staying: float = 4.0
    old_share: float = 0.5
    seed: int = 0
    device: Device = "auto"

    def __post_init__(self) -> None:
        holds = {
            "steps_per_picture": self.steps_per_picture >= 1,
            "rate": 0 < self.rate < np.inf,
            "batch": self.batch >= 2,
            "ema_decay": 0 <= self.ema_decay < 1,
            "staying": 0 <= self.staying < np.inf,
            "old_share": 0 < self.old_share < 1,
        }
        wrong = [name for name, right in holds.items() if not right]
        if wrong:
            raise ModelError(
                f"the adaptation cannot be set up: {', '.join(wrong)}",
                expected="positive numbers, shares below 1",
                found=", ".join(str(getattr(self, name)) for name in wrong),
                remedy="give such values, or leave them out",
            )


class Adapter:
    """Learns from pictures as they come.

    Args:
        bundle: the model that is served.
        memory: what it remembers.
        config: how.
        expected: pictures that will come, at most.

    Attributes:
        taken: pictures so far, held-out ones included.
        served: the model that is served.
        buffer: what is learnt from.
        held: new pictures that are never learnt from.
        held_refused: near-duplicates of these.

    Raises:
        ModelError: nothing was trained that could be adapted, the memory is of another model, or
            there are several processes.
    """

    def __init__(
        self, bundle: Bundle, memory: Memory, config: AdapterConfig, expected: int
    ) -> None:
        if Process.current().world > 1:
            raise ModelError(
                "an adaptation is the work of one process",
                expected="one",
                found=f"{Process.current().world}, started by torchrun",
                remedy="run it without torchrun",
            )
        self.config, self.memory, self.expected = config, memory, max(1, expected)
        self.served = Classifier.load(bundle)
        if memory.modalities != self.served.modalities:
            raise ModelError(
                "what the model remembers is not of its modalities",
                expected=", ".join(self.served.modalities),
                found=", ".join(memory.modalities),
                remedy="give the drives that it was trained on with --old-bag",
            )
        self.standardization = Standardization(
            self.served.mean.numpy().copy(), self.served.scale.numpy().copy()
        )
        self.buffer = ReplayBuffer(
            memory.rehearsed, self.standardization, share=config.old_share, seed=config.seed
        )
        self.held: list[Sample] = []
        self.held_mirrored: list[Sample] = []
        self.held_refused = 0
        self._described: list[Tensor] = []
        self.taken = 0
        self._batches: Batches | None = None
        self._samples = 11
        state = training_state(bundle)
        self._training = self._started(bundle, state)
        self.first = {name: part.clone() for name, part in self._parameters.items()}
        network = self._training.objective.segmenter
        self._first_buffers = {name: part.cpu().clone() for name, part in network.named_buffers()}

    def _started(self, bundle: Bundle, state: Mapping[str, Tensor]) -> Training:
        config = self.config
        steps = max(2, config.steps_per_picture * self.expected)
        classes, centers = len(state["linear_probe.weight"]), len(state["cluster_probe.centers"])
        made = recipe(
            method_of(bundle.manifest.method, len(self.served.modalities)),
            self.served.modalities,
            self.served.segmenter.config.feature_dim,
            classes,
            seed=config.seed,
            device=config.device,
        )
        self._samples = made.samples or self._samples
        settings = replace(made.objective, extra_clusters=centers - classes)
        if any(name.startswith("decoder.") for name in state):
            settings = replace(settings, reconstruction=1.0)
        objective = AnchoredObjective(
            self.served, settings, classes, self.buffer.old, config.staying
        )
        objective.load_state_dict(dict(state))
        if made.shares is not None:
            batches = self.buffer.batches(config.batch, self._samples)
            shifts = measured_shifts(objective, batches, made.shares, config.seed)
            objective.config = with_shifts(settings, shifts)
        trainer = TrainerConfig(
            steps=steps,
            rate=config.rate,
            warmup_steps=min(20, steps // 4),
            clip_norm=1.0,
            ema_decay=config.ema_decay,
            seed=config.seed,
            candidates=1,
            device=config.device,
        )
        machine = open_machine(config.device, made.trainer.precision)
        return Training(objective, self._batch, trainer, machine)

    def _batch(self, step: int) -> Any:
        if self._batches is None:
            self._batches = self.buffer.batches(self.config.batch, self._samples)
        return self._batches(step)

    @property
    def steps(self) -> int:
        """Gradient steps so far."""
        return self._training.done

    @property
    def precision(self) -> str:
        """Of the network's matrix products."""
        return self._training.machine.precision

    @property
    def is_held(self) -> bool:
        """Whether the next picture is one that is never learnt from."""
        return is_held_out(self.taken, self.expected)

    def take(self, sample: Sample, mirrored: Sample | None = None) -> list[Taken]:
        """Take the next picture in; returns the steps that it paid for.

        Args:
            sample: the picture.
            mirrored: as seen in a mirror, where it is held out.

        Raises:
            ModelError: the loss or a gradient is not finite; no weight has been changed by it.
        """
        held = self.is_held
        self.taken += 1
        if held:
            described = self.buffer.describe(sample)
            if self.held and self.buffer.is_near(described, torch.stack(self._described)):
                self.held_refused += 1
                return []
            self.held.append(sample)
            self._described.append(described)
            if mirrored is not None:
                self.held_mirrored.append(mirrored)
            return []
        if not self.buffer.offer(sample):
            return []
        self._batches = None
        if self.buffer.filled < FIRST_STEPS:
            return []
        return [self._training.step() for _ in range(self.config.steps_per_picture)]

    def skip(self) -> None:
        """Count a picture that could not be used."""
        self.taken += 1

    @property
    def _parameters(self) -> dict[str, Tensor]:
        network = self._training.objective.segmenter
        return {name: part.detach() for name, part in network.named_parameters()}

    def adapted(self, share: float = 1.0) -> tuple[Classifier, dict[str, Tensor]]:
        """The model as it would be served, with the prototypes of the served one, and all weights.

        See ``regrouped`` for prototypes that fit it.

        Args:
            share: how far its network goes from the one that was adapted to the one that was
                learnt, 0 to 1: a straight line between weights (WiSE-FT; Wortsman et al., 2022).
        """
        training = self._training
        with serving(training.objective, training.average):
            objective = deepcopy(training.objective).cpu().eval()
        with torch.no_grad():
            network = objective.segmenter
            for name, part in network.named_parameters():
                part.copy_(self.first[name].cpu().lerp(part, share))
            for name, kept in network.named_buffers():  # means and variances of batch norms
                if kept.is_floating_point():
                    kept.copy_(self._first_buffers[name].lerp(kept, share))
        served = self.served
        made = Classifier(
            objective.segmenter, served.prototypes, served.mean, served.scale, served.valid
        )
        state = {name: part.detach().clone() for name, part in objective.state_dict().items()}
        return made, state

    def drift(self, adapted: Classifier) -> float:
        """Length of the change of all weights, of their length before."""
        now = dict(adapted.segmenter.named_parameters())
        moved = sum(
            float((now[n].detach().cpu() - p.cpu()).square().sum()) for n, p in self.first.items()
        )
        length = sum(float(part.square().sum()) for part in self.first.values())
        return float(np.sqrt(moved / max(length, 1e-12)))

    @property
    def new_held(self) -> FeatureStore | None:
        """The new pictures that are never learnt from."""
        return _joined(self.held)

    @property
    def new_held_mirrored(self) -> FeatureStore | None:
        """The same as seen in a mirror, where all are known."""
        whole = len(self.held_mirrored) == len(self.held)
        return _joined(self.held_mirrored) if whole else None

    def state(self) -> dict[str, Any]:
        """Everything that the next picture's steps depend on."""
        return {
            "taken": self.taken,
            "held_refused": self.held_refused,
            "training": self._training.state(),
            "buffer": self.buffer.state(),
            "held": [_packed(sample) for sample in self.held],
            "held_mirrored": [_packed(sample) for sample in self.held_mirrored],
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.taken, self.held_refused = state["taken"], state["held_refused"]
        self._training.load(state["training"])
        self.buffer.load(state["buffer"])
        self.held = [_unpacked(packed) for packed in state["held"]]
        self._described = [self.buffer.describe(sample) for sample in self.held]
        self.held_mirrored = [_unpacked(packed) for packed in state["held_mirrored"]]
        self._batches = None


def training_state(bundle: Bundle) -> dict[str, Tensor]:
    """All weights of a bundle, to go on learning from.

    Raises:
        ModelError: nothing was trained, or the file cannot be read.
    """
    try:
        return dict(load_file(bundle.file(TRAINING)))
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{bundle.path} cannot be adapted",
            expected=f"{TRAINING}, the weights to go on learning from",
            found=f"{bundle.manifest.method}: {error}",
            remedy="train a model with: unim2 train --method unim2",
        ) from error


def method_of(title: str, modalities: int) -> Method:
    """The method whose objective a model was trained with, by its title in the manifest."""
    if modalities == 1:
        return "rgb_only"
    return "naive_fusion" if title.startswith(NAIVE) else "unim2"


def _joined(samples: list[Sample]) -> FeatureStore | None:
    return concatenated(*(sample.store for sample in samples)) if samples else None


def _packed(sample: Sample) -> dict[str, Any]:
    return {
        "tokens": {name: torch.from_numpy(part.copy()) for name, part in sample.tokens.items()},
        "presence": {n: torch.from_numpy(part.copy()) for n, part in sample.presence.items()},
        "sequence": sample.sequence,
        "stamp_ns": sample.stamp_ns,
    }


def _unpacked(packed: Mapping[str, Any]) -> Sample:
    return Sample(
        {name: part.numpy() for name, part in packed["tokens"].items()},
        {name: part.numpy() for name, part in packed["presence"].items()},
        packed["sequence"],
        packed["stamp_ns"],
    )
