"""``unim2 pretrain``: the small backbone, from synthetic drives or from one's own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from unim2_core.cli.console import console, warn, write_json
from unim2_core.cli.learning_data import (
    MULTIPLE,
    Cache,
    DataRoot,
    DataSet,
    Device,
    Drives,
    Frames,
    Modalities,
    RunFolder,
    TensorBoardLogs,
    WandbLogs,
    check_absent,
    default_cache,
    modalities_from,
    torch_is_here,
)
from unim2_core.cli.options import MAX_SEED, JsonFile, RigFile, Topics, rig_from, size_from
from unim2_core.data.pictures import PictureSource
from unim2_core.errors import ModelError

SUFFIX = ".safetensors"
APACHE = "Apache-2.0"
OWN = "yours, as far as your pictures go; weights of the package that it began with: Apache-2.0"
FEWEST = 20
"""Pictures: of fewer nothing can be held out."""


def command(
    out: Annotated[Path, typer.Option("--out", help=f"Weights to write, NAME{SUFFIX}.")],
    bag: Drives = None,
    data: DataSet = None,
    root: DataRoot = None,
    rig: RigFile = None,
    topic: Topics = None,
    modalities: Modalities = None,
    frames: Frames = 100,
    worlds: Annotated[
        int, typer.Option(min=1, help="Synthetic drives, where neither --bag nor --data is given.")
    ] = 100,
    start: Annotated[
        str | None,
        typer.Option(help="Weights to begin with: tiny, or a file; default: random ones."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Batches.")] = 2600,
    batch: Annotated[int, typer.Option(min=1, help="Pairs of crops in a batch.")] = 32,
    rate: Annotated[float, typer.Option(min=0, help="Learning rate.")] = 2e-3,
    measure_every: Annotated[
        int, typer.Option(min=0, help="Steps between measurements; 0: only in the end.")
    ] = 500,
    size: Annotated[str, typer.Option(help="HEIGHTxWIDTH of the pictures.")] = "352x480",
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of all draws.")] = 0,
    device: Device = "auto",
    cache: Cache = None,
    run: RunFolder = None,
    tensorboard: TensorBoardLogs = False,
    wandb: WandbLogs = "off",
    overwrite: Annotated[bool, typer.Option(help="Replace weights of that name.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Pre-train the small backbone without a label: on synthetic drives, or on your own.

    A training that was interrupted goes on where it was when the same command is given again.

    Example: unim2 pretrain --bag drive --start tiny --steps 1000 --out ours.safetensors
    """
    if out.suffix != SUFFIX:
        raise typer.BadParameter(f"expected a name ending in {SUFFIX}, found {out.name}")
    if bag and data:
        raise typer.BadParameter("expected --bag or --data or neither, found both")
    pixels = size_from(size, MULTIPLE)
    assert pixels is not None
    if out.exists() and not overwrite:
        raise ModelError(
            f"{out} is there already",
            expected="a new name",
            found="a file",
            remedy="choose another name, or replace it with --overwrite",
        )
    torch_is_here()
    from unim2_core.cli import pretraining
    from unim2_core.data.data_sets import open_data_set
    from unim2_core.data.drive_pictures import DrivePictures, encodings_of
    from unim2_core.learning.observers import open_observers
    from unim2_core.learning.pretraining.trainer import PretrainConfig
    from unim2_core.model.frozen import FrozenBackbone
    from unim2_core.model.tiny import TinyBackbone

    config = PretrainConfig(
        steps=steps, batch=batch, rate=rate, measure_every=measure_every, seed=seed, device=device
    )
    begin = None
    if start is not None:
        begin = TinyBackbone.load(None if start == "tiny" else Path(start))
    folder = cache or default_cache()
    names = modalities_from(modalities)
    pictures: PictureSource
    if bag:
        drives = DrivePictures(
            bag,
            rig_from(rig, topic),
            encodings_of(("rgb", "thermal") if names is None else names),
            size=pixels,
            patch_size=TinyBackbone.patch_size,
            frames=frames,
            warn=warn,
        )
        check_absent(drives)
        pictures = drives
        what = f"{len(bag)} recorded drives"
    elif data:
        pictures = open_data_set(data, root, modalities=names, size=pixels, crops="none")
        what = f"the data set {Path(data).name}"
    else:
        pictures = pretraining.synthetic_pictures(worlds, pixels, folder / "worlds")
        what = f"{worlds} synthetic drives, by day and by night, some in fog or against the sun"
    store = pretraining.pixels_of(pictures, folder)
    if bag or data:
        if len(store) < FEWEST:
            raise ModelError(
                "there are too few pictures to learn from",
                expected=f"at least {FEWEST}",
                found=f"{len(store)}",
                remedy="give more drives or images, or raise --frames",
            )
        held = pretraining.held_of(pictures, len(store))
        store = pretraining.learnt_from(store)
    else:
        held = pretraining.synthetic_held(folder / "worlds")
    folder_of_run = run or out.with_suffix(".run")
    report = pretraining.pretrain_backbone(
        store,
        held,
        config,
        out,
        folder_of_run,
        start=begin,
        observers=open_observers(folder_of_run, tensorboard=tensorboard, wandb=wandb),
        facts={
            "data": what,
            "pictures_digest": pictures.fingerprint(),
            "start": start or "random weights",
            "start_digest": FrozenBackbone.of(begin, start or "").digest if begin else "",
        },
        licence=OWN if bag or data else APACHE,
    )
    if not (run or tensorboard or wandb != "off"):
        shutil.rmtree(folder_of_run, ignore_errors=True)
    console.print(escape(f"{out}: use it with --backbone {out}"))
    console.print(escape(f"{out.with_suffix('.md')}: its card"))
    if json_file:
        write_json(json_file, report)
