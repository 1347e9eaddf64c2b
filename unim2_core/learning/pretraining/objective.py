"""What the small transformer learns from: hidden simple features, and other views of a place.

Two losses. Half of the patches are hidden, and what the simple features say of them is to be
told, as in MaskFeat (Wei et al., 2022, https://arxiv.org/abs/2112.09133). And a place is to be
assigned to the same prototype as a moving average of the network assigns it in an overlapping
crop, often of another sensor; assignments are balanced by Sinkhorn's algorithm, as in SwAV (Caron
et al., 2020, https://arxiv.org/abs/2006.09882). From there, too, the simple features of that
other crop are told: what a place looks like to another sensor follows from what it is.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unim2_core.learning.pretraining.views import Views
from unim2_core.model.backbone import DinoV3
from unim2_core.model.texture import WINDOWS, TextureFeatures

TARGET_WINDOWS = 3
"""Of the simple features' windows, those that fit into a crop."""
TARGETS = TextureFeatures.embed_dim * TARGET_WINDOWS // len(WINDOWS)
CODE = 128
SINKHORN_ROUNDS = 3


@dataclass(frozen=True)
class PretrainWeights:
    """How the losses count.

    Attributes:
        hidden: of the simple features of hidden patches.
        assigned: of the prototypes.
        told: of the simple features of the other crop.
        prototypes: how many there are.
        student_temperature: divides the student's cosines.
        teacher_temperature: divides the teacher's cosines.
    """

    hidden: float = 1.0
    assigned: float = 0.2
    told: float = 1.0
    prototypes: int = 512
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04


class PretrainObjective(nn.Module):
    """The student with its heads, and its teacher, which no gradient reaches.

    Args:
        transformer: the student, with the weights to begin with.
        modalities: how many a scene may have.
        weights: of the losses.
        mean: (TARGETS,) of the simple features that are to be told.
        scale: (TARGETS,) of them, multiplied.
        bf16: whether the transformers' matrix products run in bfloat16; losses never do.
    """

    target_mean: Tensor
    target_scale: Tensor

    def __init__(
        self,
        transformer: DinoV3,
        modalities: int,
        weights: PretrainWeights,
        mean: Tensor,
        scale: Tensor,
        *,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        dim = transformer.embed_dim
        self.weights, self.modalities, self.bf16 = weights, modalities, bf16
        self.student = transformer.train().requires_grad_(True)
        self.hidden_head = nn.Linear(dim, TARGETS)
        self.told_head = nn.Linear(dim, modalities * TARGETS)
        self.project = nn.Linear(dim, CODE)
        self.prototypes = nn.Parameter(torch.randn(weights.prototypes, CODE))
        self.teacher = deepcopy(self.student).requires_grad_(False).eval()
        self.teacher_project = deepcopy(self.project).requires_grad_(False)
        self.texture = TextureFeatures().requires_grad_(False)
        self.register_buffer("target_mean", mean)
        self.register_buffer("target_scale", scale)

    def forward(self, views: Views, assigned: float) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch.

        Args:
            views: the batch.
            assigned: what the loss of the prototypes is multiplied with: 0 while they are noise.

        Returns:
            The total, and each loss by name without its weight.
        """
        weights = self.weights
        tokens = self._tokens(self.student, views.seen, views.masked)
        log = {"hidden": self._hidden(tokens, views)}
        total = weights.hidden * log["hidden"]
        places = sampled(tokens, views.seen_at)  # (B, P, D)
        if weights.told:
            log["told"] = self._told(places, views)
            total = total + weights.told * log["told"]
        if weights.assigned and assigned:
            log["assigned"], log["used"] = self._assigned(places, views)
            total = total + assigned * weights.assigned * log["assigned"]
        return total, log

    def _tokens(self, network: DinoV3, images: Tensor, masked: Tensor | None = None) -> Tensor:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.bf16):
            tokens: Tensor = network.forward_features(images, masked=masked).layers[0]
        return tokens.float()

    def _targets(self, images: Tensor) -> Tensor:
        """(B, h, w, TARGETS) simple features, standardized."""
        simple: Tensor = self.texture(images)
        return (simple[..., :TARGETS] - self.target_mean) * self.target_scale

    def _hidden(self, tokens: Tensor, views: Views) -> Tensor:
        found = self.hidden_head(tokens[views.masked])
        return F.smooth_l1_loss(found, self._targets(views.clean)[views.masked])

    def _told(self, places: Tensor, views: Views) -> Tensor:
        wanted = sampled(self._targets(views.taught), views.taught_at)
        every = self.told_head(places).unflatten(-1, (self.modalities, TARGETS))
        index = views.taught_modality[:, None, None, None].expand(-1, every.shape[1], 1, TARGETS)
        found = every.gather(2, index)[:, :, 0]  # (B, P, TARGETS)
        loss = F.smooth_l1_loss(found, wanted, reduction="none").mean(-1)
        return (loss * views.weight).sum() / views.weight.sum().clamp(min=1)

    def _assigned(self, places: Tensor, views: Views) -> tuple[Tensor, Tensor]:
        weights, there = self.weights, views.weight.bool()
        prototypes = F.normalize(self.prototypes, dim=1)
        with torch.no_grad():
            taught = self._tokens(self.teacher, views.taught)
            codes = self.teacher_project(sampled(taught, views.taught_at)[there])
            cosines = F.normalize(codes, dim=1) @ prototypes.T  # (n, prototypes)
            wanted = balanced(cosines / weights.teacher_temperature)
        codes = F.normalize(self.project(places[there]), dim=1)
        found = (codes @ prototypes.T / weights.student_temperature).log_softmax(dim=1)
        used = wanted.argmax(dim=1).bincount(minlength=len(prototypes)) > 0
        return -(wanted * found).sum(dim=1).mean(), used.float().mean()

    @torch.no_grad()
    def follow(self, decay: float) -> None:
        """Move the teacher towards the student; its weights times ``decay`` stay."""
        for teacher, student in (
            (self.teacher, self.student),
            (self.teacher_project, self.project),
        ):
            own = [p.detach() for p in teacher.parameters()]
            torch._foreach_lerp_(own, [p.detach() for p in student.parameters()], 1 - decay)


def sampled(tokens: Tensor, places: Tensor) -> Tensor:
    """Tokens (B, h, w, D) at places (B, P, 2) in [-1, 1], bilinearly: (B, P, D)."""
    grid = tokens.permute(0, 3, 1, 2)
    found = F.grid_sample(grid, places[:, None], padding_mode="border", align_corners=False)
    return found[:, :, 0].transpose(1, 2)


def balanced(logits: Tensor) -> Tensor:
    """Assignments (n, K) of logits (n, K): rows sum to 1, every column gets as much (Sinkhorn)."""
    assignment = (logits - logits.max()).exp()
    rows, columns = assignment.shape
    for _ in range(SINKHORN_ROUNDS):
        assignment = assignment / assignment.sum(dim=0, keepdim=True).clamp(min=1e-12) / columns
        assignment = assignment / assignment.sum(dim=1, keepdim=True).clamp(min=1e-12) / rows
    return assignment * rows
