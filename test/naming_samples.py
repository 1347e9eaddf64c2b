"""A naming session on made-up pictures: no engine, no drive."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from unim2_core.data.pictures import Picture
from unim2_core.model.bundle import Bundle
from unim2_core.showing.naming.clusters import ClusterCounts, ClusterFacts
from unim2_core.showing.naming.gallery import SHOWN, Gallery
from unim2_core.showing.naming.labelling import Hint
from unim2_core.showing.naming.session import NamingSession
from unim2_core.showing.naming.spots import SpotFinder

SIZE = (96, 128)
STRIDE = 2


def classes_of(number: int, clusters: int) -> np.ndarray:
    """(h, w) uint8: a chequerboard of some of the clusters, another one in each picture."""
    rows, columns = np.indices((SIZE[0] // STRIDE, SIZE[1] // STRIDE)) // 12
    return ((rows * 6 + columns + 7 * number) % clusters).astype(np.uint8)


def pictures(count: int, clusters: int, modalities: tuple[str, ...]) -> Iterator[Picture]:
    """Pictures whose colours are those of the clusters, with noise."""
    rng = np.random.default_rng(0)
    palette = rng.integers(40, 216, (clusters, 3))
    for number in range(count):
        large = classes_of(number, clusters).repeat(STRIDE, 0).repeat(STRIDE, 1)
        images = {
            name: (palette[large] + rng.integers(-30, 30, (*SIZE, 3))).astype(np.uint8)
            for name in modalities
        }
        yield Picture(f"picture {number}", images)


def session_on(
    bundle: Bundle,
    modalities: tuple[str, ...] = ("rgb", "thermal"),
    hints: dict[int, Hint] | None = None,
    count: int = 8,
) -> NamingSession:
    """A session as the command makes it, on made-up classes."""
    clusters = bundle.manifest.clusters
    counts, finder = ClusterCounts(clusters), SpotFinder()
    rng = np.random.default_rng(1)
    for number in range(count):
        classes = classes_of(number, clusters)
        confidence = rng.integers(0, 256, classes.shape).astype(np.uint8)
        counts.add(classes, confidence)
        finder.add(classes, confidence)
    gallery = Gallery.cut(
        *(pictures(count, clusters, modalities), modalities),
        *(finder.chosen(SHOWN), finder.classes, clusters),
    )
    prototypes = rng.standard_normal((clusters, 8)).astype(np.float32)
    return NamingSession(bundle, gallery, ClusterFacts.of(counts, prototypes), hints)
