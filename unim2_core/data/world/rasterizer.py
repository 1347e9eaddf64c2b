"""Z-buffered rendering of solids: which primitive and what depth each pixel sees."""

from __future__ import annotations

from unim2_core.data.world.cameras import View
from unim2_core.data.world.canvas import Canvas, Visibility
from unim2_core.data.world.ellipsoids import draw_ellipsoids
from unim2_core.data.world.polygons import draw_polygons
from unim2_core.data.world.solids import Solid


def rasterize(solid: Solid, view: View) -> Visibility:
    """Draw a solid with hidden surfaces removed."""
    canvas = Canvas(view)
    draw_polygons(canvas, solid)
    draw_ellipsoids(canvas, solid)
    return canvas.seen
