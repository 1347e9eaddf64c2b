"""The trained part of UniM2: fused features -> codes, and the Cross-modal Harmonizer (CMH).

The backbone is no part of it: its features are constants, computed once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unim2_core.errors import ModelError
from unim2_core.model.fusion import FusionKind, ModalityFusion, Normalization

Projection = Literal["nonlinear", "linear"]
Harmonization = Literal["per_modality", "shared", "none"]

SHARED = "shared"
"""Name of the harmonizer that serves all modalities."""


@dataclass(frozen=True)
class SegmenterConfig:
    """Form and size of the network.

    Attributes:
        modalities: their names; the first is the reference, normally ``rgb``.
        feature_dim: width D of the frozen features.
        code_dim: width d of a code.
        fusion: how the modalities become one map; ``progressive`` is the form used for MCubeS.
        normalization: of each modality before fusion.
        residual: whether a modality network adds its input.
        projection: ``linear`` leaves out the nonlinear branch of the head.
        harmonizer: one for each modality that is not the reference, one for all, or none.
        harmonize_reference: whether the reference, too, supervises a harmonized code.
        harmonize_others: whether the others do.
        dropout: probability that a channel is dropped in training.
        networks: whether each modality has a network of its own before fusion.
        stand_in: whether a learnt vector stands for a modality where it sees nothing; else zeros.
    """

    modalities: tuple[str, ...]
    feature_dim: int
    code_dim: int
    fusion: FusionKind = "conv"
    normalization: Normalization = "l2"
    residual: bool = False
    projection: Projection = "nonlinear"
    harmonizer: Harmonization = "per_modality"
    harmonize_reference: bool = False
    harmonize_others: bool = True
    dropout: float = 0.1
    networks: bool = True
    stand_in: bool = False

    def __post_init__(self) -> None:
        for name, kinds in (
            ("fusion", FusionKind),
            ("normalization", Normalization),
            ("projection", Projection),
            ("harmonizer", Harmonization),
        ):
            _require(getattr(self, name) in get_args(kinds), self, name, "one of", get_args(kinds))
        distinct = bool(self.modalities) and len(set(self.modalities)) == len(self.modalities)
        _require(distinct, self, "modalities", "at least one, each once")
        _require(SHARED not in self.modalities, self, "modalities", "no modality named", SHARED)
        _require(self.feature_dim >= 2, self, "feature_dim", "at least 2")
        _require(self.code_dim >= 1, self, "code_dim", "at least 1")
        _require(0 <= self.dropout < 1, self, "dropout", "at least 0 and less than 1")

    @property
    def reference(self) -> str:
        """The modality that others are measured against."""
        return self.modalities[0]

    @property
    def harmonized(self) -> tuple[str, ...]:
        """The modalities that supervise a harmonized code."""
        if self.harmonizer == "none" or len(self.modalities) == 1:
            return ()
        others = self.modalities[1:] if self.harmonize_others else ()
        return (self.modalities[:1] if self.harmonize_reference else ()) + others

    @property
    def draws(self) -> int:
        """How many dropout draws one pass takes."""
        return 3 if self.projection == "nonlinear" else 2


def _require(holds: bool, config: SegmenterConfig, name: str, *expected: object) -> None:
    if not holds:
        raise ModelError(
            f"the network cannot be built: {name}",
            expected=" ".join(map(str, expected)),
            found=repr(getattr(config, name)),
        )


class Segmented(NamedTuple):
    """What one pass gives, float32.

    Attributes:
        code: s, (B, d, h, w).
        fused: F, (B, D, h, w).
        returned: F after its own dropout draw, (B, D, h, w).
    """

    code: Tensor
    fused: Tensor
    returned: Tensor


class Segmenter(nn.Module):
    """Fusion, segmentation head and harmonizers.

    The head is A(drop F) + B(drop' F) with A linear and B of two layers; the harmonizer is
    d -> d -> d, applied to the code, used in the loss only.

    Args:
        config: its form and size.
    """

    def __init__(self, config: SegmenterConfig) -> None:
        super().__init__()
        self.config = config
        width, code = config.feature_dim, config.code_dim
        self.fusion = ModalityFusion(
            config.modalities,
            width,
            config.fusion,
            config.normalization,
            config.residual,
            config.networks,
            config.stand_in,
        )
        self.linear = nn.Conv2d(width, code, 1)
        self.nonlinear = (
            nn.Sequential(nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, code, 1))
            if config.projection == "nonlinear"
            else None
        )
        shared = config.harmonizer == SHARED
        names = (SHARED,) if shared and config.harmonized else config.harmonized
        self.harmonizers = nn.ModuleDict({name: harmonizer(code) for name in names})

    def forward(
        self,
        features: Mapping[str, Tensor],
        dropout_masks: Tensor | None = None,
        presence: Mapping[str, Tensor] | None = None,
    ) -> Segmented:
        """Compute the codes.

        Args:
            features: (B, D, h, w) float32 frozen features of each modality.
            dropout_masks: (draws, B, D), 1 where a channel is kept, else 0, in the order linear
                branch, nonlinear branch, returned features. Used in training only, where None
                draws them.
            presence: (B, h, w) float32 of each modality, 1 where it sees something, else 0; None =
                everywhere.

        Raises:
            ModelError: a modality is missing, has another width, or not all have one size.
        """
        self._check(features)
        fused = self.fusion(features, presence)
        if not self.training or self.config.dropout == 0:
            code = self.linear(fused)  # (B, d, h, w)
            if self.nonlinear is not None:
                code = code + self.nonlinear(fused)
            return Segmented(code, fused, fused)
        if dropout_masks is None:
            dropout_masks = self.draw_dropout_masks(len(fused), device=fused.device)
        scaled = dropout_masks[..., None, None] / (1 - self.config.dropout)  # (draws, B, D, 1, 1)
        code = self.linear(fused * scaled[0])  # (B, d, h, w)
        if self.nonlinear is not None:
            code = code + self.nonlinear(fused * scaled[1])
        return Segmented(code, fused, fused * scaled[-1])

    def draw_dropout_masks(
        self,
        batch: int,
        *,
        generator: torch.Generator | None = None,
        device: torch.device | None = None,
    ) -> Tensor:
        """Draw (draws, B, D) float32 masks for one pass: 1 keeps a channel, 0 drops it."""
        shape = (self.config.draws, batch, self.config.feature_dim)
        drawn = torch.rand(shape, generator=generator, device=device)
        return (drawn >= self.config.dropout).float()

    def supervised_codes(self, code: Tensor) -> dict[str, Tensor]:
        """The code that each modality supervises.

        Args:
            code: s, (B, d, h, w) float32.

        Returns:
            (B, d, h, w) for each modality: s, or s_X where it is harmonized.
        """
        codes = dict.fromkeys(self.config.modalities, code)
        if SHARED in self.harmonizers:
            return codes | dict.fromkeys(self.config.harmonized, self.harmonizers[SHARED](code))
        return codes | {name: network(code) for name, network in self.harmonizers.items()}

    def _check(self, features: Mapping[str, Tensor]) -> None:
        found = {name: tuple(tensor.shape) for name, tensor in features.items()}
        shapes = [found.get(name, ()) for name in self.config.modalities]
        fits = [len(shape) == 4 and shape[1] == self.config.feature_dim for shape in shapes]
        if not all(fits) or len(set(shapes)) > 1:
            raise ModelError(
                "the network cannot take these features",
                expected=f"(B, {self.config.feature_dim}, h, w), the same for each of "
                + ", ".join(self.config.modalities),
                found=", ".join(f"{name} {shape}" for name, shape in found.items()) or "none",
                remedy="encode all modalities at one size with the backbone of this model",
            )


def harmonizer(dim: int) -> nn.Sequential:
    """A Cross-modal Harmonizer: s (B, d, h, w) -> s_X (B, d, h, w)."""
    return nn.Sequential(nn.Conv2d(dim, dim, 1), nn.ReLU(), nn.Conv2d(dim, dim, 1))


def reconstruction_loss(reconstructed: Tensor, returned: Tensor) -> Tensor:
    """Negative mean cosine of two (B, D, h, w) maps, a scalar in [-1, 1]."""
    return -F.cosine_similarity(reconstructed, returned, dim=1).mean()


def start_evenly(network: nn.Module) -> None:
    """Give convolutions weights that keep the spread of what passes, and no bias.

    He et al., "Delving Deep into Rectifiers", 2015. From PyTorch's own start, each layer shrinks
    the differences between places and adds a bias that all share; behind the five or six layers
    from the tokens to a code little is left that tells the places apart.

    Args:
        network: its convolutions are changed in place.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
