"""``unim2 train``: from a drive to a model bundle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import Advance, console, progress, warn, write_json
from unim2_core.cli.options import JsonFile, RigFile, Topics, rig_from, size_from
from unim2_core.data.drives import check_stamps, check_topics, synchronised
from unim2_core.errors import DecodeError, ModelError
from unim2_core.learning.training_free import MULTIPLE, KMeansConfig
from unim2_core.model.bundle import SUFFIX, Bundle, check_place
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.intake import Intake
from unim2_core.sensing.rig import Rig

MAX_SEED = 2**31 - 1
"""What OpenCV's generator takes."""


def command(
    bag: Annotated[list[Path], typer.Option("--bag", help="Drive to learn from; repeatable.")],
    out: Annotated[Path, typer.Option("--out", help=f"Bundle to write, NAME{SUFFIX}.")],
    rig: RigFile = None,
    topic: Topics = None,
    method: Annotated[Literal["kmeans"], typer.Option(help="How classes are found.")] = "kmeans",
    modalities: Annotated[str, typer.Option(help="Comma-separated.")] = "rgb,thermal",
    clusters: Annotated[int, typer.Option(help="Number of classes.")] = 12,
    backbone: Annotated[
        str,
        typer.Option(
            help="texture (an untrained baseline), dinov3_vits16, dinov3_vits16plus, "
            "dinov3_vitb16, dinov3_vitl16, or a file of weights."
        ),
    ] = "texture",
    download: Annotated[bool, typer.Option(help="Fetch weights from the hub.")] = False,
    preset: Annotated[Literal["robot", "paper"], typer.Option(help="Encoding rules.")] = "robot",
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH to encode at.")] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frame sets of each drive to use.")] = 100,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Equal seeds give equal models.")
    ] = 0,
    overwrite: Annotated[bool, typer.Option(help="Replace a bundle of that name.")] = False,
    json_file: JsonFile = None,
) -> None:
    """Learn classes from a recorded drive, without a label.

    Example: unim2 train --bag drive --modalities rgb,thermal --clusters 12 --out site.unim2
    """
    config = KMeansConfig(
        modalities=tuple(name.strip() for name in modalities.split(",") if name.strip()),
        clusters=clusters,
        preset=preset,
        seed=seed,
        size=size_from(size, MULTIPLE),
    )
    if not out.name.endswith(SUFFIX):
        raise typer.BadParameter(f"expected a name ending in {SUFFIX}, found {out.name}")
    bundle = train_kmeans(
        bag, out, rig_from(rig, topic), config, backbone, frames, download, overwrite
    )
    report = {"version": bundle.version, **bundle.manifest.training}
    console.print(escape(f"{bundle.path}: {bundle.manifest.summary}; version {bundle.version}"))
    for sensor, method in report["registration"].items():
        console.print(escape(f"{sensor}: {method}"))
    table = Table("class", "share of the places")
    for label, share in zip(bundle.manifest.labels, report["shares"], strict=True):
        table.add_row(label.name, f"{100 * share:.1f} %")
    console.print(table)
    if json_file:
        write_json(json_file, report)


def train_kmeans(
    bags: Sequence[Path],
    out: Path,
    rig: Rig,
    config: KMeansConfig,
    backbone: str,
    frames: int,
    download: bool = False,
    overwrite: bool = False,
) -> Bundle:
    """Cluster drives and write the bundle.

    Args:
        bags: the drives.
        out: the bundle to write.
        rig: which topics to read and how.
        config: of the clustering.
        backbone: name or file, see the command.
        frames: frame sets of each drive to use, spread over it.
        download: fetch the backbone's weights where they are missing.
        overwrite: replace a bundle.

    Raises:
        Unim2Error: a drive, the weights or the place to write to cannot be used.
    """
    try:
        from unim2_core.inference.bundling import BASELINE, train_on
    except ImportError as error:
        raise ModelError(
            "making a model needs more than running one",
            expected="torch, onnx and onnxscript",
            found=str(error),
            remedy="pip install 'unim2[train]'",
        ) from error
    check_place(out, overwrite)
    if backbone == BASELINE:
        warn(f"the backbone is the untrained baseline {BASELINE!r}: for trying, not for a robot")
    with progress("reading drives", None) as advance:
        rig = rig.only(config.sensors)
        sets = frame_sets(bags, rig, frames, advance)
        return train_on(sets, rig, out, config, backbone, download=download, overwrite=overwrite)


def frame_sets(
    bags: Sequence[Path], rig: Rig, frames: int, advance: Advance
) -> Iterator[FrameSet]:
    """Decoded frame sets of several drives, spread evenly over each.

    Args:
        bags: the drives.
        rig: which topics to read and how.
        frames: at most about this many of each drive.
        advance: told how many sets have been read.

    Raises:
        DecodeError: no reference image of a drive can be decoded.
    """
    done = 0
    for bag in bags:
        with BagReader(bag) as reader:
            for warning in check_topics(reader, rig):
                warn(warning)
            intake = Intake(rig)
            step = max(1, round(reader.topics[rig.reference_topic].count / frames))
            emitted = given = 0
            errors: list[DecodeError] = []
            for emitted, matched in enumerate(synchronised(reader, intake), start=1):
                done += 1
                advance(done)
                if emitted % step and emitted > 1:
                    continue
                try:
                    decoded = intake.decode(matched)
                except DecodeError as error:  # the other images of the drive may be whole
                    errors.append(error)
                    continue
                given += 1
                yield decoded
            if errors and not given:
                raise errors[0]
            if errors:
                warn(f"{len(errors)} images of {bag} were left out, the first: {errors[0].what}")
            check_stamps(intake, emitted)
            if reader.stopped:
                warn(f"{bag} was read up to its damage: {reader.stopped}")
