"""The picture of an adaptation: losses, the guard's figures, classes before and after."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from unim2_core.cli.adapting import Adaptation, Shown
from unim2_core.model.classifier import Classifier
from unim2_core.showing.curves import curves, lines
from unim2_core.showing.film import contact_sheet, write_png
from unim2_core.showing.overlay import overlay, side_by_side
from unim2_core.showing.palette import color_table

Image = NDArray[np.uint8]
WIDTH, CURVES_PX, TILE_PX = 1000, 260, 200


def write_report(path: Path, made: Adaptation) -> None:
    """Write the picture.

    Raises:
        Unim2Error: it cannot be written.
    """
    assert made.judgement is not None
    names = sorted({name for losses in made.losses for name in losses})
    series = {
        name.removeprefix("loss/"): [losses.get(name, np.nan) for losses in made.losses]
        for name in names
        if name.count("/") == 1
    }
    colors = color_table({label.id: label.color for label in made.bundle.manifest.labels})
    pictures = [_before_and_after(made, shown, colors) for shown in made.shown]
    width = max([WIDTH, *(picture.shape[1] for picture in pictures)])
    texts = []
    for finding in made.judgement.findings:
        check = finding.check
        sign = ">=" if check.at_least else "<="
        reject = "" if check.reject is None else f", refused beyond {check.reject:g}"
        texts.append(
            (
                f"{finding.figure} = {finding.value:.3f}  ({sign} {check.review:g}{reject}) "
                f"{check.meaning}",
                finding.verdict != "accepted",
            )
        )
    title = f"{made.judgement.verdict}: version {made.number}, {made.steps} steps"
    rows = [
        curves(series, "terms of the loss, picture after picture", (CURVES_PX, width)),
        lines(texts, title, width),
        *pictures,
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_png(path, contact_sheet(rows))


def _before_and_after(made: Adaptation, shown: Shown, colors: Image) -> Image:
    assert made.served is not None
    assert made.adapted is not None
    before, after = (_classes(model, shown) for model in (made.served, made.adapted))
    changed = np.repeat(((before != after) * 255).astype(np.uint8)[..., None], 3, axis=2)
    tiles = {
        "held-out picture": shown.image,
        "served before": overlay(shown.image, before, colors),
        "adapted": overlay(shown.image, after, colors),
        "changed": changed,
    }
    return side_by_side(tiles, TILE_PX)


@torch.no_grad()
def _classes(model: Classifier, shown: Shown) -> Image:
    """(H, W) uint8 at the picture's size."""
    tokens, presence = (
        {name: torch.from_numpy(np.asarray(part))[None] for name, part in maps.items()}
        for maps in (shown.tokens, shown.presence)
    )
    classes = model.scores(tokens, presence).argmax(dim=1)[0].numpy().astype(np.uint8)
    height, width = shown.image.shape[:2]
    return np.asarray(cv2.resize(classes, (width, height), interpolation=cv2.INTER_NEAREST))
