"""What UniM2 minimises, and one step of doing so.

L = sum over modalities of w (a_self l_self + a_knn l_knn + a_rand l_rand), the terms of
``correspondence``, plus the losses of the probes, which do not reach the network, plus, as an
option, the reconstruction of the fused features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unim2_core.errors import ModelError
from unim2_core.learning.correspondence import (
    CorrespondenceConfig,
    Draws,
    Shifts,
    Terms,
    correspondence_terms,
    draw,
)
from unim2_core.learning.group import ALONE, Group
from unim2_core.model.probes import ClusterProbe, LinearProbe
from unim2_core.model.segmenter import Segmented, Segmenter, SegmenterConfig, reconstruction_loss

PROBE_RATE = 5e-3
"""Learning rate of both probes."""


class TermWeights(NamedTuple):
    """a of each term."""

    own: float
    knn: float
    random: float


@dataclass(frozen=True)
class ModalityLoss:
    """How one modality counts.

    Attributes:
        weight: w, of the whole modality.
        terms: a of each term.
        shifts: b of each term.
    """

    weight: float
    terms: TermWeights
    shifts: Shifts


@dataclass(frozen=True)
class ObjectiveConfig:
    """What is minimised.

    Attributes:
        modalities: the loss of each modality of the network.
        correspondence: form of the correspondence loss.
        reconstruction: weight of the reconstruction of the fused features, 0 for none.
        alpha: sharpness of a soft assignment to clusters; None for a hard one.
        extra_clusters: cluster centres beyond the number of classes.
        modality_dropout: probability that the network does not get to see a modality of an image,
            other than the reference. The loss still compares with it, so the network learns to
            do without.
        joint: naive fusion: one loss on the concatenation of all modalities, in the reference's
            place, instead of one for each.
    """

    modalities: Mapping[str, ModalityLoss]
    correspondence: CorrespondenceConfig = field(default_factory=CorrespondenceConfig)
    reconstruction: float = 0.0
    alpha: float | None = None
    extra_clusters: int = 0
    modality_dropout: float = 0.0
    joint: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.modality_dropout < 1:
            raise ModelError(
                "the objective cannot be formed",
                expected="a modality dropout of at least 0 and less than 1",
                found=f"{self.modality_dropout}",
            )
        if self.reconstruction < 0 or self.extra_clusters < 0 or (self.alpha or 1) <= 0:
            raise ModelError(
                "the objective cannot be formed",
                expected="no negative weight or number of extra clusters, a positive alpha",
                found=f"{self.reconstruction}, {self.extra_clusters}, {self.alpha}",
            )


class Batch(NamedTuple):
    """Images of one step, as frozen features; of many processes, the part of one.

    Attributes:
        anchors: (B, D, h, w) float32 of each modality.
        positives: the same of an image that looks like each.
        labels: (B, H, W) integers, only to measure with; None where there are none.
        salience: (B, h, w) masks of anchors and positives, where points are drawn from them; of
            the whole batch.
        presence: (B, h, w) float32 of each modality of anchors and positives, 1 where it sees
            something, else 0; None = everywhere.
        sources: (B,) int64, the picture that each anchor was cut from, of the whole batch; None =
            all different.
        indices: (B,) int64 rows of the anchors in their store, for messages.
        total: how many anchors the whole batch has; None: every process has as many as this one.
    """

    anchors: Mapping[str, Tensor]
    positives: Mapping[str, Tensor]
    labels: Tensor | None = None
    salience: tuple[Tensor, Tensor] | None = None
    presence: tuple[Mapping[str, Tensor], Mapping[str, Tensor]] | None = None
    sources: Tensor | None = None
    indices: Tensor | None = None
    total: int | None = None

    def presence_of(self, name: str) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """(B, h, w) of a modality of anchors and positives; None = everywhere."""
        if self.presence is None:
            return None, None
        return self.presence[0][name], self.presence[1][name]


class StepDraws(NamedTuple):
    """All randomness of one step.

    Attributes:
        correspondence: points and pairs of each modality.
        dropout: masks of the anchors' pass and of the positives', see ``Segmenter.forward``.
        shown: modality -> (2, B) float32, 0 where the network does not get to see it, of anchors
            and positives; None = it sees all.
    """

    correspondence: Mapping[str, Draws]
    dropout: tuple[Tensor, Tensor]
    shown: Mapping[str, Tensor] | None = None

    def of(self, rows: slice) -> StepDraws:
        """Those of some of the anchors."""
        return StepDraws(
            {name: drawn.of(rows) for name, drawn in self.correspondence.items()},
            (self.dropout[0][:, rows], self.dropout[1][:, rows]),
            None if self.shown is None else {n: part[:, rows] for n, part in self.shown.items()},
        )

    def paired_by_turns(self) -> StepDraws:
        """The same points; each image is paired with the one before it among those here."""
        paired = {name: drawn.paired_by_turns() for name, drawn in self.correspondence.items()}
        return self._replace(correspondence=paired)


class Objective(nn.Module):
    """The network, its probes, and the loss over a batch.

    Args:
        network: form of the network.
        config: what is minimised.
        classes: K.

    Raises:
        ModelError: ``config`` does not say how each modality of the network counts.
    """

    def __init__(self, network: SegmenterConfig, config: ObjectiveConfig, classes: int) -> None:
        super().__init__()
        missing = set(network.modalities) - set(config.modalities)
        if missing:
            raise ModelError(
                "the objective does not say how every modality counts",
                expected=f"weights for {', '.join(network.modalities)}",
                found=f"none for {', '.join(sorted(missing))}",
            )
        self.config = config
        self.segmenter = Segmenter(network)
        self.cluster_probe = ClusterProbe(network.code_dim, classes + config.extra_clusters)
        self.linear_probe = LinearProbe(network.code_dim, classes)
        self.decoder = (
            nn.Conv2d(network.code_dim, network.feature_dim, 1) if config.reconstruction else None
        )

    def draw(
        self,
        batch: Batch,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | None = None,
        group: Group = ALONE,
    ) -> StepDraws:
        """Draw everything for one step, points and pairs anew for each modality.

        Every process of a group draws for the whole batch, from an equal generator, and keeps
        what concerns its own rows.
        """
        size = len(next(iter(batch.anchors.values()))) if group.world == 1 else group.total
        points = {
            name: draw(
                size,
                self.config.correspondence,
                batch.salience,
                batch.sources,
                generator=generator,
                device=device,
            )
            for name in self.segmenter.config.modalities
        }
        anchor, positive = (
            self.segmenter.draw_dropout_masks(size, generator=generator, device=device)
            for _ in range(2)
        )
        shown = None
        if self.config.modality_dropout:
            shown = {
                name: (
                    torch.rand((2, size), generator=generator, device=device)
                    >= self.config.modality_dropout
                ).float()
                for name in self.segmenter.config.modalities[1:]
            }
        return StepDraws(points, (anchor, positive), shown).of(group.own)

    def forward(
        self, batch: Batch, draws: StepDraws, group: Group = ALONE
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute the loss.

        Args:
            batch: features, and labels where there are any.
            draws: all randomness.
            group: the processes that hold the whole batch.

        Returns:
            The total, a scalar with gradient, and every scalar worth logging, without. In many
            processes they and their gradients are such that their mean is that of the batch.
        """
        anchors = self.segmenter(batch.anchors, draws.dropout[0], self._seen(batch, draws, 0))
        positives = self.segmenter(batch.positives, draws.dropout[1], self._seen(batch, draws, 1))
        terms = self._terms(batch, anchors, positives, draws, group)
        log = {}
        totals = dict.fromkeys(Terms._fields, torch.zeros((), device=anchors.code.device))
        for name, modality_terms in terms.items():
            loss = self.config.modalities[name]
            for kind, term, weight in zip(Terms._fields, modality_terms, loss.terms, strict=True):
                log[f"loss/{kind}/{name}"] = term
                totals[kind] = totals[kind] + loss.weight * weight * term
            log[f"weight/{name}"] = torch.tensor(loss.weight)
        log |= {f"loss/{kind}": total for kind, total in totals.items()}
        total = torch.stack(list(totals.values())).sum()
        if self.decoder is not None:
            rebuilt = reconstruction_loss(self.decoder(anchors.code), anchors.returned)
            rebuilt = group.weighed(rebuilt)
            log["loss/reconstruction"] = rebuilt
            total = total + self.config.reconstruction * rebuilt
        labels = batch.labels
        if labels is not None:
            fit = self.linear_probe.loss(anchors.code, labels)
            log["loss/linear"] = group.weighed(
                fit, lambda: self.linear_probe.labelled(labels).sum()
            )
            total = total + log["loss/linear"]
        fit = self.cluster_probe(anchors.code, self.config.alpha)[0]
        log["loss/cluster"] = group.weighed(fit)
        total = total + log["loss/cluster"]
        log["loss/total"] = total
        return total, {name: value.detach() for name, value in log.items()}

    def _seen(self, batch: Batch, draws: StepDraws, part: int) -> dict[str, Tensor] | None:
        """What the network sees of the anchors (0) or positives (1); None = everything."""
        if batch.presence is None and draws.shown is None:
            return None
        seen = {}
        for name in self.segmenter.config.modalities:
            maps = batch.anchors[name]
            there = (
                torch.ones_like(maps[:, 0])
                if batch.presence is None
                else (batch.presence[part][name])
            )
            if draws.shown is not None and name in draws.shown:
                there = there * draws.shown[name][part][:, None, None]  # (B, h, w)
            seen[name] = there
        return seen

    def _terms(
        self,
        batch: Batch,
        anchors: Segmented,
        positives: Segmented,
        draws: StepDraws,
        group: Group,
    ) -> dict[str, Terms]:
        config = self.config.correspondence
        codes = self.segmenter.supervised_codes(anchors.code)
        codes_pos = self.segmenter.supervised_codes(positives.code)
        names = self.segmenter.config.modalities
        if self.config.joint:
            return {names[0]: self._joint_terms(batch, anchors, positives, draws, group)}
        terms = {}
        for name in names:
            features = (batch.anchors[name], batch.positives[name])
            if len(names) == 1:  # the published code compares with features after dropout here
                features = (anchors.returned, positives.returned)
            terms[name] = correspondence_terms(
                features,
                (codes[name], codes_pos[name]),
                draws.correspondence[name],
                self.config.modalities[name].shifts,
                config,
                weighted=config.weights(reference=name == names[0]),
                presence=batch.presence_of(name),
                group=group,
            )
        return terms

    def _joint_terms(
        self,
        batch: Batch,
        anchors: Segmented,
        positives: Segmented,
        draws: StepDraws,
        group: Group,
    ) -> Terms:
        """One loss for all modalities: their unit vectors side by side are the features."""
        names = self.segmenter.config.modalities

        seen = (None, None) if batch.presence is None else batch.presence
        joined = [
            side_by_side(maps, names, there)
            for maps, there in zip((batch.anchors, batch.positives), seen, strict=True)
        ]
        return correspondence_terms(
            (joined[0], joined[1]),
            (anchors.code, positives.code),
            draws.correspondence[names[0]],
            self.config.modalities[names[0]].shifts,
            self.config.correspondence,
            group=group,
        )


def side_by_side(
    maps: Mapping[str, Tensor], names: Sequence[str], presence: Mapping[str, Tensor] | None
) -> Tensor:
    """Unit vectors of all modalities, as naive fusion compares them.

    Args:
        maps: (B, D, h, w) float32 of each modality.
        names: of the modalities, in order.
        presence: (B, h, w) float32 of each, 1 where it sees something, else 0; None = everywhere.

    Returns:
        (B, M * D, h, w) float32, zeros where a modality sees nothing.
    """
    units = [F.normalize(maps[name], dim=1) for name in names]
    if presence is not None:
        units = [unit * presence[name][:, None] for unit, name in zip(units, names, strict=True)]
    return torch.cat(units, dim=1)


def build_optimizer(objective: Objective, rate: float) -> torch.optim.Adam:
    """Adam with a rate for the network and one for the probes.

    The release has three optimisers; Adam keeps its state for each tensor, so groups are equal.
    """
    probes = [*objective.cluster_probe.parameters(), *objective.linear_probe.parameters()]
    decoder = objective.decoder.parameters() if objective.decoder is not None else ()
    network = [*objective.segmenter.parameters(), *decoder]
    return torch.optim.Adam(
        [{"params": network, "lr": rate}, {"params": probes, "lr": PROBE_RATE}]
    )


def training_step(
    objective: Objective, optimizer: torch.optim.Optimizer, batch: Batch, draws: StepDraws
) -> dict[str, Tensor]:
    """Take one step; returns every scalar worth logging."""
    optimizer.zero_grad(set_to_none=True)
    total: Tensor
    log: dict[str, Tensor]
    total, log = objective(batch, draws)
    total.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return log


def reset_probes(objective: Objective, optimizer: torch.optim.Optimizer) -> None:
    """Let both probes begin anew, the optimiser's memory of them included."""
    for probe in (objective.cluster_probe, objective.linear_probe):
        probe.reset_parameters()
        for parameter in probe.parameters():
            optimizer.state.pop(parameter, None)
