"""``unim2 fleet``: the same for hundreds of drives, on one machine or many."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unim2_core.cli.learning_data import (
    BackboneName,
    Device,
    EncodedSize,
    Frames,
    PresetName,
    modalities_from,
    torch_is_here,
    usual_backbone,
)
from unim2_core.cli.options import (
    MAX_SEED,
    BackendName,
    DeviceName,
    HalfAuxiliaries,
    JsonFile,
    PrecisionName,
    RigFile,
    Topics,
    rig_from,
    size_from,
)
from unim2_core.fleet.work import RETRIES
from unim2_core.model.bundle import Bundle

if TYPE_CHECKING:
    from unim2_core.fleet.work import Job

app = typer.Typer(
    help="Many drives: on one machine or many, only what is left, the bad ones put aside.",
    no_args_is_help=True,
)

QUARANTINE = 1
"""Exit status where drives were put aside."""
MULTIPLE = 16

Patterns = Annotated[
    list[str],
    typer.Option(
        "--drives",
        help="Quoted pattern, path, s3://, gs://, http(s)://, or a list of these, NAME.txt; "
        "repeatable.",
    ),
]
Out = Annotated[
    Path,
    typer.Option("--out", help="Folder of outputs and journal; every worker must see it."),
]
Address = Annotated[
    str | None,
    typer.Option(
        help="none: one drive after the other; local: a Ray of this machine; auto, or HOST:PORT: "
        "a cluster that runs. Default: local where Ray is installed, else none."
    ),
]
Workers = Annotated[
    int | None, typer.Option(min=1, help="At once; default: as many as fit into the cluster.")
]
Cores = Annotated[
    int | None, typer.Option(min=1, help="Of each worker; default: 1, and all without Ray.")
]
Gpus = Annotated[float, typer.Option(min=0, help="GPUs of each worker, such as 1 or 0.5.")]
Retries = Annotated[int, typer.Option(min=0, help="How often a drive that failed is tried again.")]
Again = Annotated[
    bool, typer.Option("--again", help="Try drives again that were quarantined before.")
]
To = Annotated[
    str | None,
    typer.Option(help="Address that outputs are sent to, instead of --out: s3://bucket/out."),
]
Model = Annotated[
    Path, typer.Option("--model", help="Model bundle, under this path on every machine.")
]


@app.command()
def segment(
    drives: Patterns,
    model: Model,
    out: Out,
    rig: RigFile = None,
    topic: Topics = None,
    keep: Annotated[bool, typer.Option(help="Copy the inputs' messages as well.")] = False,
    backend: BackendName = "auto",
    precision: PrecisionName = "fp32",
    device: DeviceName = "auto",
    half_auxiliaries: HalfAuxiliaries = False,
    address: Address = None,
    workers: Workers = None,
    cores: Cores = None,
    gpus: Gpus = 0.0,
    retries: Retries = RETRIES,
    again: Again = False,
    to: To = None,
    json_file: JsonFile = None,
) -> None:
    """Segment many drives: OUT/drives/NAME.mcap for each, as unim2 segment writes it.

    The same command again does only what is left. Exit status 1 where drives were quarantined:
    OUT/fleet.html says why.

    Example: unim2 fleet segment --drives 'drives/*' --model site.unim2 --out segmented
    --address local
    """
    from unim2_core.cli.fleet_jobs import On, SegmentJob

    on = On(model.absolute(), backend, precision, device, half_auxiliaries)
    job = SegmentJob(on, rig_from(rig, topic), keep)
    _run(job, drives, out, address, workers, cores, gpus, retries, again, to, json_file)


@app.command()
def features(
    drives: Patterns,
    out: Out,
    rig: RigFile = None,
    topic: Topics = None,
    modalities: Annotated[
        str, typer.Option(help="Comma-separated, the reference first.")
    ] = "rgb,thermal",
    backbone: BackboneName = None,
    preset: PresetName = "robot",
    size: EncodedSize = None,
    frames: Frames = 100,
    device: Device = "auto",
    address: Address = None,
    workers: Workers = None,
    cores: Cores = None,
    gpus: Gpus = 0.0,
    retries: Retries = RETRIES,
    again: Again = False,
    to: To = None,
    json_file: JsonFile = None,
) -> None:
    """Compute frozen features of many drives: a store for each below OUT/drives.

    unim2 train --bag DRIVE --cache OUT/drives finds that of a drive there, with the same options.

    Example: unim2 fleet features --drives 's3://robots/2026-05-*' --modalities rgb,thermal
    --out features
    """
    torch_is_here()
    from unim2_core.cli.fleet_jobs import FeaturesJob

    job = FeaturesJob(
        rig_from(rig, topic),
        modalities_from(modalities) or (),
        backbone or usual_backbone(),
        preset,
        size_from(size, MULTIPLE),
        frames,
        device,
    )
    _run(job, drives, out, address, workers, cores, gpus, retries, again, to, json_file)


@app.command()
def adapt(
    drives: Patterns,
    model: Model,
    out: Out,
    rig: RigFile = None,
    topic: Topics = None,
    if_shifted: Annotated[
        bool, typer.Option("--if-shifted", help="Only to drives that are unlike the old ones.")
    ] = False,
    frames: Annotated[int, typer.Option(min=1, help="Frame sets of each drive to use.")] = 200,
    steps: Annotated[
        int, typer.Option(min=1, help="Gradient steps that each picture pays for.")
    ] = 4,
    new_classes: Annotated[
        int, typer.Option(min=0, help="Classes that may be added where many places fit none.")
    ] = 0,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Equal seeds give equal models.")
    ] = 0,
    backend: BackendName = "auto",
    device: Device = "auto",
    address: Address = None,
    workers: Workers = None,
    cores: Cores = None,
    gpus: Gpus = 0.0,
    retries: Retries = RETRIES,
    again: Again = False,
    to: To = None,
    json_file: JsonFile = None,
) -> None:
    """Adapt a model to each of many drives by itself; the model stays as it is.

    OUT/drives/NAME.unim2 is written where the guard accepts the result or keeps it for review.
    The page says for each drive how unlike the past it is, and the verdict.

    Example: unim2 fleet adapt --drives 'drives/2026-05-*' --model site.unim2 --if-shifted
    --out adapted
    """
    torch_is_here()
    from unim2_core.cli.adapting import Plan
    from unim2_core.cli.fleet_jobs import AdaptJob, On
    from unim2_core.learning.adapter import AdapterConfig

    plan = Plan(
        [],
        rig_from(rig, topic),
        Path(),
        frames=frames,
        config=AdapterConfig(steps_per_picture=steps, rate=5e-4, seed=seed, device=device),
        backend=backend,
        new_classes=new_classes,
        if_shifted=if_shifted,
    )
    job = AdaptJob(On(model.absolute(), backend), plan)
    _run(job, drives, out, address, workers, cores, gpus, retries, again, to, json_file)


@app.command()
def evaluate(
    drives: Patterns,
    model: Model,
    out: Out,
    rig: RigFile = None,
    topic: Topics = None,
    modalities: Annotated[
        str | None, typer.Option(help="Comma-separated; the model's others count as missing.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frame sets of each drive to use; default: all.")
    ] = None,
    backend: BackendName = "auto",
    precision: PrecisionName = "fp32",
    device: DeviceName = "auto",
    half_auxiliaries: HalfAuxiliaries = False,
    address: Address = None,
    workers: Workers = None,
    cores: Cores = None,
    gpus: Gpus = 0.0,
    retries: Retries = RETRIES,
    again: Again = False,
    to: To = None,
    json_file: JsonFile = None,
) -> None:
    """Measure a model on each of many synthetic drives: OUT/drives/NAME.json for each.

    Clusters are matched to classes anew for each drive. Labels only report.

    Example: unim2 fleet evaluate --drives 'held_out/*' --model site.unim2 --out figures
    """
    from unim2_core.cli.evaluate import chosen_modalities, scipy_is_here
    from unim2_core.cli.fleet_jobs import EvaluateJob, On

    scipy_is_here()
    chosen_modalities(Bundle(model), modalities)
    on = On(model.absolute(), backend, precision, device, half_auxiliaries)
    file = rig.absolute() if rig else None
    job = EvaluateJob(on, file, tuple(topic or ()), modalities, frames)
    _run(job, drives, out, address, workers, cores, gpus, retries, again, to, json_file)


def _run(
    job: Job,
    drives: list[str],
    out: Path,
    address: str | None,
    workers: int | None,
    cores: int | None,
    gpus: float,
    retries: int,
    again: bool,
    to: str | None,
    json_file: Path | None,
) -> None:
    from unim2_core.cli.fleet_run import Spread, run_fleet

    figures = run_fleet(
        job, Spread(drives, out, address, workers, cores, gpus, retries, again, to, json_file)
    )
    if figures["totals"]["quarantined"]:
        raise typer.Exit(QUARANTINE)
