"""``unim2 evaluate``: how well a model's classes fit labels; labels only report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unim2_core.cli.console import write_json
from unim2_core.cli.options import (
    BackendName,
    DeviceName,
    HalfAuxiliaries,
    JsonFile,
    PrecisionName,
    RigFile,
    Topics,
)
from unim2_core.errors import ModelError
from unim2_core.inference.engine import Engine
from unim2_core.model.bundle import Bundle

if TYPE_CHECKING:
    from unim2_core.evaluation.measurement import Answer


def command(
    model: Annotated[Path, typer.Argument(help="Model bundle, NAME.unim2.")],
    data: Annotated[
        str | None,
        typer.Option(help="nyu, nyu4, mfnet, mcubes, or a YAML file that lists images."),
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of nyu, mfnet or mcubes.", file_okay=False)
    ] = None,
    split: Annotated[
        Literal["train", "test", "all"], typer.Option(help="Which images of --data.")
    ] = "test",
    bag: Annotated[
        list[Path] | None,
        typer.Option("--bag", help="Or a synthetic drive, with its ground truth; repeatable."),
    ] = None,
    rig: RigFile = None,
    topic: Topics = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frame sets of each drive to use; default: all.")
    ] = None,
    protocol: Annotated[
        Literal["paper", "full"],
        typer.Option(help="full frames, or as published: the square out of the middle at 320."),
    ] = "full",
    modalities: Annotated[
        str | None, typer.Option(help="Comma-separated; the model's others count as missing.")
    ] = None,
    each_missing: Annotated[
        bool, typer.Option("--each-missing", help="Also leave out every modality in turn.")
    ] = False,
    exact: Annotated[
        bool,
        typer.Option("--exact", help="Resize scores to the labels, not classes; needs torch."),
    ] = False,
    crf: Annotated[
        bool, typer.Option("--crf", help="With a dense CRF; needs torch and pydensecrf.")
    ] = False,
    backend: BackendName = "auto",
    precision: PrecisionName = "fp32",
    device: DeviceName = "auto",
    half_auxiliaries: HalfAuxiliaries = False,
    json_file: JsonFile = None,
    confusion: Annotated[
        Path | None, typer.Option(help="PNG of the confusion matrix to write.", dir_okay=False)
    ] = None,
) -> None:
    """Measure a model against labels, which only report: per class, over the whole set.

    What runs is what a robot runs: the exported graphs, whose classes are resized to the labels
    by the nearest. Clusters are matched to classes one to one, once: the rows of --each-missing
    keep the names that the whole model has. A cluster without a class counts as a class that is
    never right.

    Example: unim2 evaluate site.unim2 --data site.yaml --split test --json figures.json
    """
    if bool(bag) == bool(data):
        raise typer.BadParameter("expected either --data or --bag, to measure on")
    if bag and protocol == "paper":
        raise typer.BadParameter("the paper's protocol is for --data: a drive is taken whole")
    if data and (rig or topic or frames):
        raise typer.BadParameter("--rig, --topic and --frames are for --bag")
    if bag and root:
        raise typer.BadParameter("--root is for --data")
    if confusion and confusion.suffix.lower() != ".png":
        raise typer.BadParameter(f"expected a name ending in .png, found {confusion.name}")
    scipy_is_here()
    from unim2_core.cli.evaluation import Sources, draw_confusion, print_report
    from unim2_core.cli.measuring import How, measured

    bundle = Bundle(model)
    chosen = chosen_modalities(bundle, modalities)
    answer = _published(bundle, crf) if exact or crf else None
    sources = Sources(data, root, split, protocol, bag or (), rig, topic, frames)
    engine = Engine(bundle, backend, precision=precision, device=device)
    how = How(chosen, each_missing, half_auxiliaries, answer, crf)
    report, source, found = measured(bundle, engine, sources, how)
    print_report(report)
    if confusion:
        draw_confusion(confusion, bundle, source, found)
    if json_file:
        write_json(json_file, report)


def scipy_is_here() -> None:
    """Check that what measures can be imported.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import scipy  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "measuring a model needs more than running one",
            expected="scipy",
            found=str(error),
            remedy="pip install 'unim2[train]'",
        ) from error


def chosen_modalities(bundle: Bundle, asked: str | None) -> tuple[str, ...]:
    """The modalities of a model that were asked for, in its order."""
    names = tuple(entry.name for entry in bundle.manifest.modalities)
    if asked is None:
        return names
    wanted = [name.strip() for name in asked.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in names]
    if unknown or not wanted:
        raise ModelError(
            "the model cannot look at these modalities",
            expected=f"some of {', '.join(names)}",
            found=", ".join(unknown) or "none",
            remedy="name them with --modalities, separated by commas",
        )
    return tuple(name for name in names if name in wanted)


def _published(bundle: Bundle, crf: bool) -> Answer:
    """Answers that need the network as it was trained."""
    try:
        from unim2_core.evaluation.published_answers import PublishedAnswers
        from unim2_core.model.classifier import Classifier
    except ImportError as error:
        raise ModelError(
            "--exact and --crf need the network as it was trained",
            expected="torch",
            found=str(error),
            remedy="pip install 'unim2[train]', or evaluate without them",
        ) from error
    from unim2_core.evaluation.crf import check_installed

    if crf:
        check_installed()
    answers, served = PublishedAnswers(Classifier.load(bundle), crf), bundle.manifest.served
    return lambda tokens, presence, picture: served[answers(tokens, presence, picture)]
