"""``unim2 report``: one page on a model, to be looked at offline, mailed or archived."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from unim2_core import __version__
from unim2_core.cli import report_content as parts
from unim2_core.cli.console import console, progress, warn
from unim2_core.cli.environment import environment
from unim2_core.cli.options import RigFile, Topics
from unim2_core.errors import DataError
from unim2_core.files import write_atomically
from unim2_core.learning.observers import HISTORY, read_history
from unim2_core.model.bundle import MANIFEST, SUFFIX, Bundle

RUN_SUFFIX = ".run"
FRAMES = 24


def command(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_OR_MODEL", help="Run directory, or NAME.unim2.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Page to write, NAME.html.")],
    run: Annotated[
        Path | None, typer.Option(help="Run directory of the model; default: NAME.run beside it.")
    ] = None,
    figures: Annotated[
        list[Path] | None,
        typer.Option(
            "--figures",
            help="What evaluate, segment, bench, search or info wrote with --json; repeatable.",
        ),
    ] = None,
    bag: Annotated[
        list[Path] | None, typer.Option("--bag", help="Drive to show examples of; repeatable.")
    ] = None,
    rig: RigFile = None,
    topic: Topics = None,
    frames: Annotated[
        int, typer.Option(min=1, help="Frame sets of each drive to pick the examples from.")
    ] = FRAMES,
    data: Annotated[
        str | None, typer.Option(help="Or a data set to show examples of, as for unim2 evaluate.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Folder of nyu, mfnet or mcubes.", file_okay=False)
    ] = None,
    split: Annotated[
        Literal["train", "test", "all"], typer.Option(help="Which images of --data.")
    ] = "test",
) -> None:
    """Put all that is known of a model on one page: a single HTML file that needs no network.

    Nothing is measured anew but the examples of --bag or --data; what is not known is named on
    the page with the command that finds it out.

    Example: unim2 report site.unim2 --figures figures.json --figures bench.json --bag drive
    --rig rig.yaml --out report.html
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise typer.BadParameter(f"expected a name ending in .html, found {out.name}")
    if bag and data:
        raise typer.BadParameter("expected --bag or --data, to show examples of; found both")
    from unim2_core.showing.report import check_installed, render

    check_installed()
    bundle, folder = _opened(source, run)
    read = [parts.read_figures(path) for path in figures or ()]
    shown = _examples(bundle, data, root, split, bag, rig, topic, frames) if bag or data else None
    history = [] if folder is None else read_history(folder / HISTORY)
    page = render(_content(source, bundle, folder, history, read, shown))
    write_atomically(out, page.encode())
    console.print(escape(f"{out}: {len(page) / 1e3:.0f} kB, opens in any browser, offline"))


def _opened(source: Path, run: Path | None) -> tuple[Bundle | None, Path | None]:
    """The model and its run directory; either may be missing, not both."""
    if (source / MANIFEST).is_file() or source.name.endswith(SUFFIX):
        beside = source.with_name(source.name.removesuffix(SUFFIX) + RUN_SUFFIX)
        folder = run or (beside if (beside / HISTORY).is_file() else None)
        _check_run(folder)
        return Bundle(source), folder
    _check_run(source)
    model = source.with_name(source.name.removesuffix(RUN_SUFFIX) + SUFFIX)
    return (Bundle(model) if (model / MANIFEST).is_file() else None), source


def _check_run(folder: Path | None) -> None:
    if folder is None or (folder / HISTORY).is_file():
        return
    raise DataError(
        f"{folder} is neither a model nor the directory of a run",
        expected=f"NAME{SUFFIX}, or a directory with {HISTORY}",
        found="a directory without them" if folder.is_dir() else "no such directory",
        remedy="keep the directory of a training with: unim2 train ... --run DIR",
    )


def _content(
    source: Path,
    bundle: Bundle | None,
    folder: Path | None,
    history: list[dict[str, Any]],
    read: list[tuple[str, parts.Content]],
    shown: dict[str, Any] | None,
) -> dict[str, Any]:
    from unim2_core.cli.report_charts import search_chart, training_charts

    def of(kind: str) -> list[parts.Content]:
        return [content for found, content in read if found == kind]

    evaluations = [parts.evaluation_of(content) for content in of("evaluate")]
    benches = [parts.bench_of(content) for content in of("bench")]
    model = str(source) if bundle is not None else f"NAME{SUFFIX}"
    now = datetime.now(timezone.utc)
    return {
        "title": source.name if bundle is None else bundle.manifest.name,
        "summary": "a run without a model yet" if bundle is None else bundle.manifest.summary,
        "notes": _notes(bundle, evaluations),
        "tiles": _tiles(bundle, evaluations, benches),
        "classes": parts.classes_of(bundle) if bundle else None,
        "criteria": parts.criteria_of(bundle) if bundle else None,
        "configuration": parts.configuration_of(bundle) if bundle else {},
        "evaluations": evaluations,
        "benches": benches,
        "drives": [parts.drive_of(content) for content in of("segment")],
        "bags": [parts.bag_of(content) for content in of("info")],
        "data": parts.data_of(bundle, of("evaluate")),
        "examples": shown,
        "charts": training_charts(history),
        "training_note": f"From {folder}: every {HISTORY} line of its scalars.",
        "searches": [
            {
                "text": f"{len(content['trials'])} trials; score {content['basis']}.",
                "chart": search_chart(content["trials"]),
            }
            for content in of("search")
        ],
        "environment": environment(),
        "commands": _commands(model),
        "made": f"Made by unim2 {__version__}, {now:%Y-%m-%d %H:%M} UTC.",
    }


def _notes(bundle: Bundle | None, evaluations: list[dict[str, Any]]) -> list[str]:
    """What a reader must know before any figure."""
    if bundle is None:
        return []
    notes = []
    if bundle.manifest.backbone.baseline:
        name = bundle.manifest.backbone.name
        notes.append(f"The backbone {name} is for trying, not for a robot: so are the figures.")
    for one in evaluations:
        if one["version"] != bundle.version:
            other = one["version"]
            notes.append(f"The figures on {one['data']} are of version {other}, not of this one.")
            warn(notes[-1])
    settings = bundle.manifest.training.get("settings") or {}
    if (settings.get("origin") or {}).get("uses_labels"):
        notes.append("The settings were found with labels: an oracle, for comparison only.")
    return notes


def _tiles(
    bundle: Bundle | None, evaluations: list[dict[str, Any]], benches: list[dict[str, Any]]
) -> dict[str, str]:
    """The few figures that are looked for first."""
    from unim2_core.showing.report import percent

    tiles = {}
    if bundle is not None:
        tiles["classes"] = str(len(bundle.manifest.labels))
        tiles["modalities"] = str(len(bundle.manifest.modalities))
    if evaluations:
        tiles["mean IoU"] = percent(evaluations[0]["mean_iou"])
    rates = [row["figures"][2] for bench in benches for row in bench["rows"] if "figures" in row]
    if rates:
        tiles["frames/s, fastest engine"] = f"{max(rates):.2f}"
    if bundle is not None:
        tiles["version"] = bundle.version
    return tiles


def _commands(model: str) -> dict[str, str]:
    """The command behind each part that may be missing."""
    evaluate = f"unim2 evaluate {model} --data DATA.yaml --json figures.json"
    return {
        "examples": f"unim2 report {model} --bag BAG --rig RIG.yaml --out report.html",
        "evaluate": f"{evaluate}, then give --figures figures.json",
        "each_missing": f"{evaluate} --each-missing, then give --figures figures.json",
        "train": "unim2 train ... --run DIR, then give --run DIR",
        "bench": f"unim2 bench {model} --json bench.json, then give --figures bench.json",
        "segment": f"unim2 segment BAG --model {model} --out OUT.mcap --json segment.json, then "
        "give --figures segment.json",
        "info": "unim2 info BAG --json info.json, then give --figures info.json",
    }


def _examples(
    bundle: Bundle | None,
    data: str | None,
    root: Path | None,
    split: Literal["train", "test", "all"],
    bag: list[Path] | None,
    rig: Path | None,
    topic: list[str] | None,
    frames: int,
) -> dict[str, Any]:
    """Three pictures of a drive or a data set, run through the model."""
    if bundle is None:
        raise DataError(
            "there is no model to show examples of",
            expected=f"a bundle NAME{SUFFIX} beside the run",
            found="none",
            remedy=f"name the model, and the run with --run: unim2 report NAME{SUFFIX} --run RUN",
        )
    from unim2_core.cli.evaluation import Sources
    from unim2_core.cli.report_pictures import pictures_of
    from unim2_core.evaluation.examples import IOU, examples
    from unim2_core.inference.engine import Engine

    names = [entry.name for entry in bundle.manifest.modalities]
    sources = Sources(
        *(data, root, split, "full", bag or (), rig, topic, frames), labels_needed=False
    )
    pictures, missing = sources.open(bundle, names)
    there = [name for name in names if name not in missing]
    engine = Engine(bundle)
    with progress("examples", pictures.limit) as advance:
        count = 0

        def done(number: int) -> None:
            nonlocal count
            count = number
            advance(number)

        found = examples(engine, bundle.manifest, pictures, there, done)
    measure = found[0].measure
    return {
        "measure": measure,
        "labelled": measure == IOU,
        "count": count,
        "rows": [
            {
                "place": example.place,
                "name": example.name,
                "figure": example.figure,
                "pictures": pictures_of(example, bundle.manifest),
            }
            for example in found
        ],
    }
