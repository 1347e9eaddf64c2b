"""Line charts as SVG that takes its colours from the page it stands in: light or dark."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

WIDTH, HEIGHT = 420, 190
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 26
MOST_POINTS = 300
HUES = 8
"""Colours that the page defines, ``--hue-0`` and on; more lines than that share them."""

Points = Sequence[tuple[float, float]]


class Line(NamedTuple):
    """One line of a chart's legend.

    Attributes:
        name: what it shows.
        hue: number of its colour.
        last: its last value.
    """

    name: str
    hue: int
    last: float


def legend(lines: Mapping[str, Points]) -> list[Line]:
    """What the lines of ``line_chart`` are, in its colours."""
    return [Line(name, index % HUES, points[-1][1]) for index, (name, points) in _drawn(lines)]


def line_chart(lines: Mapping[str, Points], x_title: str = "step") -> str:
    """Draw lines over a common pair of axes.

    Args:
        lines: name -> (x, y) in the order of x; what is not finite leaves no mark.
        x_title: of the horizontal axis.

    Returns:
        An ``<svg>`` element whose texts are escaped; empty where there is nothing to draw.
    """
    drawn = _drawn(lines)
    if not drawn:
        return ""
    every = [point for _, (_, points) in drawn for point in points]
    left, right = _range([x for x, _ in every])
    y_ticks = _ticks(*_range([y for _, y in every]))
    low, high = y_ticks[0], y_ticks[-1]

    def across(x: float) -> float:
        return LEFT + (x - left) / (right - left) * (WIDTH - LEFT - RIGHT)

    def down(y: float) -> float:
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in y_ticks:
        y = down(tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for x, anchor in ((left, "start"), (right, "end")):
        parts.append(
            f'<text x="{across(x):.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">{x:g}</text>'
        )
    middle = (LEFT + WIDTH - RIGHT) / 2
    title = html.escape(x_title)
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{title}</text>')
    for index, (name, points) in drawn:
        path = " ".join(f"{across(x):.1f},{down(y):.1f}" for x, y in points)
        style = f'style="stroke:var(--hue-{index % HUES})"'
        if len(points) == 1:
            x, y = points[0]
            shape = f'<circle cx="{across(x):.1f}" cy="{down(y):.1f}" r="2" {style}>'
            parts.append(f"{shape}<title>{html.escape(name)}</title></circle>")
        else:
            shape = f'<polyline points="{path}" {style}>'
            parts.append(f"{shape}<title>{html.escape(name)}</title></polyline>")
    label = html.escape(", ".join(name for _, (name, _) in drawn), quote=True)
    box = f'viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<svg class="chart" {box} role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _drawn(lines: Mapping[str, Points]) -> list[tuple[int, tuple[str, Points]]]:
    """Number of each line and what of it is drawn."""
    finite = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in lines.items()
    }
    thinned = {name: _thinned(points) for name, points in finite.items() if points}
    return list(enumerate(thinned.items()))


def _thinned(points: Points) -> Points:
    """At most ``MOST_POINTS`` and the last one."""
    step = math.ceil(len(points) / MOST_POINTS)
    kept = list(points[::step])
    return kept if kept[-1] == points[-1] else [*kept, points[-1]]


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.0 if high > low else max(abs(low), 1.0) / 2
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, a few, of which the first and the last enclose the range."""
    rough = (high - low) / 4
    scale = 10 ** math.floor(math.log10(rough))
    step = next(factor * scale for factor in (1, 2, 5, 10) if factor * scale >= rough)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [index * step for index in range(first, last + 1)]
