"""A fleet from patterns to outputs: who does the work, and what is said of it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import Advance, console, progress, warn, write_json
from unim2_core.errors import Unim2Error
from unim2_core.fleet.alone import run_alone
from unim2_core.fleet.cluster import Size, connected, is_installed, run_on_cluster
from unim2_core.fleet.drives import Drive, list_drives, named
from unim2_core.fleet.state import State
from unim2_core.fleet.summary import FIGURES, summarize, write_page
from unim2_core.fleet.transfer import Place, check_store
from unim2_core.fleet.work import Job, Outcome, Task
from unim2_core.showing.report import check_installed

NONE, LOCAL = "none", "local"
TOLD = 20
"""Drives that did not get done which are listed on the terminal."""


@dataclass(frozen=True)
class Spread:
    """What the command line says of drives and workers; see the help of ``unim2 fleet``."""

    drives: Sequence[str]
    out: Path
    address: str | None
    workers: int | None
    cores: int | None
    gpus: float
    retries: int
    again: bool
    to: str | None
    json_file: Path | None


def run_fleet(job: Job, spread: Spread) -> dict[str, Any]:
    """Do a job with all drives that are left; returns the figures.

    Raises:
        Unim2Error: the drives, the cluster, the model or a place cannot be used.
    """
    check_installed()
    if spread.to is not None:
        check_store(spread.to)
    identity = {**job.identity(), **({"to": spread.to} if spread.to else {})}
    place = Place(spread.out.absolute(), spread.to)
    found = list_drives(spread.drives, warn)
    with ExitStack() as stack:
        state = stack.enter_context(State(place.folder, identity))
        drives = named(found, state.names)
        tasks = state.left(drives, place, spread.retries, again=spread.again)
        console.print(f"{len(drives)} drives, {len(tasks)} of them to be done")
        began = time.monotonic()
        finished: list[str] = []
        workers = 0
        try:
            if tasks:
                runner = _Runner(job, place, spread, state, stack)
                outcomes, workers = runner.start(tasks)
                with progress(f"fleet, {_plural(workers, 'worker')}", len(tasks)) as advance:
                    _collect(outcomes, state, finished, advance)
        finally:
            figures = summarize(
                *(state, drives, identity),
                seconds=time.monotonic() - began,
                workers=workers,
                now=finished,
            )
            write_json(place.folder / FIGURES, figures)
            page = write_page(place.folder, figures)
    _print(figures, page)
    if spread.json_file:
        write_json(spread.json_file, figures)
    return figures


class _Runner:
    """Chooses between this process and a cluster."""

    def __init__(
        self, job: Job, place: Place, spread: Spread, state: State, stack: ExitStack
    ) -> None:
        self._job, self._place, self._spread = job, place, spread
        self._state, self._stack = state, stack

    def start(self, tasks: list[Task]) -> tuple[Iterator[Outcome], int]:
        """Begin; returns the outcomes as they come, and how many workers there are."""
        spread = self._spread
        address = spread.address
        if address is None:
            address = LOCAL if is_installed() and len(tasks) > 1 else NONE
        if address == NONE:
            return self._alone(tasks), 1
        cluster = self._stack.enter_context(connected(address))
        if cluster.dashboard:
            console.print(f"Ray's dashboard: {cluster.dashboard}")
        size = Size(spread.workers, spread.cores or 1, spread.gpus, spread.retries)
        outcomes = run_on_cluster(tasks, self._job, self._place, cluster, size, warn)
        return outcomes, min(size.fits(cluster), len(tasks))

    def _alone(self, tasks: list[Task]) -> Iterator[Outcome]:
        current: list[Drive] = []

        def begin(task: Task) -> None:
            current[:] = [task.drive]
            self._state.begin(task)

        run = partial(run_alone, threads=self._spread.cores or 0, retries=self._spread.retries)
        try:
            yield from run(tasks, self._job, self._place, begin=begin)
        except (KeyboardInterrupt, Unim2Error):
            for drive in current:
                self._state.give_back(drive)
            raise


def _collect(
    outcomes: Iterator[Outcome], state: State, finished: list[str], advance: Advance
) -> None:
    for outcome in outcomes:
        state.end(outcome)
        finished.append(outcome.task.drive.address)
        if outcome.status == "quarantined":
            warn(f"{outcome.task.drive.name} is quarantined: {outcome.reason.splitlines()[0]}")
        advance(len(finished))


def _plural(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _print(figures: dict[str, Any], page: Path) -> None:
    """Say what became of the fleet."""
    totals, call = figures["totals"], figures["this_call"]
    table = Table("drives", "done", "quarantined", "left", "images", "images/s", "MB written")
    table.add_row(
        *(str(totals[key]) for key in ("drives", "done", "quarantined", "open", "frames")),
        f"{call['frames_per_s']:.3g}" if call["frames"] else "-",
        f"{totals['bytes'] / 1e6:.1f}",
    )
    console.print(table)
    rows = [row for row in figures["drives"] if row["status"] != "done"]
    if rows:
        table = Table("drive", "state", "reason")
        for row in rows[:TOLD]:
            first = (row["reason"].splitlines() or [""])[0]
            table.add_row(escape(row["name"]), row["status"], escape(first))
        console.print(table)
    shifted = [row for row in figures["drives"] if row["shift"] is not None]
    if shifted:
        table = Table("drive", "unlike the past", "verdict")
        for row in sorted(shifted, key=lambda row: -row["shift"])[:TOLD]:
            table.add_row(escape(row["name"]), f"{100 * row['shift']:.0f} %", row["verdict"] or "")
        console.print(table)
    console.print(escape(f"{page}: the fleet as a page, {FIGURES} beside it for machines"))
