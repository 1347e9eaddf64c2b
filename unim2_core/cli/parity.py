"""``unim2 parity``: compare this installation with the reference release's stored results."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from unim2_core.cli.console import console, write_json
from unim2_core.evaluation.parity import Report, compare


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
        for line in _lines(report):
            console.print(line, soft_wrap=True)  # a row is one line, whatever its length
        passed, out, skipped = report.counts
        console.print(f"{passed} ok, {out} out, {skipped} skipped", soft_wrap=True)
    if report.not_covered:
        console.print(f"not covered yet: {escape(', '.join(report.not_covered))}", soft_wrap=True)
    if json_file is not None:
        write_json(json_file, _content(report))
    if not report.ok:
        raise typer.Exit(1)


def _lines(report: Report) -> Iterator[str]:
    head = ("file", "case", "compared")
    texts = [head, *((row.file, row.case, row.compared) for row in report.rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    numbers = [("max error", "tolerance", "")]
    for row in report.rows:
        if row.skipped:
            numbers.append(("-", "-", f"[yellow]skipped[/]: {escape(row.skipped)}"))
            continue
        verdict = "ok" if row.ok else "[bold red]OUT[/]"
        numbers.append((f"{row.max_error:.1e}", f"{row.tolerance:.1e}", verdict))
    for text, (error, tolerance, verdict) in zip(texts, numbers, strict=True):
        left = "  ".join(map(str.ljust, text, widths))
        yield f"{escape(left)}  {error:>9}  {tolerance:>9}  {verdict}".rstrip()


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
