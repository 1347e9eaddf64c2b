"""What became of a fleet: for machines, and as one page for people."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unim2_core import __version__
from unim2_core.files import write_atomically
from unim2_core.fleet.drives import Drive
from unim2_core.fleet.state import Entry, State
from unim2_core.showing.report import render

TEMPLATE = "fleet.html.j2"
PAGE, FIGURES = "fleet.html", "fleet.json"
ROWS = 2000
"""Drives that the page lists: a browser is to open it."""
SHIFTED = 0.3
"""As ``learning.domains.SHIFTED``, which needs torch; a test holds them together."""


def summarize(
    state: State,
    drives: Iterable[Drive],
    identity: Mapping[str, Any],
    *,
    seconds: float,
    workers: int,
    now: Iterable[str],
) -> dict[str, Any]:
    """All figures of a fleet, JSON types only.

    Args:
        state: its journal.
        drives: those that were asked for.
        identity: of the job.
        seconds: that this call took.
        workers: that it had at most.
        now: addresses that this call finished.
    """
    finished = set(now)
    rows = [
        _row(state.entries.get(drive.address) or Entry(drive.address, drive.name), finished)
        for drive in drives
    ]
    states = [row["status"] for row in rows]
    done_now = [row for row in rows if row["now"] and row["status"] == "done"]
    frames = sum(row["frames"] or 0 for row in done_now)
    return {
        "settings": dict(identity),
        "drives": rows,
        "totals": {
            "drives": len(rows),
            **{name: states.count(name) for name in ("done", "quarantined", "open")},
            "frames": sum(row["frames"] or 0 for row in rows if row["status"] == "done"),
            "bytes": sum(row["size"] for row in rows),
            "worker_s": round(sum(row["seconds"] for row in rows), 3),
        },
        "this_call": {
            "done": len(done_now),
            "quarantined": sum(row["now"] for row in rows) - len(done_now),
            "frames": frames,
            "seconds": round(seconds, 3),
            "frames_per_s": round(frames / seconds, 3) if seconds else None,
            "workers": workers,
        },
    }


def _row(entry: Entry, finished: set[str]) -> dict[str, Any]:
    facts = entry.facts
    return {
        "name": entry.name,
        "address": entry.address,
        "status": entry.status,
        "reason": entry.reason,
        "outputs": list(entry.outputs),
        "size": entry.size,
        "seconds": entry.seconds,
        "now": entry.address in finished,
        **{key: facts.get(key) for key in ("frames", "compute_s", "shift", "verdict", "mean_iou")},
        "warnings": list(facts.get("warnings", ())),
    }


def write_page(folder: Path, figures: Mapping[str, Any]) -> Path:
    """Write the page; it needs nothing but a browser.

    Raises:
        Unim2Error: jinja2 is not installed, or the folder cannot be written to.
    """
    rows, totals, call = figures["drives"], figures["totals"], figures["this_call"]
    shifted = [row for row in rows if row["shift"] is not None]
    content = {
        "title": f"Fleet: {figures['settings']['job']}",
        "summary": f"{totals['done']} of {totals['drives']} drives are done.",
        "notes": [f"{totals['open']} drives are left: the same command goes on."]
        if totals["open"]
        else [],
        "tiles": {
            "done": totals["done"],
            "quarantined": totals["quarantined"],
            "images": totals["frames"],
            "images a second": "–" if not call["done"] else f"{call['frames_per_s']:.3g}",
            "workers": call["workers"],
            "written": f"{totals['bytes'] / 1e6:.1f} MB",
            "work": f"{totals['worker_s'] / 3600:.2f} h",
        },
        "quarantined": [row for row in rows if row["status"] == "quarantined"][:ROWS],
        "shifted": sorted(shifted, key=lambda row: -row["shift"])[:ROWS],
        "threshold": SHIFTED,
        "drives": rows[:ROWS],
        "more": max(0, len(rows) - ROWS),
        "settings": figures["settings"],
        "version": __version__,
        "when": datetime.datetime.now().astimezone().isoformat(" ", "minutes"),
    }
    path = folder / PAGE
    write_atomically(path, render(content, TEMPLATE).encode())
    return path
