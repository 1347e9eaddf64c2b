"""Line charts: marks where the numbers are, texts that cannot break out."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

from hypothesis import given
from hypothesis import strategies as st

from unim2_core.showing.charts import HEIGHT, MOST_POINTS, WIDTH, legend, line_chart

numbers = st.floats(-1e6, 1e6).filter(lambda value: value == 0 or abs(value) > 1e-6)


def polylines(svg: str) -> list[list[tuple[float, float]]]:
    root = ElementTree.fromstring(svg)
    found = [element.get("points", "") for element in root.iter("polyline")]
    return [[tuple(map(float, pair.split(","))) for pair in text.split()] for text in found]


@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=20))
def test_every_mark_lies_inside(points):
    svg = line_chart({"one": sorted(points)})
    (drawn,) = polylines(svg)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in drawn)


def test_higher_numbers_are_drawn_higher():
    ((_, low), (_, high)) = polylines(line_chart({"one": [(0, 1.0), (1, 2.0)]}))[0]
    assert high < low  # rows count downwards


def test_long_lines_are_thinned_and_keep_their_end():
    points = [(float(i), math.sin(i / 100)) for i in range(10_000)]
    (drawn,) = polylines(line_chart({"one": points}))
    assert len(drawn) <= MOST_POINTS + 1
    assert legend({"one": points})[0].last == points[-1][1]


def test_what_is_not_finite_leaves_no_mark():
    points = [(0, 1.0), (1, math.nan), (2, math.inf), (3, 2.0)]
    (drawn,) = polylines(line_chart({"one": points}))
    assert len(drawn) == 2
    assert line_chart({"none": [(0, math.nan)]}) == line_chart({}) == ""


def test_a_single_number_is_a_dot():
    root = ElementTree.fromstring(line_chart({"one": [(5, 3.0)]}))
    assert len(list(root.iter("circle"))) == 1


def test_names_are_text():
    name = "<script>alert(1)</script>\"'&"
    svg = line_chart({name: [(0, 1.0), (1, 2.0)]}, x_title=name)
    assert "<script" not in svg
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == name
    assert next(root.iter("title")).text == name
