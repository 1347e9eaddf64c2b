"""How a recording opens: space on the left, pictures on the right, curves below."""

from __future__ import annotations

from typing import Any

from rerun import blueprint


def layout(reference: str, modalities: tuple[str, ...], segmented: bool) -> Any:
    """The arrangement of all views.

    Args:
        reference: name of the reference sensor.
        modalities: in the order of their views.
        segmented: whether there are classes.
    """
    camera = f"/world/rig/{reference}"
    space = blueprint.Spatial3DView(
        origin="/world", contents=["/world/**", f"- {camera}/classes"], name="space"
    )
    own = blueprint.Grid(*(_picture(f"/modalities/{name}", name) for name in modalities))
    moved = blueprint.Grid(
        *(_picture(f"/registered/{name}", f"{name}, registered") for name in modalities)
    )
    pictures = [blueprint.Tabs(_named(own, "sensors"), _named(moved, "registered"))]
    curves = [_curve("/skew", "skew to the reference, ms")]
    if segmented:
        row = blueprint.Horizontal(
            _picture(camera, "overlay"),
            _picture("/mask", "classes"),
            _picture("/confidence", "confidence"),
        )
        pictures.insert(0, row)
        curves += [_curve("/latency", "latency, ms"), _curve("/shares", "shares of classes, %")]
    texts = blueprint.Tabs(
        blueprint.TextDocumentView(origin="/about", name="model"),
        blueprint.TextDocumentView(origin="/version", name="version"),
        blueprint.TextLogView(origin="/log", name="log"),
    )
    return blueprint.Blueprint(
        blueprint.Vertical(
            blueprint.Horizontal(
                space, blueprint.Vertical(*pictures, row_shares=[2, 3][-len(pictures) :])
            ),
            blueprint.Horizontal(*curves, texts),
            row_shares=[3, 1],
        ),
        collapse_panels=True,
    )


def _picture(origin: str, name: str) -> Any:
    return blueprint.Spatial2DView(origin=origin, name=name)


def _curve(origin: str, name: str) -> Any:
    return blueprint.TimeSeriesView(origin=origin, name=name)


def _named(container: Any, name: str) -> Any:
    container.name = name
    return container
