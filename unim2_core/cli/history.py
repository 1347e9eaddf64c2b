"""``unim2 history``: what became of a model since it was trained."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, write_json
from unim2_core.cli.options import JsonFile
from unim2_core.model.bundle import Bundle
from unim2_core.model.versions import approve, changing, read_history, stored


def command(
    model: Annotated[Path, typer.Argument(help="Model bundle, NAME.unim2.")],
    accept: Annotated[
        int | None, typer.Option(help="Serve this version, which was kept for review.")
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Show the versions of a model, why each was served or not, and which can be gone back to.

    Example: unim2 history site.unim2 --json history.json
    """
    if accept is not None:
        with changing(model):
            approve(model, accept)
    bundle = Bundle(model)
    entries = read_history(model)
    served = bundle.manifest.number
    table = Table("version", "from", "event", "when", "drives", "why", "kept")
    table.add_row("0", "-", "trained", "-", "-", "-", "yes")
    for entry in entries:
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.when))
        reasons = [str(reason) for reason in entry.details.get("reasons", ())]
        table.add_row(
            str(entry.number),
            str(entry.parent),
            entry.event,
            when,
            escape(", ".join(map(str, entry.details.get("drives", ()))) or "-"),
            escape("; ".join(reason.partition(":")[0] for reason in reasons) or "-"),
            "yes" if entry.sha256 and stored(model, entry.number) else "no",
        )
    console.print(table)
    console.print(escape(f"{model} serves version {served} ({bundle.version})"))
    if json_file:
        write_json(
            json_file,
            {
                "served": served,
                "sha256": bundle.sha256,
                "labels_version": bundle.manifest.labels_version,
                "entries": [entry.model_dump(mode="json") for entry in entries],
            },
        )
