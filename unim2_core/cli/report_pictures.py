"""The pictures of an example, as the page of ``unim2 report`` takes them."""

from __future__ import annotations

import numpy as np

from unim2_core.evaluation.examples import Example
from unim2_core.model.bundle import Manifest
from unim2_core.showing.overlay import colorize, overlay
from unim2_core.showing.palette import UNLABELLED, color_table
from unim2_core.showing.report import data_uri

GREY = (128, 128, 128)


def pictures_of(example: Example, manifest: Manifest) -> dict[str, str]:
    """Title -> source of an image: what the backbone saw, the classes, and the truth if known."""
    colors = color_table({label.id: label.color for label in manifest.labels})
    colors[UNLABELLED] = GREY
    images = example.picture.images
    first = next(iter(images.values()))
    shown = {
        "overlay": overlay(first, example.classes, colors),
        "classes": colorize(example.classes, colors),
    }
    if example.truth is not None:
        shown["truth"] = colorize(example.truth, colors)
    shown["confidence"] = np.repeat(example.confidence[..., None], 3, axis=2)
    return {title: data_uri(image) for title, image in {**shown, **images}.items()}
