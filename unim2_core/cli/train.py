"""``unim2 train``: from drives or images to a model bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, warn, write_json
from unim2_core.cli.learning_data import (
    Asked,
    BackboneName,
    Cache,
    Clusters,
    DataRoot,
    DataSet,
    Device,
    Download,
    Drives,
    EncodedSize,
    Frames,
    Modalities,
    PresetName,
    RunFolder,
    TensorBoardLogs,
    Variant,
    WandbLogs,
    clusters_from,
    default_cache,
    open_learning_data,
    suggested_clusters,
    torch_is_here,
)
from unim2_core.cli.options import MAX_SEED, JsonFile, RigFile, Topics
from unim2_core.data.drive_pictures import DrivePictures
from unim2_core.model.bundle import SUFFIX, Bundle, check_place


def command(
    out: Annotated[Path, typer.Option("--out", help=f"Bundle to write, NAME{SUFFIX}.")],
    bag: Drives = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            help="Features of more drives to learn from, beside --bag: the --out folder or --to "
            "address of unim2 fleet features, or a text file that lists what is below their "
            "drives/; repeatable."
        ),
    ] = None,
    data: DataSet = None,
    root: DataRoot = None,
    variant: Variant = None,
    rig: RigFile = None,
    topic: Topics = None,
    method: Annotated[
        Literal["unim2", "naive_fusion", "rgb_only", "kmeans"],
        typer.Option(help="How classes are found."),
    ] = "unim2",
    modalities: Modalities = None,
    clusters: Clusters = None,
    backbone: BackboneName = None,
    download: Download = False,
    preset: PresetName = "robot",
    steps: Annotated[
        int | None, typer.Option(min=2, help="Batches; default: 600, or as published.")
    ] = None,
    size: EncodedSize = None,
    frames: Frames = 100,
    config: Annotated[
        Path | None,
        typer.Option(help="Settings to train with, from unim2 search.", dir_okay=False),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Equal seeds give equal models.")
    ] = 0,
    device: Device = "auto",
    cache: Cache = None,
    run: RunFolder = None,
    tensorboard: TensorBoardLogs = False,
    wandb: WandbLogs = "off",
    overwrite: Annotated[bool, typer.Option(help="Replace a bundle of that name.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Learn classes from recorded drives or from images, without a label.

    A training that was interrupted goes on where it was when the same command is given again.

    Example: unim2 train --bag drive --modalities rgb,thermal --clusters 12 --out site.unim2
    """
    if not out.name.endswith(SUFFIX):
        raise typer.BadParameter(f"expected a name ending in {SUFFIX}, found {out.name}")
    count = clusters_from(clusters)
    asked = Asked(
        bag=bag,
        data=data,
        root=root,
        variant=variant,
        rig=rig,
        topic=topic,
        modalities=modalities,
        backbone=backbone,
        download=download,
        preset=preset,
        size=size,
        frames=frames,
        device=device,
    )
    if features and (not bag or method == "kmeans"):
        raise typer.BadParameter(
            "expected --bag beside it, one or a few of the drives that the model is judged by, "
            "and a method that trains a network",
            param_hint="--features",
        )
    check_place(out, overwrite)
    torch_is_here()
    from unim2_core.cli.training import Places, fleet_of, train_model
    from unim2_core.learning.methods import recipe
    from unim2_core.learning.observers import open_observers
    from unim2_core.learning.settings import Settings

    settings = Settings.load(config) if config else None
    opened = open_learning_data(asked)
    fleet = None
    if features:
        assert isinstance(opened.pictures, DrivePictures)  # of --bag
        fleet = fleet_of(features, opened.pictures, opened.backbone)
    kept = cache or default_cache()
    known: dict[str, Any] = {}
    if count == "auto":
        suggestion = suggested_clusters(opened, kept, seed)
        count, known["cluster_count"] = suggestion.clusters, suggestion.as_json()
    made = recipe(
        method,
        opened.pictures.modalities,
        opened.backbone.embed_dim,
        opened.usual_clusters if count is None else count,
        preset=preset,
        steps=steps,
        seed=seed,
        baseline=opened.backbone.baseline,
        like=opened.like,
        device=device,
    )
    if settings is not None:
        made = settings.applied(made)
        known["settings"] = settings.model_dump(mode="json", exclude_none=True)
        if settings.uses_labels:
            warn(f"the settings in {config} were found with labels: oracle (uses labels)")
    folder = run or out.with_name(f"{out.name.removesuffix(SUFFIX)}.run")
    observers = open_observers(folder, tensorboard=tensorboard, wandb=wandb)
    bundle = train_model(
        opened.pictures,
        opened.served,
        opened.backbone,
        made,
        Places(out, kept, folder, bool(run or tensorboard or wandb != "off"), overwrite),
        observers=tuple(observers),
        registration=opened.registration,
        known=known,
        fleet=fleet,
    )
    if bundle is None:  # one of several processes, and not the one that writes
        return
    print_bundle(bundle, opened.registration)
    if json_file:
        write_json(json_file, {"version": bundle.version, **bundle.manifest.training})


def print_bundle(bundle: Bundle, registration: Mapping[str, str]) -> None:
    """Say what was made."""
    console.print(escape(f"{bundle.path}: {bundle.manifest.summary}; version {bundle.version}"))
    for sensor, how in registration.items():
        console.print(escape(f"{sensor}: {how}"))
    table = Table("class", "share of the places")
    shares = bundle.manifest.training["shares"]
    for label, share in zip(bundle.manifest.labels, shares, strict=True):
        table.add_row(label.name, f"{100 * share:.1f} %")
    console.print(table)


if __name__ == "__main__":  # torchrun --nproc-per-node 2 -m unim2_core.cli.train ...
    import sys

    from unim2_core.cli.main import app

    app(["train", *sys.argv[1:]])
