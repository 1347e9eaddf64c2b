"""``unim2 import``: from a checkpoint of the reference release to a model bundle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markup import escape

from unim2_core.cli.console import console, warn, write_json
from unim2_core.cli.learning_data import MULTIPLE, torch_is_here
from unim2_core.cli.options import JsonFile, size_from
from unim2_core.data.made_up_pictures import MadeUpPictures
from unim2_core.errors import ModelError
from unim2_core.files import sha256
from unim2_core.model.bundle import SUFFIX, check_place
from unim2_core.sensing.modalities import Encoder

if TYPE_CHECKING:
    from unim2_core.inference.bundling import Trained
    from unim2_core.model.frozen import FrozenBackbone
    from unim2_core.model.release_import import ReleaseModel

ENCODED_AS = {
    "rgb": "rgb",
    "depth": "hha",  # the release reads depth as height and angle and says depth
    "hha": "hha",
    "thermal": "thermal",
    "nir": "nir",
    "aolp": "aolp",
    "dolp": "dolp",
}
"""What the release calls a modality -> how it encodes it."""
METHOD = "UniM2 (imported from the reference release)"
MOST_CLUSTERS = 254
SIZE = (320, 320)
"""What the release evaluates at, pixels."""


def command(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CKPT", help="Lightning checkpoint of the release.")
    ],
    out: Annotated[Path, typer.Option("--out", help=f"Bundle to write, NAME{SUFFIX}.")],
    modalities: Annotated[
        str | None,
        typer.Option(
            help="What its modalities are, comma-separated, in their order; default: what it "
            "calls them. An older file says depth for thermal."
        ),
    ] = None,
    fusion: Annotated[
        Literal["conv", "progressive", "sum", "mean", "max"] | None,
        typer.Option(help="How modalities are fused; needed where the file does not show it."),
    ] = None,
    normalization: Annotated[
        Literal["l2", "standardize", "minmax", "none"],
        typer.Option(help="Of modalities before fusion; the file does not show it."),
    ] = "l2",
    residual: Annotated[
        bool,
        typer.Option(
            "--residual", help="Modality networks add their input; the file does not show it."
        ),
    ] = False,
    size: Annotated[
        str, typer.Option(help="HEIGHTxWIDTH to encode at, of the aspect of your camera.")
    ] = f"{SIZE[0]}x{SIZE[1]}",
    overwrite: Annotated[bool, typer.Option(help="Replace a bundle of that name.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Make a model bundle of a checkpoint of the reference release.

    The network is read off the names and shapes of its tensors; code in the file is never run.
    Images are encoded as published, and must be of the aspect of --size.

    Example: unim2 import nyu.ckpt --out nyu.unim2
    """
    if not out.name.endswith(SUFFIX):
        raise typer.BadParameter(f"expected a name ending in {SUFFIX}, found {out.name}")
    check_place(out, overwrite)
    pixels = size_from(size, MULTIPLE) or SIZE
    names = None
    if modalities is not None:
        names = tuple(name.strip() for name in modalities.split(",") if name.strip())
        encodings_of(names)
    torch_is_here()
    from unim2_core.inference.bundling import write_bundle
    from unim2_core.model.frozen import FrozenBackbone
    from unim2_core.model.release_import import import_release

    model = import_release(
        checkpoint,
        modalities=names,
        fusion=fusion,
        normalization=normalization,
        residual=residual,
    )
    config = model.segmenter.config
    if fusion and len(config.modalities) > 1 and fusion != config.fusion:
        raise ModelError(
            "the checkpoint fuses modalities in another way",
            expected=f"{config.fusion}, as its tensors show",
            found=f"--fusion {fusion}",
            remedy="leave --fusion out",
        )
    pictures = MadeUpPictures(config.modalities, encodings_of(config.modalities), pixels)
    frozen = FrozenBackbone.of(model.backbone, model.backbone.config.name)
    facts = {"preset": "paper", "checkpoint": checkpoint.name, "sha256": sha256(checkpoint)}
    with console.status("graphs and stored answers"):
        trained = trained_of(model, frozen, pictures, facts)
        bundle = write_bundle(out, pictures, frozen, trained, overwrite=overwrite)
    console.print(escape(f"{bundle.path}: {bundle.manifest.summary}; version {bundle.version}"))
    warn(
        f"it takes images of the aspect {pixels[0]}x{pixels[1]}, encoded as published; for a "
        "camera of another aspect import it with --size"
    )
    if json_file:
        write_json(json_file, {"version": bundle.version, **bundle.manifest.model_dump()})


def encodings_of(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """How the release encodes modalities, as ``Encoder.from_description`` takes it.

    Raises:
        ModelError: it has no such modality.
    """
    unknown = [name for name in names if name not in ENCODED_AS]
    if unknown or not names:
        raise ModelError(
            "it is not known how a modality of the checkpoint is encoded",
            expected=f"some of {', '.join(ENCODED_AS)}",
            found=", ".join(unknown) or "none",
            remedy="say what they are with --modalities, in the order of the checkpoint",
        )
    return {name: Encoder(ENCODED_AS[name], "paper").describe() for name in names}


def trained_of(
    model: ReleaseModel, backbone: FrozenBackbone, pictures: MadeUpPictures, facts: dict[str, Any]
) -> Trained:
    """What goes into the bundle beside the backbone. Needs torch.

    Args:
        model: of the release.
        backbone: its own.
        pictures: whose margins are shown as full confidence; the checkpoint knows no others.
        facts: for the manifest; JSON types only.

    Raises:
        ModelError: it has more clusters than a model can serve.
    """
    import numpy as np
    import torch

    from unim2_core.inference.bundling import Trained, stride_of
    from unim2_core.model.classifier import PREFIX, Classifier, full_margin
    from unim2_core.model.segmenter_head import SegmenterHead

    centers = model.cluster_probe.centers.detach()
    if not 2 <= len(centers) <= MOST_CLUSTERS:
        raise ModelError(
            "the checkpoint has a number of clusters that cannot be served",
            expected=f"2 to {MOST_CLUSTERS}",
            found=f"{len(centers)}",
            remedy="import another checkpoint",
        )
    config = model.segmenter.config
    shape = (len(config.modalities), config.feature_dim)
    classifier = Classifier(model.segmenter, centers, torch.zeros(shape), torch.ones(shape))
    margins = []
    for picture in pictures:
        tokens = {
            name: torch.from_numpy(backbone(image[None])) for name, image in picture.images.items()
        }
        margins.append(classifier.margins(tokens).numpy())
    parts = {
        PREFIX: model.segmenter,
        "cluster_probe.": model.cluster_probe,
        "linear_probe.": model.linear_probe,
    }
    return Trained(
        SegmenterHead(config, backbone.patch_size, stride_of(backbone)),
        classifier.head_inputs(full_margin(np.concatenate(margins))),
        METHOD,
        facts,
        config,
        {
            f"{prefix}{name}": tensor
            for prefix, part in parts.items()
            for name, tensor in part.state_dict().items()
        },
    )
