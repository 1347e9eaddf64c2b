"""``unim2 train``: from drives or images to a model bundle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, warn, write_json
from unim2_core.cli.options import JsonFile, RigFile, Topics, rig_from, size_from
from unim2_core.data.drive_pictures import DrivePictures, encodings_of
from unim2_core.data.pictures import PictureSource
from unim2_core.errors import ModelError
from unim2_core.model.bundle import SUFFIX, Bundle, check_place

MULTIPLE = 16
MAX_SEED = 2**31 - 1
"""What OpenCV's generator takes."""
BASELINE = "texture"
CLUSTERS = 12


def default_cache() -> Path:
    """Where features are kept: ``UNIM2_CACHE``, or below the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get("UNIM2_CACHE") or Path(base, "unim2")).expanduser()


def command(
    out: Annotated[Path, typer.Option("--out", help=f"Bundle to write, NAME{SUFFIX}.")],
    bag: Annotated[
        list[Path] | None, typer.Option("--bag", help="Drive to learn from; repeatable.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Or images: nyu, nyu4, mfnet, mcubes, or a YAML file that lists them."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of nyu, mfnet or mcubes.", file_okay=False)
    ] = None,
    variant: Annotated[
        str | None,
        typer.Option(help="Published configuration: S, B; for mcubes IA, IN, ID, IND, INAD."),
    ] = None,
    rig: RigFile = None,
    topic: Topics = None,
    method: Annotated[
        Literal["unim2", "naive_fusion", "rgb_only", "kmeans"],
        typer.Option(help="How classes are found."),
    ] = "unim2",
    modalities: Annotated[
        str | None,
        typer.Option(help="Comma-separated, the reference first; default: rgb,thermal for bags."),
    ] = None,
    clusters: Annotated[
        int | None, typer.Option(help="Number of classes; default: 12, or as published.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="texture (an untrained baseline), dinov3_vits16, dinov3_vits16plus, "
            "dinov3_vitb16, dinov3_vitl16, or a file of weights."
        ),
    ] = None,
    download: Annotated[bool, typer.Option(help="Fetch weights from the hub.")] = False,
    preset: Annotated[
        Literal["robot", "paper"],
        typer.Option(help="robot, or paper: every rule as published."),
    ] = "robot",
    steps: Annotated[
        int | None, typer.Option(min=2, help="Batches; default: 600, or as published.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH to encode at.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frame sets of each drive to use.")] = 100,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Equal seeds give equal models.")
    ] = 0,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="Where.")] = "auto",
    cache: Annotated[
        Path | None, typer.Option(help="Folder for features; default: UNIM2_CACHE.")
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Folder for checkpoints and logs; default: NAME.run until it is done."),
    ] = None,
    tensorboard: Annotated[bool, typer.Option(help="Write TensorBoard logs into --run.")] = False,
    wandb: Annotated[
        Literal["off", "offline", "online"], typer.Option(help="Log to Weights & Biases.")
    ] = "off",
    overwrite: Annotated[bool, typer.Option(help="Replace a bundle of that name.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Learn classes from recorded drives or from images, without a label.

    A training that was interrupted goes on where it was when the same command is given again.

    Example: unim2 train --bag drive --modalities rgb,thermal --clusters 12 --out site.unim2
    """
    if not out.name.endswith(SUFFIX):
        raise typer.BadParameter(f"expected a name ending in {SUFFIX}, found {out.name}")
    if bool(bag) == bool(data):
        raise typer.BadParameter("expected either --bag or --data, to learn from")
    check_place(out, overwrite)
    torch_is_here()
    from unim2_core.cli.training import Places, train_model
    from unim2_core.data.data_sets import open_data_set
    from unim2_core.learning.methods import recipe
    from unim2_core.learning.observers import open_observers
    from unim2_core.learning.published import published
    from unim2_core.model.frozen import FrozenBackbone

    names = None
    if modalities is not None:
        names = tuple(name.strip() for name in modalities.split(",") if name.strip())
    known = ("nyu", "nyu4", "mfnet", "mcubes")
    like = published(data, variant) if data in known else None
    frozen = FrozenBackbone(
        backbone or (like.backbone if like and preset == "paper" else BASELINE),
        download=download,
        device=device_of(device),
    )
    if frozen.baseline:
        warn(f"the backbone is the untrained baseline {BASELINE!r}: for trying, not for a robot")
    pixels = size_from(size, MULTIPLE)
    pictures: PictureSource
    served: PictureSource
    registration: dict[str, str] = {}
    if bag:
        drives = DrivePictures(
            bag,
            rig_from(rig, topic),
            encodings_of(names if names is not None else ("rgb", "thermal"), preset),
            size=pixels,
            patch_size=frozen.patch_size,
            frames=frames,
            warn=warn,
        )
        if drives.absent:
            raise absent(drives)
        pictures, served = drives, drives
        registration = drives.registration
    else:
        assert data is not None
        names = names or (like.modalities if like else None)
        pictures = open_data_set(data, root, preset=preset, modalities=names, size=pixels)
        served = open_data_set(
            data, root, preset=preset, modalities=names, crops="none", framing="full_frame"
        )
    if clusters is None:
        clusters = like.classes if like else _classes_of(pictures)
    made = recipe(
        method,
        pictures.modalities,
        frozen.embed_dim,
        clusters,
        preset=preset,
        steps=steps,
        seed=seed,
        baseline=frozen.baseline,
        like=like,
        device=device,
    )
    folder = run or out.with_name(f"{out.name.removesuffix(SUFFIX)}.run")
    observers = open_observers(folder, tensorboard=tensorboard, wandb=wandb)
    bundle = train_model(
        pictures,
        served,
        frozen,
        made,
        Places(out, cache or default_cache(), folder, bool(run or tensorboard), overwrite),
        observers=tuple(observers),
        registration=registration,
    )
    if bundle is None:  # one of several processes, and not the one that writes
        return
    print_bundle(bundle, registration)
    if json_file:
        write_json(json_file, {"version": bundle.version, **bundle.manifest.training})


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


def device_of(asked: str) -> str:
    """``cuda`` where it is there and may be used, else ``cpu``."""
    import torch

    return "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"


def absent(drives: DrivePictures) -> ModelError:
    """What to say where a modality can never come."""
    return ModelError(
        "a modality is in none of the pictures",
        expected=f"images of each of {', '.join(drives.modalities)}",
        found="; ".join(drives.absent),
        remedy="look at the streams with: unim2 info BAG, or leave it out of --modalities",
    )


def _classes_of(pictures: PictureSource) -> int:
    return len(pictures.classes.names) if pictures.classes else CLUSTERS


def print_bundle(bundle: Bundle, registration: dict[str, str]) -> None:
    """Say what was made."""
    console.print(escape(f"{bundle.path}: {bundle.manifest.summary}; version {bundle.version}"))
    for sensor, how in registration.items():
        console.print(escape(f"{sensor}: {how}"))
    table = Table("class", "share of the places")
    shares = bundle.manifest.training["shares"]
    for label, share in zip(bundle.manifest.labels, shares, strict=True):
        table.add_row(label.name, f"{100 * share:.1f} %")
    console.print(table)
