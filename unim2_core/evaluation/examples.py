"""The pictures of a set that a model does best, middling and worst on. Needs no torch.

With labels the figure of a picture is its mean IoU, the clusters being matched to classes once for
the whole set; without them it is the mean confidence, which is no quality: a model may be sure and
wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.pictures import Picture, PictureSource
from unim2_core.errors import DataError
from unim2_core.evaluation.metrics import UNASSIGNED, matched
from unim2_core.evaluation.runner import Tally
from unim2_core.inference.auxiliaries import TokenReader
from unim2_core.inference.engine import Classified, Engine
from unim2_core.inference.picture_classes import picture_tokens
from unim2_core.model.bundle import Manifest
from unim2_core.showing.palette import UNLABELLED

Image = NDArray[np.uint8]
IOU, CONFIDENCE = "mean IoU", "mean confidence"


@dataclass(frozen=True, eq=False)
class Example:
    """One picture, and what the model makes of it.

    Attributes:
        place: ``best``, ``median`` or ``worst``; several where there are fewer than three.
        name: of the picture.
        measure: what the figure is.
        figure: in [0, 1].
        picture: as the backbone sees it.
        classes: (H, W) uint8 class ids, 255 unlabelled, at the size of its images.
        confidence: (H, W) uint8.
        truth: (H', W') uint8 labels as ids of the model's classes, 255 where no class of the
            model was matched to the label; None where there are no labels.
    """

    place: str
    name: str
    measure: str
    figure: float
    picture: Picture
    classes: Image
    confidence: Image
    truth: Image | None


def examples(
    engine: Engine,
    manifest: Manifest,
    source: PictureSource,
    modalities: Collection[str],
    progress: Callable[[int], object] | None = None,
) -> list[Example]:
    """Run a model over pictures and pick three, the best first.

    The pictures are streamed twice, so that a large set need not be kept in memory.

    Args:
        engine: the model.
        manifest: its manifest.
        source: the pictures, encoded as the model takes them.
        modalities: that are told to be there.
        progress: called with how many pictures are done.

    Raises:
        DataError: there are no pictures.
    """
    read = TokenReader(engine, manifest, source.size)
    answers: list[Classified] = []
    tallies: list[Tally] = []
    count = manifest.clusters
    classes = 0 if source.classes is None else len(source.classes.names)
    for done, picture in enumerate(source, start=1):
        answer = engine.classify(*picture_tokens(read, manifest, source.size, picture, modalities))
        answers.append(answer)
        tallies.append(Tally(count, classes))
        if classes and picture.labels is not None:
            tallies[-1].add(answer.classes[None], picture.labels[None])
        if progress:
            progress(done)
    if not answers:
        raise DataError(
            "there is no picture to show",
            expected=f"pictures of {', '.join(modalities)}",
            found="none",
            remedy="look at the streams with: unim2 info BAG",
        )
    labelled = any(tally.labelled for tally in tallies)
    of_cluster = matched(sum(tally.table for tally in tallies)) if labelled else None  # type: ignore[arg-type]
    figures = np.array(
        [
            tally.scores_by(of_cluster).mean_iou
            if of_cluster is not None
            else float(answer.confidence.mean()) / 255
            for answer, tally in zip(answers, tallies, strict=True)
        ]
    )
    places = _places(figures)
    ids = None if of_cluster is None else _ids(of_cluster, count)
    measure = CONFIDENCE if of_cluster is None else IOU
    found = {
        index: _example(places[index], picture, measure, figures[index], answers[index], ids)
        for index, picture in enumerate(source)
        if index in places
    }
    return [found[index] for index in places]


def _places(figures: NDArray[np.float64]) -> dict[int, str]:
    """Index -> what it is, the best first; a figure that is not known is none of them."""
    known = np.flatnonzero(~np.isnan(figures))
    order = known[np.argsort(-figures[known], kind="stable")].tolist()
    named: dict[int, list[str]] = {}
    for index, place in (
        (order[0], "best"),
        (order[len(order) // 2], "median"),
        (order[-1], "worst"),
    ):
        named.setdefault(index, []).append(place)
    return {index: " and ".join(places) for index, places in named.items()}


def _ids(of_cluster: NDArray[np.int64], count: int) -> Image:
    """(256,) label -> class id of the model, 255 where it has none for it."""
    ids = np.full(256, UNLABELLED, np.uint8)
    for cluster, label in enumerate(of_cluster[:count].tolist()):
        if label != UNASSIGNED:
            ids[label] = cluster
    return ids


def _example(
    place: str,
    picture: Picture,
    measure: str,
    figure: float,
    answer: Classified,
    ids: Image | None,
) -> Example:
    height, width = next(iter(picture.images.values())).shape[:2]
    return Example(
        place,
        picture.name,
        measure,
        float(figure),
        picture,
        np.asarray(cv2.resize(answer.classes, (width, height), interpolation=cv2.INTER_NEAREST)),
        np.asarray(cv2.resize(answer.confidence, (width, height))),
        None if ids is None or picture.labels is None else ids[picture.labels],
    )
