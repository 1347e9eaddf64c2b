"""``unim2 rollback``: serve an earlier version of a model again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from unim2_core.cli.console import console
from unim2_core.model.bundle import Bundle
from unim2_core.model.versions import changing, go_back


def command(
    model: Annotated[Path, typer.Argument(help="Model bundle, NAME.unim2.")],
    steps: Annotated[
        int | None, typer.Option(min=1, help="How many versions back; default: 1.")
    ] = None,
    to: Annotated[
        int | None, typer.Option(min=0, help="Or number of the version; 0 = as it was trained.")
    ] = None,
) -> None:
    """Go back to an earlier version: the same bytes are served as then.

    Nothing is removed; unim2 rollback --to goes forward again, too.

    Example: unim2 rollback site.unim2 --steps 2
    """
    if steps is not None and to is not None:
        raise typer.BadParameter("expected either --steps or --to")
    with changing(model):
        before = Bundle(model).manifest.number
        bundle = go_back(model, steps=steps or 1, to=to)
    console.print(
        escape(
            f"{model} serves version {bundle.manifest.number} ({bundle.version}), before: {before}"
        )
    )
