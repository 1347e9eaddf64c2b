"""Where pictures show a cluster best: where the model is surest of it, and where it doubts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.model.bundle import UNLABELLED

Image = NDArray[np.uint8]
Maps = NDArray[np.float32]
Kind = Literal["typical", "unsure"]
KINDS: tuple[Kind, ...] = get_args(Kind)

CROP_SHARE = 0.4
"""Side of a crop, of the shorter side of the picture."""
FOCUS = 4
"""Doubt is averaged over a window of a crop's side through this."""


@dataclass(frozen=True)
class Spot:
    """A place in a picture.

    Attributes:
        picture: its position in the source.
        row: of the centre, as a share of the height.
        column: of the centre, as a share of the width.
        score: the larger, the better it shows what it is to show.
    """

    picture: int
    row: float
    column: float
    score: float


class SpotFinder:
    """Finds the best places of each cluster, at most one of a kind in each picture.

    Attributes:
        classes: of every picture, (h, w) uint8 clusters.
    """

    def __init__(self) -> None:
        self.classes: list[Image] = []
        self._spots: dict[tuple[int, Kind], list[Spot]] = defaultdict(list)

    def add(self, classes: Image, confidence: Image) -> None:
        """Look at the next picture.

        Args:
            classes: (h, w) uint8 clusters; 255 is passed over.
            confidence: (h, w) uint8.
        """
        side = max(3, round(CROP_SHARE * min(classes.shape)))
        near = max(3, side // FOCUS)
        sure = confidence.astype(np.float32) / 255
        for cluster in np.unique(classes).tolist():
            if cluster == UNLABELLED:
                continue
            here = (classes == cluster).astype(np.float32)
            share = _mean(here, near)
            doubt = share - _mean(here * sure, near)  # of what is large enough to be looked at
            typical = _mean(here * (0.1 + sure), side)  # also where the model is never sure
            for kind, score in zip(KINDS, (typical, doubt), strict=True):
                best = int(np.where(here > 0, score, -1).argmax())
                row, column = divmod(best, classes.shape[1])
                spot = Spot(
                    len(self.classes),
                    (row + 0.5) / classes.shape[0],
                    (column + 0.5) / classes.shape[1],
                    float(score[row, column]),
                )
                self._spots[cluster, kind].append(spot)
        self.classes.append(classes)

    def chosen(self, count: int) -> dict[tuple[int, Kind], list[Spot]]:
        """Cluster and kind -> the best spots, at most ``count``, the best first."""
        return {key: spread(spots, count) for key, spots in self._spots.items()}


def spread(spots: Sequence[Spot], count: int) -> list[Spot]:
    """The best spots, of pictures that lie apart as far as there are enough of them.

    Neighbours in a drive look the same.

    Args:
        spots: at most one of each picture.
        count: how many, at most.
    """
    best = sorted(spots, key=lambda spot: -spot.score)
    apart = len(spots) // (2 * count)
    taken: list[Spot] = []
    for spot in best:
        if all(abs(spot.picture - other.picture) > apart for other in taken):
            taken.append(spot)
    taken += [spot for spot in best if spot not in taken]
    return sorted(taken[:count], key=lambda spot: -spot.score)


def _mean(values: Maps, side: int) -> Maps:
    """Over windows around each place; beyond the edge there is nothing."""
    mean: Maps = cv2.boxFilter(values, -1, (side, side), borderType=cv2.BORDER_CONSTANT)
    return mean
