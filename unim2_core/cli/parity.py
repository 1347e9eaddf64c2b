"""``unim2 parity``: compare this installation with the reference release's stored results."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, write_json
from unim2_core.evaluation.parity import Report, compare

PLAIN_WIDTH = 200
"""Columns for the table where nothing says how wide the paper is."""


def command(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Golden files: .npz, .ckpt with _expected.npz.")
    ],
    file: Annotated[
        str | None, typer.Option("--file", metavar="NAME", help="Compare this file only.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the rows here as well.")
    ] = None,
) -> None:
    """Compare with stored results of the reference release, a row for each comparison.

    Exit status 1 where a row is out of tolerance or a file is not covered.

    Example: unim2 parity golden/ --file backbone_tiny
    """
    report = compare(folder, file)
    if report.rows:
        # In a file or a pipe a row is one line, whatever its length.
        console.print(_table(report), width=None if console.is_terminal else PLAIN_WIDTH)
    if report.not_covered:
        console.print(f"not covered yet: {escape(', '.join(report.not_covered))}", soft_wrap=True)
    if json_file is not None:
        write_json(json_file, _content(report))
    if not report.ok:
        raise typer.Exit(1)


def _table(report: Report) -> Table:
    table = Table("file", "case", "compared", box=None)
    for title in ("max error", "tolerance"):
        table.add_column(title, justify="right")
    table.add_column("")
    for row in report.rows:
        verdict = "ok" if row.ok else "[bold red]OUT[/]"
        numbers = f"{row.max_error:.1e}", f"{row.tolerance:.1e}"
        table.add_row(*map(escape, (row.file, row.case, row.compared)), *numbers, verdict)
    return table


def _content(report: Report) -> dict[str, object]:
    rows = [
        {
            **asdict(row),
            "max_error": row.max_error if math.isfinite(row.max_error) else None,
            "ok": row.ok,
        }
        for row in report.rows
    ]
    return {"rows": rows, "not_covered": list(report.not_covered), "ok": report.ok}
