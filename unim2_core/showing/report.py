"""One HTML page on a model: nothing in it is fetched, run or believed.

Everything is inlined; the page forbids scripts and requests by its own policy, and every text is
escaped, so that a name that looks like a tag is shown as it is written.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import Unim2Error
from unim2_core.showing.charts import Points, legend, line_chart
from unim2_core.showing.jpeg import jpeg

TEMPLATE = "report.html.j2"


def check_installed() -> None:
    """Check that a page can be made, before any work is spent on it.

    Raises:
        Unim2Error: jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise Unim2Error(
            "a report needs a library for pages",
            expected="jinja2",
            found=str(error),
            remedy="pip install jinja2, or 'unim2[view]'",
        ) from error


def render(content: Mapping[str, Any], template: str = TEMPLATE) -> str:
    """Make the page.

    Args:
        content: what the template shows; a part that is None or empty says how to get it.
        template: the report of a model, or that of a fleet.

    Raises:
        Unim2Error: jinja2 is not installed.
    """
    check_installed()
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("unim2_core.showing", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= {"percent": percent, "number": number}
    return pages.get_template(template).render(content)


def chart(title: str, lines: Mapping[str, Points], x_title: str = "step") -> dict[str, Any]:
    """A chart as the page takes it; its ``svg`` is markup and its texts are escaped."""
    from markupsafe import Markup

    return {"title": title, "svg": Markup(line_chart(lines, x_title)), "legend": legend(lines)}


def data_uri(picture: NDArray[np.uint8]) -> str:
    """(H, W, 3) uint8 RGB as the source of an ``<img>``."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture)).decode()


def percent(value: float | None) -> str:
    """A share for people; a dash where it is not known."""
    return "–" if value is None else f"{100 * value:.1f} %"


def number(value: object) -> str:
    """A number with four digits that count; anything else as it is."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "–" if value is None else str(value)
