"""``unim2 search``: find the numbers of a training, without a label unless asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    LearningData,
    Modalities,
    PresetName,
    Variant,
    clusters_from,
    default_cache,
    open_learning_data,
    suggested_clusters,
    torch_is_here,
)
from unim2_core.cli.options import MAX_SEED, JsonFile, RigFile, Topics
from unim2_core.data.drive_labels import SYNTHETIC
from unim2_core.errors import ModelError
from unim2_core.files import cannot_write

if TYPE_CHECKING:
    from unim2_core.learning.features import FeatureStore
    from unim2_core.learning.search import Measure, Tried
    from unim2_core.learning.settings import Settings

MIOU, ACCURACY = 0.75, 0.25
"""What the oracle goes by, as the paper's release does."""


def command(
    out: Annotated[Path, typer.Option("--out", help="Settings to write, NAME.yaml.")],
    bag: Drives = None,
    data: DataSet = None,
    root: DataRoot = None,
    variant: Variant = None,
    rig: RigFile = None,
    topic: Topics = None,
    trials: Annotated[
        int,
        typer.Option(
            min=1,
            help="Trials that the study is to have in the end; each further process on it may "
            "add one.",
        ),
    ] = 200,
    stages: Annotated[
        int, typer.Option(min=1, help="How often a trial is scored; a bad one stops there.")
    ] = 4,
    each: Annotated[
        bool,
        typer.Option("--each", help="Numbers for each modality, not one set for all but one."),
    ] = False,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="Go by labels: for comparison, not for a robot.")
    ] = False,
    storage: Annotated[
        str | None, typer.Option(help="URL of a database that processes share; default: in --run.")
    ] = None,
    study: Annotated[str, typer.Option(help="Name of the study in the database.")] = "unim2",
    method: Annotated[
        Literal["unim2", "naive_fusion", "rgb_only"], typer.Option(help="How classes are found.")
    ] = "unim2",
    modalities: Modalities = None,
    clusters: Clusters = None,
    backbone: BackboneName = None,
    download: Download = False,
    preset: PresetName = "robot",
    steps: Annotated[
        int | None, typer.Option(min=2, help="Batches of a trial; default: 600, or as published.")
    ] = None,
    size: EncodedSize = None,
    frames: Frames = 100,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Equal seeds suggest equal trials.")
    ] = 0,
    device: Device = "auto",
    cache: Cache = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder of the study; default: NAME.search.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Find weights, shifts, code width and learning rate, without a label.

    The same command goes on where it was stopped, or joins in from another terminal, or, with
    --storage, from another machine. Features are computed once.

    Example: unim2 search --bag drive --trials 50 --steps 200 --out best.yaml, and then
    unim2 train --bag drive --config best.yaml --out site.unim2
    """
    if out.suffix not in (".yaml", ".yml"):
        raise typer.BadParameter(f"expected a name ending in .yaml, found {out.name}")
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
        labels=SYNTHETIC if oracle and bag else None,
    )
    torch_is_here()
    search_is_here()
    from unim2_core.cli.training import features_of, quiet
    from unim2_core.learning.learner import Learner
    from unim2_core.learning.methods import recipe
    from unim2_core.learning.search import Search, SearchConfig, tries

    opened = open_learning_data(asked)
    features = cache or default_cache()
    if count == "auto":
        count = suggested_clusters(opened, features, seed).clusters
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
    store = features_of(opened.pictures, opened.backbone, features)
    measure = _oracle(store) if oracle else _without_labels(opened, store, features)
    search = Search(
        Learner(store, made),
        measure,
        SearchConfig(trials, "modalities" if each else "groups", stages, seed=seed),
        {"pictures": opened.pictures.fingerprint(), "backbone": opened.backbone.digest},
    )
    folder = _folder(run or out.with_suffix(".search"))
    opened_study = search.open(storage or f"sqlite:///{folder.resolve() / 'study.db'}", study)
    console.print(escape(f"score: {measure.basis}; {search.left(opened_study)} trials to go"))
    quiet()

    def tell(tried: Tried) -> None:
        score = "none" if tried.score is None else f"{tried.score:.4f}"
        console.print(f"trial {tried.number}: {tried.state}, score {score} ({measure.basis})")

    search.run(opened_study, folder, tell)
    best = search.best(opened_study)
    best.write(out)
    found = tries(opened_study)
    _print(best, found, out)
    if json_file:
        write_json(
            json_file,
            {
                "basis": measure.basis,
                "study": study,
                "task": search.task,
                "settings": best.model_dump(mode="json", exclude_none=True),
                "trials": [vars(tried) for tried in found],
            },
        )


def search_is_here() -> None:
    """Check that what searches can be imported.

    Raises:
        ModelError: it is not installed.
    """
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "searching needs more than running a model",
            expected="optuna",
            found=str(error),
            remedy="pip install 'unim2[train]'",
        ) from error


def _oracle(store: FeatureStore) -> Measure:
    """A measure that goes by labels."""
    from unim2_core.cli.training import label_scores
    from unim2_core.learning.search import Measure
    from unim2_core.model.classifier import Classifier

    if store.labels is None:
        raise ModelError(
            "an oracle needs labels",
            expected="pictures with labels",
            found="none",
            remedy="leave out --oracle: the search needs no label",
        )
    warn("--oracle goes by labels: its result is for comparison, and marked as such")

    def score(model: Classifier) -> float:
        scores = label_scores(model, store)
        return MIOU * scores.mean_iou + ACCURACY * scores.accuracy

    return Measure("oracle (uses labels)", score)


def _without_labels(opened: LearningData, store: FeatureStore, cache: Path) -> Measure:
    """The measure that needs no label."""
    from unim2_core.cli.training import views_of
    from unim2_core.learning.search import Measure, steadiness
    from unim2_core.learning.selection import criteria
    from unim2_core.model.classifier import Classifier

    mirrored, cropped = views_of(opened.pictures, len(store), opened.backbone, cache)

    def score(model: Classifier) -> float:
        return steadiness(criteria(model, store, mirrored, cropped))

    return Measure("without labels", score)


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def _print(best: Settings, found: list[Tried], out: Path) -> None:
    """Say what was found."""
    assert best.origin is not None
    basis = best.origin.basis
    table = Table("modality", "w", "a own, knn, random", "b own, knn, random")
    table.title = f"trial {best.origin.trial}: score {best.origin.score:.4f}, {basis}"
    for name, how in best.modalities.items():
        table.add_row(
            name,
            f"{how.weight:.3f}",
            " ".join(f"{value:.3f}" for _, value in how.terms),
            " ".join(f"{value:.3f}" for _, value in how.shifts),
        )
    console.print(table)
    states = [tried.state for tried in found]
    counts = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    console.print(f"code width {best.code_dim}, learning rate {best.rate:.2e}; {counts}")
    console.print(escape(f"{out}: unim2 train --config {out} ...; {basis}"))
