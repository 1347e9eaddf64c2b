"""``unim2 name``: what the classes of a model are, in a browser or by options."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, warn, write_json
from unim2_core.cli.options import BackendName, JsonFile, RigFile, Topics
from unim2_core.model.bundle import UNLABELLED, Bundle
from unim2_core.model.relabelling import put_back, relabelled
from unim2_core.showing.naming.labelling import Color, Hint, Labelling
from unim2_core.showing.naming.session import hex_color

SURE = 0.5
"""Share of a cluster's labelled pixels from which ``--accept`` takes a name."""


def command(
    model: Annotated[Path, typer.Argument(help="Model bundle, NAME.unim2.")],
    bag: Annotated[
        list[Path] | None,
        typer.Option("--bag", help="Drive to show the clusters of, in a browser; repeatable."),
    ] = None,
    rig: RigFile = None,
    topic: Topics = None,
    frames: Annotated[
        int, typer.Option(min=1, help="Frame sets of each drive to look at, spread over it.")
    ] = 100,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            help="YAML file of labelled images, to suggest names.",
            dir_okay=False,
        ),
    ] = None,
    accept: Annotated[
        bool,
        typer.Option("--accept", help="Take the names that most labels of a cluster agree with."),
    ] = False,
    separate: Annotated[
        list[int] | None,
        typer.Option("--separate", help="Make a cluster a class of its own again; repeatable."),
    ] = None,
    merge: Annotated[
        list[str] | None,
        typer.Option("--merge", help="Clusters to be one class, named as the first: 5,7."),
    ] = None,
    unknown: Annotated[
        list[int] | None,
        typer.Option("--unknown", help="Serve a cluster as unlabelled, 255; repeatable."),
    ] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--set", help="CLUSTER=NAME; two of one name are one class; repeatable."),
    ] = None,
    colors: Annotated[
        list[str] | None,
        typer.Option("--color", help="CLUSTER=#RRGGBB; repeatable."),
    ] = None,
    back: Annotated[
        bool, typer.Option("--back", help="Go back to the names before the last change.")
    ] = False,
    show: Annotated[bool, typer.Option("--list", help="Only print the classes.")] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the page; 0: any that is free.")
    ] = 0,
    open_browser: Annotated[
        bool,
        typer.Option(
            "--open", help="Open the browser; other users of this machine may see the address."
        ),
    ] = False,
    backend: BackendName = "auto",
    json_file: JsonFile = None,
) -> None:
    """Name, colour and merge the classes of a model; the network stays what it is.

    With --bag a page opens that only this machine can reach: for each cluster its most typical
    and its least certain crops in every modality, what it resembles and touches, and what might
    be one class. Options do the same without a browser. What is served changes by a table in the
    model's manifest; the version before is kept, and --back goes back to it.

    Example: unim2 name site.unim2 --bag drive

    Example: unim2 name site.unim2 --set 3=road --merge 5,7 --unknown 9 --json classes.json
    """
    steps = bool(separate or merge or unknown or names or colors or accept)
    if accept and not labels:
        raise typer.BadParameter("--accept needs --labels, which say what the names are")
    if sum((back, show, steps)) > 1 or (bag and (back or show or steps)):
        raise typer.BadParameter("expected one of: --bag, --back, --list, or changes by options")
    if not (back or show or steps or bag or labels):
        raise typer.BadParameter("expected --bag to look at, --list, or a change such as --set")
    bundle = Bundle(model)
    if bag or (labels and not steps):
        from unim2_core.cli.naming import serve

        bundle = serve(bundle, bag or (), rig, topic, frames, labels, backend, port, open_browser)
    elif back:
        bundle = put_back(bundle)
    elif steps:
        labelling = Labelling.of(bundle.manifest)
        for cluster in separate or ():
            labelling = labelling.separated(cluster)
        for text in merge or ():
            labelling = labelling.merged(_clusters(text))
        for cluster in unknown or ():
            labelling = labelling.unknown(cluster)
        if accept and labels:
            from unim2_core.cli.naming import hints_from

            labelling = accepted(labelling, hints_from(bundle, labels, backend))
        for cluster, name in _pairs(names or (), "--set", "CLUSTER=NAME"):
            labelling = labelling.named(cluster, name)
        for cluster, text in _pairs(colors or (), "--color", "CLUSTER=#RRGGBB"):
            labelling = labelling.colored(cluster, _color(text))
        bundle = relabelled(bundle, labelling.labels, labelling.served_as)
    report(bundle)
    if json_file:
        write_json(json_file, content(bundle))


def accepted(labelling: Labelling, hints: dict[int, Hint]) -> Labelling:
    """Take every name that at least half of a cluster's labels agree with.

    Args:
        labelling: to begin with.
        hints: cluster -> what labels suggest.
    """
    for cluster, hint in sorted(hints.items(), key=lambda item: not item[1].assigned):
        if hint.share >= SURE:
            labelling = labelling.named(cluster, hint.name)
        else:
            warn(
                f"cluster {cluster} keeps its name: only {100 * hint.share:.0f} % of its labels "
                f"are {hint.name}"
            )
    return labelling


def report(bundle: Bundle) -> None:
    """Print the classes of a model and the clusters that are served as each."""
    manifest = bundle.manifest
    parent = f", made from {manifest.parent[:12]}" if manifest.parent else ""
    console.print(escape(f"{manifest.summary}; version {bundle.version}{parent}"))
    table = Table("id", "name", "colour", "clusters")
    labelling = Labelling.of(manifest)
    for label in sorted(manifest.labels, key=lambda label: label.id):
        members = ", ".join(map(str, labelling.members(label.id)))
        table.add_row(str(label.id), escape(label.name), hex_color(label.color), members)
    lost = [cluster for cluster, served in enumerate(labelling.served) if served == UNLABELLED]
    if lost:
        table.add_row(str(UNLABELLED), "(unlabelled)", "", ", ".join(map(str, lost)))
    console.print(table)


def content(bundle: Bundle) -> dict[str, Any]:
    """The same for machines."""
    manifest = bundle.manifest
    return {
        "model": manifest.name,
        "version": bundle.version,
        "sha256": bundle.sha256,
        "parent": manifest.parent,
        "clusters": manifest.clusters,
        "labels": [label.model_dump(mode="json") for label in manifest.labels],
        "served_as": {str(cluster): into for cluster, into in manifest.served_as.items()},
    }


def _clusters(text: str) -> list[int]:
    try:
        found = [int(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) < 2:
        raise typer.BadParameter(
            f"expected numbers of two clusters or more, as 5,7; found {text!r}",
            param_hint="--merge",
        )
    return found


def _pairs(items: Sequence[str], option: str, form: str) -> list[tuple[int, str]]:
    found = []
    for item in items:
        cluster, equals, value = item.partition("=")
        if not equals or not value or not cluster.strip().isdecimal():
            raise typer.BadParameter(f"expected {form}, found {item!r}", param_hint=option)
        found.append((int(cluster), value))
    return found


def _color(text: str) -> Color:
    digits = re.fullmatch(r"#?([0-9a-fA-F]{6})", text)
    if not digits:
        raise typer.BadParameter(f"expected #RRGGBB, found {text!r}", param_hint="--color")
    red, green, blue = bytes.fromhex(digits[1])
    return red, green, blue
