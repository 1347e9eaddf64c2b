"""A model without training: k-means on the tokens of a frozen backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError
from unim2_core.learning.kmeans import Clusters, fit_clusters
from unim2_core.learning.sampling import TokenSample, sample_tokens
from unim2_core.model.bundle import BackboneEntry, Label, Manifest, ModalityEntry
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.modalities import MODALITIES, Encoder, Preset
from unim2_core.sensing.registrar import Registrar
from unim2_core.sensing.resampling import covering_size
from unim2_core.showing.palette import distinct_colors

SHORT_SIDE = 320
MULTIPLE = 16
PLACES = 400
"""Tokens drawn from each frame set."""


@dataclass(frozen=True)
class KMeansConfig:
    """How the classes are found.

    Attributes:
        modalities: names out of ``MODALITIES``; the first must be fed by the reference sensor.
        clusters: number of classes.
        preset: how images are encoded, ``robot`` or ``paper``.
        seed: for the draw of places and the starting centres.
        size: height and width that images are encoded at; None: of the first image, the shorter
            side at most ``SHORT_SIDE`` pixels.
        stride: the head answers at one encoded pixel in ``stride``.
    """

    modalities: tuple[str, ...] = ("rgb", "thermal")
    clusters: int = 12
    preset: Preset = "robot"
    seed: int = 0
    size: tuple[int, int] | None = None
    stride: int = 2

    @property
    def sensors(self) -> frozenset[str]:
        """The sensors that feed the modalities."""
        return frozenset(MODALITIES[name].sensor for name in self.modalities)

    def __post_init__(self) -> None:
        unknown = [name for name in self.modalities if name not in MODALITIES]
        if unknown or not self.modalities:
            raise ModelError(
                "unknown modality",
                expected=f"some of {', '.join(MODALITIES)}",
                found=", ".join(unknown) or "none",
                remedy="name them with --modalities, separated by commas",
            )
        if not 2 <= self.clusters <= 254:
            raise ModelError(
                "the number of clusters cannot be used",
                expected="2 to 254",
                found=str(self.clusters),
                remedy="give another with --clusters",
            )


@dataclass(frozen=True, eq=False)
class TrainingFreeModel:
    """What goes into the bundle, apart from the graphs."""

    manifest: Manifest
    clusters: Clusters
    sample: TokenSample
    report: dict[str, Any] = field(default_factory=dict)


def inference_size(height: int, width: int) -> tuple[int, int]:
    """The size to encode at: shorter side at most 320, both multiples of 16."""
    scale = min(1.0, SHORT_SIDE / min(height, width))
    return (
        max(MULTIPLE, round(height * scale / MULTIPLE) * MULTIPLE),
        max(MULTIPLE, round(width * scale / MULTIPLE) * MULTIPLE),
    )


def cluster_drive(
    sets: Iterable[FrameSet],
    registrar: Registrar,
    backbone: BackboneEntry,
    run_backbone: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    config: KMeansConfig,
    name: str,
) -> TrainingFreeModel:
    """Find classes in the frame sets of a drive.

    Args:
        sets: frame sets, streamed; the reference sensor is theirs.
        registrar: takes the other sensors' tokens into the reference camera.
        backbone: what ``run_backbone`` is, for the manifest.
        run_backbone: (1, H, W, 3) uint8 -> (1, h, w, D) float32.
        config: how.
        name: the model's name.

    Raises:
        ModelError: there are no sets, too few places, or a modality was in none of them.
    """
    stream = iter(sets)
    first = list(islice(stream, 1))
    if not first:
        raise ModelError(
            "nothing to learn from",
            expected="at least one synchronised frame set",
            found="none",
            remedy="look at the streams with: unim2 info BAG",
        )
    reference = first[0].frames[first[0].reference]
    size = config.size or inference_size(reference.height, reference.width)
    if config.preset == "paper":
        _check_no_crop((reference.height, reference.width), size)
    encoders = [Encoder(modality, config.preset) for modality in config.modalities]
    sample = sample_tokens(
        chain(first, stream), registrar, encoders, run_backbone, size, PLACES, config.seed
    )
    _check_presence(sample, config.modalities)
    clusters = fit_clusters(sample.tokens, sample.presence, config.clusters, config.seed)
    manifest = Manifest(
        name=name,
        reference=first[0].reference,
        modalities=tuple(_entry(encoder) for encoder in encoders),
        backbone=backbone,
        method="k-means, no training",
        infer_size=size,
        stride=config.stride,
        labels=tuple(
            Label(id=index, name=f"cluster {index}", color=color)
            for index, color in enumerate(distinct_colors(config.clusters))
        ),
        training={
            "frames": sample.frames,
            "seed": config.seed,
            "registration": registrar.methods,
            "shares": [round(float(share), 4) for share in clusters.shares],
        },
    )
    return TrainingFreeModel(manifest, clusters, sample)


def _check_no_crop(image: tuple[int, int], size: tuple[int, int]) -> None:
    """Refuse a size at which the published rules would cut off a part of the image."""
    if covering_size(image, size) != size:
        raise ModelError(
            "the preset paper would crop the images, and classes could not be put back in place",
            expected=f"a size with the aspect of the images, {image[0]}x{image[1]}",
            found=f"{size[0]}x{size[1]}",
            remedy="give such a size with --size, or use the preset robot",
        )


def _entry(encoder: Encoder) -> ModalityEntry:
    return ModalityEntry(
        name=encoder.modality.name,
        sensor=encoder.modality.sensor,
        encoding=encoder.describe(),
    )


def _check_presence(sample: TokenSample, modalities: Sequence[str]) -> None:
    never = [name for index, name in enumerate(modalities) if not sample.presence[:, index].any()]
    if never:
        raise ModelError(
            "a modality was in no frame set",
            expected=f"images of {', '.join(modalities)} that can be matched to the reference",
            found=f"none of {', '.join(never)}",
            remedy="look at the streams with: unim2 info BAG, or leave it out of --modalities",
        )
