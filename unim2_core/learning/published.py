"""The published configurations: what was trained on which data set, with which numbers.

UniM2 (ECCV 2026) and its release. The release gives one file for each data set: NYU with ViT-S,
MFNet with ViT-B, MCubeS with RGB and AoLP. The others of the paper's tables (NYU with ViT-B, MFNet
with ViT-S, MCubeS with other modalities) have no published numbers of their own: they take those
of their data set, every modality that is not RGB those of the one that is published.
"""

from __future__ import annotations

from dataclasses import dataclass

from unim2_core.errors import ModelError
from unim2_core.learning.correspondence import Shifts
from unim2_core.learning.objective import ModalityLoss, ObjectiveConfig, TermWeights
from unim2_core.model.fusion import FusionKind
from unim2_core.model.segmenter import SegmenterConfig

BATCH = 32

_WIDTHS = {"dinov3_vits16": 384, "dinov3_vitb16": 768}
_BACKBONES = {"S": "dinov3_vits16", "B": "dinov3_vitb16"}
_LETTERS = {"I": "rgb", "N": "nir", "A": "aolp", "D": "dolp"}


@dataclass(frozen=True)
class PublishedConfig:
    """One published training.

    Attributes:
        data: name of the data set.
        variant: ``S`` or ``B``, the backbone; for MCubeS its modalities: I is RGB (intensity),
            N near infrared, A and D angle and degree of polarization.
        backbone: name of the architecture.
        classes: K.
        rate: learning rate of the network.
        steps: batches.
        batch: images in a batch.
        segmenter: form of the network.
        objective: what is minimised.
        own_numbers: whether these numbers were published for this variant.
    """

    data: str
    variant: str
    backbone: str
    classes: int
    rate: float
    steps: int
    batch: int
    segmenter: SegmenterConfig
    objective: ObjectiveConfig
    own_numbers: bool

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names; the first is the reference."""
        return self.segmenter.modalities

    @property
    def code_dim(self) -> int:
        """Width d of a code."""
        return self.segmenter.code_dim


@dataclass(frozen=True)
class _Table:
    """A column of the published table."""

    variants: tuple[str, ...]  # the first is the published one
    code_dim: int
    rate: float
    steps: int
    fusion: FusionKind
    rgb: ModalityLoss
    other: ModalityLoss


_NYU = _Table(
    variants=("S", "B"),
    code_dim=70,
    rate=5e-4,
    steps=3334,
    fusion="conv",
    rgb=ModalityLoss(
        weight=0.1356,
        terms=TermWeights(knn=0.1671, own=0.0957, random=0.9005),
        shifts=Shifts(random=0.5664, knn=0.6222, own=0.7199),
    ),
    other=ModalityLoss(
        weight=0.8889,
        terms=TermWeights(knn=0.2995, own=0.6550, random=0.0550),
        shifts=Shifts(random=0.2440, knn=0.4318, own=0.1328),
    ),
)
_MFNET = _Table(
    variants=("B", "S"),
    code_dim=90,
    rate=7.88e-5,
    steps=4334,
    fusion="conv",
    rgb=ModalityLoss(
        weight=0.0478,
        terms=TermWeights(knn=0.3334, own=0.0606, random=0.9262),
        shifts=Shifts(random=0.7760, knn=0.7800, own=0.9607),
    ),
    other=ModalityLoss(
        weight=0.4922,
        terms=TermWeights(knn=0.9124, own=0.2388, random=0.5064),
        shifts=Shifts(random=0.5540, knn=0.2864, own=0.0096),
    ),
)
_MCUBES = _Table(
    variants=("IA", "IN", "ID", "IND", "INAD"),
    code_dim=320,
    rate=1.59e-5,
    steps=1334,
    fusion="progressive",
    rgb=ModalityLoss(
        weight=0.4046,
        terms=TermWeights(knn=0.0705, own=0.2237, random=0.7443),
        shifts=Shifts(random=0.6375, knn=0.2830, own=0.7865),
    ),
    other=ModalityLoss(
        weight=0.3052,
        terms=TermWeights(knn=0.5528, own=0.5756, random=0.4637),
        shifts=Shifts(random=0.3037, knn=0.6230, own=0.4694),
    ),
)
_TABLES = {
    "nyu": (_NYU, 13, ("rgb", "depth")),
    "nyu4": (_NYU, 4, ("rgb", "depth")),
    "mfnet": (_MFNET, 8, ("rgb", "thermal")),
    "mcubes": (_MCUBES, 20, ()),
}


def published(data: str, variant: str | None = None) -> PublishedConfig:
    """The configuration of a data set.

    Args:
        data: ``nyu``, ``nyu4``, ``mfnet`` or ``mcubes``.
        variant: see ``PublishedConfig``; None: the one that the release has.

    Raises:
        ModelError: there is no such data set or variant.
    """
    if data not in _TABLES or (variant and variant not in _TABLES[data][0].variants):
        raise ModelError(
            "nothing like this was published",
            expected="; ".join(
                f"{name}: {', '.join(table.variants)}" for name, (table, _, _) in _TABLES.items()
            ),
            found=f"{data}: {variant or 'any'}",
            remedy="name a data set of the paper, or train with the preset robot",
        )
    table, classes, modalities = _TABLES[data]
    variant = variant or table.variants[0]
    backbone = _BACKBONES.get(variant, _BACKBONES["S"])
    modalities = modalities or tuple(_LETTERS[letter] for letter in variant)
    losses = {name: table.rgb if name == "rgb" else table.other for name in modalities}
    return PublishedConfig(
        data=data,
        variant=variant,
        backbone=backbone,
        classes=classes,
        rate=table.rate,
        steps=table.steps,
        batch=BATCH,
        segmenter=SegmenterConfig(
            modalities=modalities,
            feature_dim=_WIDTHS[backbone],
            code_dim=table.code_dim,
            fusion=table.fusion,
            normalization="l2",
            harmonizer="shared",  # the release's; the paper speaks of one for each modality
        ),
        objective=ObjectiveConfig(modalities=losses),
        own_numbers=variant == table.variants[0] and data != "nyu4",
    )
