"""``unim2 info``: what is in a bag and how well its streams fit together, or what a model is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, errors, progress, warn, write_json
from unim2_core.cli.info_model import is_model, show_model
from unim2_core.cli.options import JsonFile
from unim2_core.errors import BagError
from unim2_core.sensing.bag_pairing import Pairing, findings, pair
from unim2_core.sensing.bag_rig import reference_topic
from unim2_core.sensing.bag_summary import BagSummary, TopicSummary, summarize
from unim2_core.sensing.bags import BagReader


def command(
    bag: Annotated[
        Path, typer.Argument(help="rosbag2 directory, .mcap, .db3, ROS 1 .bag, or a model bundle.")
    ],
    reference: Annotated[
        str | None,
        typer.Option(help="Image topic to synchronise with; without it: the colour camera."),
    ] = None,
    json: JsonFile = None,
) -> None:
    """Show topics, rates, gaps and images of a bag, and how well its streams fit together.

    Of a model: what it looks at, its classes and its version. Exit status 1 where the bag is
    damaged, after all that can be read.

    Example: **unim2 info drive --json info.json**
    """
    if is_model(bag):
        show_model(bag, json)
        return
    with (
        BagReader(bag) as reader,
        progress(f"reading {bag.name}", reader.message_count) as advance,
    ):
        summary = summarize(reader, advance)
    first = _reference(summary, reference)
    others = [topic for topic in summary.images if topic is not first]
    pairings = [] if first is None else [pair(first, topic) for topic in others]
    found = findings(summary, pairings)
    console.print(
        f"[bold]{escape(str(bag))}[/]: {summary.duration_s:.1f} s, "
        f"{sum(topic.log_ns.size for topic in summary.topics.values())} messages"
    )
    console.print(_topic_table(summary))
    if summary.images:
        console.print(_image_table(summary.images))
    if pairings:
        console.print(_pairing_table(pairings))
    for text in [*summary.notes, *found]:
        warn(text)
    if json is not None:
        write_json(json, _content(bag, summary, pairings, found))
    if summary.stopped:
        errors.print(f"[bold red]error:[/] {escape(summary.stopped)}")
        raise typer.Exit(1)


def _reference(summary: BagSummary, name: str | None) -> TopicSummary | None:
    if name is None:
        return reference_topic(summary)
    for topic in summary.images:
        if topic.info.name == name:
            return topic
    raise BagError(
        f"{name} cannot be the reference",
        expected="an image topic of the bag",
        found=", ".join(topic.info.name for topic in summary.images) or "no image topic",
        remedy="name one of these with --reference",
    )


def _topic_table(summary: BagSummary) -> Table:
    table = _table("Topics", "topic", "type")
    for name in ("messages", "Hz", "jitter ms", "gaps", "longest s", "delay ms"):
        table.add_column(name, justify="right")
    for topic in summary.topics.values():
        standing = topic.info.definition
        mark = {"standard": "", "stored": " (custom)", "missing": " (unknown)"}[standing]
        delay = topic.delay_s
        table.add_row(
            escape(topic.info.name),
            escape(topic.info.type + mark),
            str(topic.log_ns.size),
            _number(topic.rate_hz, 1),
            _number(topic.jitter_s, 1, 1e3),
            str(topic.gaps),
            _number(topic.longest_gap_s, 2),
            _number(None if delay is None else float(delay[0]), 1, 1e3),
        )
    return table


def _image_table(topics: list[TopicSummary]) -> Table:
    table = _table("Images", "topic", "encoding", "size", "values", "frame")
    for topic in topics:
        form = topic.image
        table.add_row(
            escape(topic.info.name),
            escape(form.encoding) if form else "?",
            f"{form.width}x{form.height}" if form else "?",
            f"{_number(form.low, 0)} - {_number(form.high, 0)}" if form else "?",
            escape(topic.frame_id),
        )
    return table


def _pairing_table(pairings: list[Pairing]) -> Table:
    table = _table(f"Beside {escape(pairings[0].reference)}", "topic")
    for name in ("paired", "within ms", "skew ms", "p95 ms", "offset ms", "overlap s"):
        table.add_column(name, justify="right")
    for found in pairings:
        table.add_row(
            escape(found.topic),
            f"{100 * found.share:.1f} %",
            _number(found.limit_s, 1, 1e3),
            _number(found.median_skew_s, 1, 1e3),
            _number(found.p95_skew_s, 1, 1e3),
            _number(found.offset_s, 1, 1e3),
            _number(max(found.overlap_s, 0.0), 1),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in columns:
        # Names that are too long go on in the next line rather than lose their end.
        table.add_column(name, overflow="fold")
    return table


def _number(value: float | None, digits: int, factor: float = 1.0) -> str:
    return "-" if value is None else f"{value * factor:.{digits}f}"


def _content(
    bag: Path, summary: BagSummary, pairings: list[Pairing], found: list[str]
) -> dict[str, Any]:
    return {
        "bag": str(bag),
        "duration_s": summary.duration_s,
        "stopped": summary.stopped,
        "reference": pairings[0].reference if pairings else None,
        "notes": summary.notes,
        "findings": found,
        "topics": {name: _topic_content(topic) for name, topic in summary.topics.items()},
        "pairings": [vars(pairing) for pairing in pairings],
    }


def _topic_content(topic: TopicSummary) -> dict[str, Any]:
    delay = topic.delay_s
    return {
        "type": topic.info.type,
        "definition": topic.info.definition,
        "latched": topic.info.latched,
        "messages": int(topic.log_ns.size),
        "rate_hz": topic.rate_hz,
        "period_s": topic.period_s,
        "jitter_s": topic.jitter_s,
        "gaps": topic.gaps,
        "longest_gap_s": topic.longest_gap_s,
        "zero_stamps": topic.zero_stamps,
        "backward_steps": topic.backward_steps,
        "delay_median_s": None if delay is None else float(delay[0]),
        "delay_p95_s": None if delay is None else float(delay[1]),
        "frame_id": topic.frame_id,
        "image": None if topic.image is None else vars(topic.image),
        "problem": topic.problem,
    }
