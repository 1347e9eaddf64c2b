"""What ``unim2 train`` and ``unim2 search`` learn from, as their options say."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from unim2_core.cli.console import console, warn
from unim2_core.cli.options import rig_from, size_from
from unim2_core.data.drive_labels import DriveLabels
from unim2_core.data.drive_pictures import DrivePictures, encodings_of
from unim2_core.data.pictures import PictureSource
from unim2_core.errors import ModelError
from unim2_core.sensing.modalities import Preset

if TYPE_CHECKING:
    from unim2_core.learning.cluster_count import ClusterCount
    from unim2_core.learning.published import PublishedConfig
    from unim2_core.model.frozen import FrozenBackbone

MULTIPLE = 16
DINOV3 = "dinov3_vits16"
CLUSTERS = 12
PUBLISHED = ("nyu", "nyu4", "mfnet", "mcubes")
BAR = 40
"""Columns of a bar that stands for 1."""

Drives = Annotated[
    list[Path] | None, typer.Option("--bag", help="Drive to learn from; repeatable.")
]
DataSet = Annotated[
    str | None,
    typer.Option(help="Or images: nyu, nyu4, mfnet, mcubes, or a YAML file that lists them."),
]
DataRoot = Annotated[
    Path | None, typer.Option(help="Folder of nyu, mfnet or mcubes.", file_okay=False)
]
Variant = Annotated[
    str | None,
    typer.Option(help="Published configuration: S, B; for mcubes IA, IN, ID, IND, INAD."),
]
Modalities = Annotated[
    str | None,
    typer.Option(help="Comma-separated, the reference first; default: rgb,thermal for bags."),
]
Clusters = Annotated[
    str | None,
    typer.Option(help="Number of classes, or auto: suggested; default: 12, or as published."),
]
BackboneName = Annotated[
    str | None,
    typer.Option(
        help="dinov3_vits16, dinov3_vits16plus, dinov3_vitb16, dinov3_vitl16, tiny or its part "
        "texture (both for trying), or a file of weights. "
        "Default: dinov3_vits16 where its weights are, else tiny."
    ),
]
Download = Annotated[bool, typer.Option(help="Fetch weights from the hub.")]
PresetName = Annotated[Preset, typer.Option(help="robot, or paper: every rule as published.")]
EncodedSize = Annotated[str | None, typer.Option(help="HEIGHTxWIDTH to encode at.")]
Frames = Annotated[int, typer.Option(min=1, help="Frame sets of each drive to use.")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where.")]
Cache = Annotated[Path | None, typer.Option(help="Folder for features; default: UNIM2_CACHE.")]

RunFolder = Annotated[
    Path | None,
    typer.Option(help="Folder for checkpoints and logs; default: NAME.run until it is done."),
]
TensorBoardLogs = Annotated[bool, typer.Option(help="Write TensorBoard logs into --run.")]
WandbLogs = Annotated[
    Literal["off", "offline", "online"], typer.Option(help="Log to Weights & Biases.")
]


def default_cache() -> Path:
    """Where features are kept: ``UNIM2_CACHE``, or below the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("UNIM2_CACHE") or Path(base, "unim2")).expanduser()


def torch_is_here() -> None:
    """Check that what making a model needs can be imported.

    Raises:
        ModelError: something is not installed.
    """
    try:
        import lightning_fabric  # noqa: F401
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "making a model needs more than running one",
            expected="torch, lightning-fabric, onnx and onnxscript",
            found=str(error),
            remedy="pip install 'unim2[train]'",
        ) from error


@dataclass(frozen=True)
class Asked:
    """What the command line says of the pictures; see the help of ``unim2 train``."""

    bag: Sequence[Path] | None
    data: str | None
    root: Path | None
    variant: str | None
    rig: Path | None
    topic: Sequence[str] | None
    modalities: str | None
    backbone: str | None
    download: bool
    preset: Preset
    size: str | None
    frames: int
    device: Literal["auto", "cpu", "cuda"]
    labels: DriveLabels | None = None

    def __post_init__(self) -> None:
        if bool(self.bag) == bool(self.data):
            raise typer.BadParameter("expected either --bag or --data, to learn from")


@dataclass(frozen=True, eq=False)
class LearningData:
    """Pictures and the backbone that looks at them.

    Attributes:
        pictures: what is learnt from.
        served: pictures as the robot will see them.
        backbone: the frozen network.
        like: the published configuration of the data set, None where it has none.
        registration: sensor -> how it was registered, filled while the pictures are read.
    """

    pictures: PictureSource
    served: PictureSource
    backbone: FrozenBackbone
    like: PublishedConfig | None
    registration: Mapping[str, str] = field(default_factory=dict)

    @property
    def usual_clusters(self) -> int:
        """As published, as many as the labels have classes, or 12."""
        if self.like is not None:
            return self.like.classes
        return len(self.pictures.classes.names) if self.pictures.classes else CLUSTERS


def open_learning_data(asked: Asked) -> LearningData:
    """Open what the options name. Needs torch.

    Raises:
        typer.BadParameter: an option is malformed.
        Unim2Error: the pictures or the weights cannot be used.
    """
    from unim2_core.data.data_sets import open_data_set
    from unim2_core.learning.published import published
    from unim2_core.model.frozen import FrozenBackbone

    pixels = size_from(asked.size, MULTIPLE)
    names = modalities_from(asked.modalities)
    like = published(asked.data, asked.variant) if asked.data in PUBLISHED else None
    backbone = FrozenBackbone(
        asked.backbone
        or (like.backbone if like and asked.preset == "paper" else usual_backbone(asked.download)),
        download=asked.download,
        device=device_of(asked.device),
    )
    warn_for_trying(backbone)
    if asked.bag:
        drives = DrivePictures(
            asked.bag,
            rig_from(asked.rig, asked.topic),
            encodings_of(names if names is not None else ("rgb", "thermal"), asked.preset),
            size=pixels,
            patch_size=backbone.patch_size,
            frames=asked.frames,
            labels=asked.labels,
            warn=warn,
        )
        check_absent(drives)
        return LearningData(drives, drives, backbone, like, drives.registration)
    assert asked.data is not None
    names = names or (like.modalities if like else None)
    pictures = open_data_set(
        asked.data, asked.root, preset=asked.preset, modalities=names, size=pixels
    )
    served = open_data_set(
        asked.data,
        asked.root,
        preset=asked.preset,
        modalities=names,
        crops="none",
        framing="full_frame",
    )
    return LearningData(pictures, served, backbone, like)


def usual_backbone(download: bool = False) -> str:
    """The smallest DINOv3 where its weights are or are to be fetched, else what comes with us."""
    from unim2_core.model.frozen import TINY
    from unim2_core.model.weights import resolve_weights

    if download:
        return DINOV3
    try:
        resolve_weights(DINOV3)
    except ModelError:
        return TINY
    return DINOV3


def warn_for_trying(backbone: FrozenBackbone) -> None:
    """Say it where the backbone is not one for a robot."""
    if backbone.baseline:
        warn(
            f"the backbone is {backbone.name!r}, which is for trying and not for a robot; for one "
            f"give --backbone {DINOV3}, with --download where its weights are missing"
        )


def device_of(asked: str) -> str:
    """``cuda`` where it is there and may be used, else ``cpu``."""
    import torch

    return "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"


def check_absent(drives: DrivePictures) -> None:
    """Check that no modality is known to be missing from all pictures.

    Raises:
        ModelError: one can never come.
    """
    if drives.absent:
        raise ModelError(
            "a modality is in none of the pictures",
            expected=f"images of each of {', '.join(drives.modalities)}",
            found="; ".join(drives.absent),
            remedy="look at the streams with: unim2 info BAG, or leave it out of --modalities",
        )


def modalities_from(text: str | None) -> tuple[str, ...] | None:
    """Read ``--modalities``; None where it is not given."""
    if text is None:
        return None
    return tuple(name.strip() for name in text.split(",") if name.strip())


def clusters_from(text: str | None) -> int | Literal["auto"] | None:
    """Read ``--clusters``.

    Raises:
        typer.BadParameter: it is neither a whole number nor ``auto``.
    """
    if text is None:
        return None
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(
            f"expected a whole number or auto, found {text!r}", param_hint="--clusters"
        ) from None


def suggested_clusters(data: LearningData, cache: Path, seed: int) -> ClusterCount:
    """Suggest a number of clusters for the pictures, and show the curve. Needs torch.

    Raises:
        Unim2Error: the pictures cannot be used, or there are too few.
    """
    from unim2_core.cli.training import features_of
    from unim2_core.learning.cluster_count import cluster_count_of

    store = features_of(data.pictures, data.backbone, cache)
    with console.status("number of clusters"):
        found = cluster_count_of(store, seed)
    table = Table("clusters", "stability", "+-", "", title="how many clusters are found again")
    for clusters, stability, error in zip(
        found.candidates, found.stability, found.error, strict=True
    ):
        table.add_row(
            f"{clusters} *" if clusters == found.clusters else str(clusters),
            f"{stability:.2f}",
            f"{error:.2f}",
            "#" * round(BAR * max(0.0, stability)),
        )
    console.print(table)
    console.print(f"{found.clusters} clusters are suggested; the curve is flat where any would do")
    return found
