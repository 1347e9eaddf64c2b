"""The objective of an adaptation: that of training, and staying where the served model was."""

from __future__ import annotations

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor

from unim2_core.learning.group import ALONE, Group
from unim2_core.learning.objective import Batch, Objective, ObjectiveConfig, StepDraws
from unim2_core.model.classifier import Classifier

TEMPERATURE = 0.1
"""Of the softmax over the cosines to the classes."""


class AnchoredObjective(Objective):
    """CMCS on old and new pictures, and on the old ones the classes that the served model gives.

    Without the second part nothing ties a code to the class that it had: the loss looks at pairs
    of codes alone, and whatever turns all of them is free.

    Args:
        served: the model that is served; it does not change.
        config: what is minimised.
        classes: as the served model was trained with.
        remembered: rows of the batches' store below it are of the old domain.
        weight: of staying, 0 for none.
    """

    def __init__(
        self,
        served: Classifier,
        config: ObjectiveConfig,
        classes: int,
        remembered: int,
        weight: float,
    ) -> None:
        super().__init__(served.segmenter.config, config, classes)
        self._served = (deepcopy(served),)  # in a tuple, so that it is no part of this module
        self._remembered, self._weight = remembered, weight

    def forward(
        self, batch: Batch, draws: StepDraws, group: Group = ALONE
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss, see ``Objective.forward``; for one process alone.

        Raises:
            ValueError: there are several.
        """
        if group.world > 1:
            raise ValueError("an adaptation is of one process")
        total, log = super().forward(batch, draws)
        if self._weight and batch.indices is not None:
            old = torch.nonzero(batch.indices < self._remembered).flatten()
            if len(old):
                staying = self._staying(batch, old)
                log["loss/staying"] = staying.detach()
                total = total + self._weight * staying
                log["loss/total"] = total.detach()
        return total, log

    def _staying(self, batch: Batch, rows: Tensor) -> Tensor:
        """Kullback-Leibler divergence of the classes' shares from the served model's, a scalar."""
        served = self._served[0].to(rows.device)
        features = {name: maps[rows] for name, maps in batch.anchors.items()}
        seen = None
        if batch.presence is not None:
            seen = {name: there[rows] for name, there in batch.presence[0].items()}
        prototypes = served.prototypes[served.valid > 0][:, :, None, None]

        def shares(code: Tensor) -> Tensor:
            cosines = F.conv2d(F.normalize(code, dim=1), prototypes)
            return (cosines / TEMPERATURE).log_softmax(dim=1)

        with torch.no_grad():
            wanted = shares(served.segmenter(features, presence=seen).code)
        config = self.segmenter.config
        # The dropout's scale is divided out: this pass drops nothing.
        whole = torch.full((config.draws, len(rows), config.feature_dim), 1 - config.dropout).to(
            next(iter(features.values()))
        )
        code = self.segmenter(features, whole, seen).code
        divergence = F.kl_div(shares(code), wanted, reduction="none", log_target=True)
        return divergence.sum(dim=1).mean()
