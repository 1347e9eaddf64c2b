"""How a model is learnt: the methods that can be compared, as configurations of one objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from unim2_core.errors import ModelError
from unim2_core.learning.correspondence import CorrespondenceConfig, Shifts
from unim2_core.learning.hardware import Device
from unim2_core.learning.objective import ModalityLoss, ObjectiveConfig, TermWeights
from unim2_core.learning.pairs import NeighborConfig
from unim2_core.learning.published import PublishedConfig, published
from unim2_core.learning.schedule import TrainerConfig
from unim2_core.learning.shifts import PulledShares
from unim2_core.model.segmenter import SegmenterConfig
from unim2_core.sensing.modalities import Preset

Method = Literal["unim2", "naive_fusion", "rgb_only", "kmeans"]
Prototypes = Literal["probe", "refitted"]
Choice = Literal["label_free", "last"]
Start = Literal["even", "published"]

STEPS = 600
BATCH = 32
CODE_DIM = 64
RATE = 2e-3
TERMS = TermWeights(own=0.3, knn=0.3, random=0.6)
SHARES = PulledShares(own=0.2, knn=0.1, random=0.05)
MODALITY_DROPOUT = 0.2
MOST_CLUSTERS = 254
SHOWN = 5
"""How often a training shows histograms, pictures and, where there are labels, figures."""


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a model, apart from the pictures.

    Attributes:
        method: ``unim2``; ``naive_fusion``: one loss on the concatenated features, no modality
            networks, no harmonizer; ``rgb_only``: the reference alone, as STEGO does; ``kmeans``:
            clusters of the features, nothing is trained.
        preset: ``paper``, to the letter, or ``robot``.
        clusters: K.
        network: form of the network.
        objective: what is minimised; its shifts are replaced where ``shares`` are given.
        trainer: how it is minimised.
        batch: pictures of a step.
        samples: S, to run the network on S x S drawn places of a picture; None: on all.
        neighbors: which pictures count as alike.
        shares: of the pairs that are to be pulled together, see ``measured_shifts``.
        prototypes: the trained cluster probe, or k-means on the codes of the served network.
        choice: how one of the candidates is chosen.
        standardize: whether tokens are standardised first.
        start: the network's first weights: ``even``, see ``start_evenly``, or PyTorch's, as
            published.
    """

    method: Method
    preset: Preset
    clusters: int
    network: SegmenterConfig
    objective: ObjectiveConfig
    trainer: TrainerConfig
    batch: int
    samples: int | None
    neighbors: NeighborConfig
    shares: PulledShares | None
    prototypes: Prototypes
    choice: Choice
    standardize: bool
    start: Start

    @property
    def title(self) -> str:
        """For manifests and logs."""
        names: Mapping[Method, str] = {
            "unim2": "UniM2",
            "naive_fusion": "naive fusion",
            "rgb_only": "reference only (STEGO)",
            "kmeans": "k-means, no training",
        }
        return names[self.method] + (" (paper)" if self.preset == "paper" else "")


def recipe(
    method: Method,
    modalities: tuple[str, ...],
    dim: int,
    clusters: int,
    *,
    preset: Preset = "robot",
    steps: int | None = None,
    seed: int = 0,
    baseline: bool = False,
    like: PublishedConfig | None = None,
    device: Device = "auto",
) -> Recipe:
    """The recipe of a method.

    Args:
        method: see ``Recipe``.
        modalities: what there is; the first is the reference.
        dim: width D of a token.
        clusters: K.
        preset: ``paper`` takes the published numbers, ``robot`` those of this module.
        steps: batches; None: 600, or the published number.
        seed: of everything that is drawn.
        baseline: the backbone is one for trying: its channels have no common scale.
        like: whose numbers ``paper`` takes; None: those of NYU with ViT-S.
        device: where to train.

    Raises:
        ModelError: the number of clusters cannot be used, or there is only one modality to fuse.
    """
    check_clusters(clusters)
    _check_method(method, modalities)
    names = modalities[:1] if method == "rgb_only" else modalities
    built = _paper if preset == "paper" else _robot
    made = built(method, names, dim, clusters, steps, seed, like)
    return replace(made, standardize=baseline, trainer=replace(made.trainer, device=device))


def _robot(
    method: Method,
    names: tuple[str, ...],
    dim: int,
    clusters: int,
    steps: int | None,
    seed: int,
    _: PublishedConfig | None,
) -> Recipe:
    several = len(names) > 1
    share = 1 / max(1, len(names) - 1)
    losses = {
        name: ModalityLoss(1.0 if name == names[0] else share, TERMS, Shifts(0, 0, 0))
        for name in names
    }
    joint = method == "naive_fusion"
    network = SegmenterConfig(
        modalities=names,
        feature_dim=dim,
        code_dim=min(CODE_DIM, max(2, 2 * dim // 3)),
        harmonizer="none" if joint else "per_modality",
        networks=not joint,
        stand_in=several,
    )
    count = steps or STEPS
    trainer = TrainerConfig(
        steps=count,
        rate=RATE,
        warmup_steps=min(50, count // 10),
        schedule="cosine",
        clip_norm=1.0,
        ema_decay=0.99,
        precision="auto",
        seed=seed,
        checkpoint_every=100,
        candidates=min(20, count),
        validate_every=max(1, count // SHOWN),
        pictures_every=max(1, count // SHOWN),
    )
    return Recipe(
        method=method,
        preset="robot",
        clusters=clusters,
        network=network,
        objective=ObjectiveConfig(
            losses,
            CorrespondenceConfig(cells=True, distinct_sources=True),
            modality_dropout=MODALITY_DROPOUT if several else 0.0,
            joint=joint,
        ),
        trainer=trainer,
        batch=BATCH,
        samples=CorrespondenceConfig.samples,
        neighbors=NeighborConfig(modalities="reference" if method == "rgb_only" else "all"),
        shares=SHARES,
        prototypes="refitted",
        choice="label_free",
        standardize=False,
        start="even",
    )


def _paper(
    method: Method,
    names: tuple[str, ...],
    dim: int,
    clusters: int,
    steps: int | None,
    seed: int,
    like: PublishedConfig | None,
) -> Recipe:
    like = like or published("nyu")
    first = like.objective.modalities[like.modalities[0]]
    other = like.objective.modalities[like.modalities[1]]
    joint = method == "naive_fusion"
    several = len(names) > 1
    count = steps or like.steps
    return Recipe(
        method=method,
        preset="paper",
        clusters=clusters,
        network=replace(
            like.segmenter,
            modalities=names,
            feature_dim=dim,
            fusion="conv" if joint or not several else like.segmenter.fusion,
            harmonizer="none" if joint else like.segmenter.harmonizer,
            networks=not joint,
        ),
        objective=replace(
            like.objective,
            modalities={name: first if name == names[0] else other for name in names},
            joint=joint,
        ),
        trainer=TrainerConfig(
            steps=count,
            rate=like.rate,
            seed=seed,
            candidates=min(20, count),
            checkpoint_every=200,
            validate_every=max(1, count // SHOWN),
            pictures_every=max(1, count // SHOWN),
        ),
        batch=like.batch,
        samples=None,
        neighbors=NeighborConfig.paper(),
        shares=None,
        prototypes="probe",
        choice="last",
        standardize=False,
        start="published",
    )


def check_clusters(clusters: int) -> None:
    """Refuse a number of clusters before any work is spent on it.

    Raises:
        ModelError: it cannot be used.
    """
    if not 2 <= clusters <= MOST_CLUSTERS:
        raise ModelError(
            "the number of clusters cannot be used",
            expected=f"2 to {MOST_CLUSTERS}",
            found=str(clusters),
            remedy="give another with --clusters",
        )


def _check_method(method: Method, modalities: tuple[str, ...]) -> None:
    if method not in get_args(Method) or (method == "naive_fusion" and len(modalities) < 2):
        raise ModelError(
            "there is nothing to fuse" if method == "naive_fusion" else "there is no such method",
            expected="two modalities or more for naive_fusion; else one of "
            + ", ".join(get_args(Method)),
            found=f"{method} of {', '.join(modalities)}",
            remedy="name more with --modalities, or choose another --method",
        )
