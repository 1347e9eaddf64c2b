"""``unim2 adapt``: go on learning from new drives; only what is no worse is served."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, warn, write_json
from unim2_core.cli.learning_data import Device, TensorBoardLogs, WandbLogs, torch_is_here
from unim2_core.cli.options import MAX_SEED, BackendName, JsonFile, RigFile, Topics, rig_from
from unim2_core.model.bundle import SUFFIX, check_place
from unim2_core.model.versions import KEPT

if TYPE_CHECKING:
    from unim2_core.cli.adapting import Adaptation

STATUS = {"accepted": 0, "rejected": 3, "review": 4}
"""Verdict -> exit status."""


def command(
    model: Annotated[Path, typer.Argument(help=f"Model bundle, NAME{SUFFIX}.")],
    bag: Annotated[list[Path], typer.Option("--bag", help="New drive; repeatable.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Write a new bundle and leave MODEL as it is.")
    ] = None,
    rig: RigFile = None,
    topic: Topics = None,
    if_shifted: Annotated[
        bool, typer.Option("--if-shifted", help="Only where the drives are unlike the old ones.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an adaptation that was stopped.")
    ] = False,
    anchors: Annotated[
        Path | None,
        typer.Option(
            help="Labelled images, as --data of unim2 train: they make the guard stricter.",
            dir_okay=False,
            exists=True,
        ),
    ] = None,
    old_bag: Annotated[
        list[Path] | None,
        typer.Option(
            "--old-bag", help="Drive that the model was trained on, where it has no memory of it."
        ),
    ] = None,
    frames: Annotated[int, typer.Option(min=1, help="Frame sets of each drive to use.")] = 200,
    steps: Annotated[
        int, typer.Option(min=1, help="Gradient steps that each picture pays for.")
    ] = 4,
    rate: Annotated[float, typer.Option(help="Learning rate of the network.")] = 5e-4,
    new_classes: Annotated[
        int, typer.Option(min=0, help="Classes that may be added where many places fit none.")
    ] = 0,
    keep: Annotated[int, typer.Option(min=1, help="Versions whose weights are kept.")] = KEPT,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Equal seeds give equal models.")
    ] = 0,
    backend: BackendName = "auto",
    device: Device = "auto",
    run: Annotated[
        Path | None,
        typer.Option(help="Folder of checkpoints and logs; default: NAME.adapt until it is done."),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="PNG to write: losses, figures, before and after.")
    ] = None,
    tensorboard: TensorBoardLogs = False,
    wandb: WandbLogs = "off",
    json_file: JsonFile = None,
) -> None:
    """Adapt a model to new drives without labels; only what is no worse is served.

    The drives are streamed once; the backbone stays as it is. The model is held against itself on
    pictures of the old and of the new drives that it did not learn from. Exit status 0: accepted
    and served from now on, or not needed; 3: rejected, nothing has changed; 4: kept for review,
    the old version is still served, see unim2 history.

    Example: unim2 adapt site.unim2 --bag night_drive --if-shifted --report night.png
    """
    if out is not None:
        if not out.name.endswith(SUFFIX):
            raise typer.BadParameter(f"expected a name ending in {SUFFIX}, found {out.name}")
        check_place(out, overwrite=False)
    torch_is_here()
    from unim2_core.cli.adaptation_report import write_report
    from unim2_core.cli.adapting import Plan, adapt_model
    from unim2_core.learning.adapter import AdapterConfig
    from unim2_core.learning.observers import open_observers

    target = out or model
    folder = run or target.with_name(f"{target.name.removesuffix(SUFFIX)}.adapt")
    plan = Plan(
        bag,
        rig_from(rig, topic),
        folder,
        frames=frames,
        old_bags=old_bag or (),
        config=AdapterConfig(steps_per_picture=steps, rate=rate, seed=seed, device=device),
        backend=backend,
        new_classes=new_classes,
        kept=keep,
        anchors=anchors,
        resume=resume,
        if_shifted=if_shifted,
    )
    observers = open_observers(folder, tensorboard=tensorboard, wandb=wandb)
    made = adapt_model(model, plan, out, observers)
    print_adaptation(made)
    if report is not None and made.judgement is not None:
        write_report(report, made)
        console.print(escape(f"{report}: what was learnt and how it was judged"))
    if json_file:
        write_json(json_file, made.as_json())
    if not run and not tensorboard and wandb == "off":
        shutil.rmtree(folder, ignore_errors=True)
    if made.judgement is not None and STATUS[made.judgement.verdict]:
        raise typer.Exit(STATUS[made.judgement.verdict])


def print_adaptation(made: Adaptation) -> None:
    """Say what was found, what was decided and what is served."""
    if made.judgement is None:
        console.print(f"not adapted: version {made.bundle.manifest.number} stays as it is")
        return
    table = Table("figure", "value", "review beyond", "reject beyond", "")
    for finding in made.judgement.findings:
        reject = finding.check.reject
        table.add_row(
            finding.figure,
            f"{finding.value:.3f}",
            f"{finding.check.review:g}",
            "-" if reject is None else f"{reject:g}",
            "" if finding.verdict == "accepted" else finding.verdict,
        )
    console.print(table)
    if made.shift is not None:
        console.print(escape(made.shift.sentence))
    for reason in made.judgement.reasons:
        warn(reason)
    console.print(
        escape(
            f"{made.judgement.verdict}: version {made.number} after {made.steps} steps, "
            f"{made.seconds:.0f} s; {made.bundle.path} serves version "
            f"{made.bundle.manifest.number} ({made.bundle.version})"
        )
    )
