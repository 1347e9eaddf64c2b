"""What every command prints with: results on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from unim2_core.errors import Unim2Error
from unim2_core.files import write_atomically

PIPE_COLUMNS = 140
"""Width of tables where there is no terminal to ask."""


def _console(*, stderr: bool) -> Console:
    """What is found in files is printed as it is: no emoji, no colours, no broken commands."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    width = None if terminal else PIPE_COLUMNS
    return Console(stderr=stderr, width=width, highlight=False, emoji=False, soft_wrap=True)


console = _console(stderr=False)
errors = _console(stderr=True)

PLAIN_EVERY = 0.1
"""Without a terminal, a line is printed at each tenth of the work."""


class _Rate(ProgressColumn):
    """Steps a second."""

    def render(self, task: Task) -> Text:
        """Nothing before two steps are done."""
        return Text("" if task.speed is None else f"{task.speed:.3g}/s")


class Advance(Protocol):
    """Called with how much is done, and with the total where it has changed."""

    def __call__(self, done: int, total: int | None = None) -> None: ...  # noqa: D102


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Advance]:
    """A progress bar on a terminal, plain lines elsewhere, nothing where it is to be quiet.

    Args:
        description: what is being done, a few words.
        total: number of steps, None where it is not known.

    Yields:
        Function to call with the number of steps done so far.
    """
    if console.quiet:
        yield _unsaid
        return
    if errors.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=errors) as bar:
            task = bar.add_task(escape(description), total=total)

            def advance(done: int, total: int | None = None) -> None:
                bar.update(task, completed=done, total=total)

            yield advance
        return

    known = total
    printed = -1

    def plain(done: int, total: int | None = None) -> None:
        nonlocal known, printed
        known = total or known
        if not known:
            return
        step = int(done / known / PLAIN_EVERY)
        if step > printed:
            printed = step
            sys.stderr.write(f"{description}: {done}/{known}\n")

    yield plain


def _unsaid(done: int, total: int | None = None) -> None:
    """Progress that nobody wants to see."""


def fail(error: Unim2Error) -> None:
    """Print an error that the user can mend."""
    errors.print(f"[bold red]error:[/] {escape(str(error))}")


_overheard: list[str] | None = None


@contextmanager
def aside() -> Iterator[list[str]]:
    """Print nothing: one of many does its part, and all of them are reported together.

    Yields:
        The warnings, as they come.
    """
    global _overheard
    before, quiet = _overheard, console.quiet
    _overheard, console.quiet = [], True
    try:
        yield _overheard
    finally:
        _overheard, console.quiet = before, quiet


def warn(text: str) -> None:
    """Print a warning: the work goes on."""
    if _overheard is not None:
        _overheard.append(text)
        return
    errors.print(f"[yellow]warning:[/] {escape(text)}")


def write_json(path: Path, content: Any) -> None:
    """Write machine-readable results, whole or not at all."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    write_atomically(path, (text + "\n").encode())
