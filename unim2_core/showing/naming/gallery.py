"""Crops of each cluster in every modality, as sheets that a browser loads one by one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.pictures import Picture
from unim2_core.errors import Unim2Error
from unim2_core.showing.naming.spots import CROP_SHARE, Kind, Spot

Image = NDArray[np.uint8]
Chosen = Mapping[tuple[int, Kind], Sequence[Spot]]

SHOWN = 6
"""Crops of each kind, at most."""
TILE_PX = 128
"""Side of a crop."""
THUMB_PX = 48
"""Side of the small picture of a cluster."""
QUALITY = 82
"""Of JPEG, 0 to 100."""
NOT_SEEN: Image = np.where(np.add.outer(range(TILE_PX), range(TILE_PX)) // 8 % 2, 140, 116)[
    ..., None
].astype(np.uint8)
"""(TILE_PX, TILE_PX, 1), hatched: the crop of what a sensor does not see."""


@dataclass(frozen=True, eq=False)
class Gallery:
    """Crops as JPEG files.

    Attributes:
        modalities: rows of a sheet; the reference is the first.
        sheets: cluster and kind -> tiles of ``TILE_PX``, one row a modality, the best on the left.
        columns: cluster and kind -> how many tiles a row has.
        thumbs: tiles of ``THUMB_PX``, one below the other, one for each cluster.
    """

    modalities: tuple[str, ...]
    sheets: Mapping[tuple[int, Kind], bytes]
    columns: Mapping[tuple[int, Kind], int]
    thumbs: bytes

    @classmethod
    def cut(
        cls,
        pictures: Iterable[Picture],
        modalities: Sequence[str],
        chosen: Chosen,
        classes: Sequence[Image],
        clusters: int,
    ) -> Gallery:
        """Cut the crops; around the cluster a line is drawn in the reference's.

        Args:
            pictures: the source, from its start; one is in memory at a time.
            modalities: of the model, the reference first.
            chosen: what to cut.
            classes: of each picture, (h, w) uint8 clusters.
            clusters: how many there are.

        Raises:
            Unim2Error: this OpenCV cannot write JPEG.
        """
        sheets = {
            key: np.tile(NOT_SEEN, (len(modalities), len(spots), 3))
            for key, spots in chosen.items()
        }
        thumbs = np.tile(NOT_SEEN[:THUMB_PX, :THUMB_PX], (clusters, 1, 3))
        wanted: dict[int, list[tuple[int, Kind, int, Spot]]] = defaultdict(list)
        for (cluster, kind), spots in chosen.items():
            for place, spot in enumerate(spots):
                wanted[spot.picture].append((cluster, kind, place, spot))
        for number, picture in enumerate(pictures):
            for cluster, kind, place, spot in wanted[number]:
                left = TILE_PX * place
                sheet = sheets[cluster, kind][:, left : left + TILE_PX]
                for index, name in enumerate(modalities):
                    tile = _seen(picture, name, spot)
                    if tile is None:
                        continue
                    if index == 0 and place == 0 and kind == "typical":
                        top = THUMB_PX * cluster
                        thumbs[top : top + THUMB_PX] = _resized(tile, THUMB_PX)
                    if index == 0:
                        _outline(tile, spot, classes[number] == cluster)
                    sheet[TILE_PX * index : TILE_PX * (index + 1)] = tile
        return cls(
            tuple(modalities),
            {key: _jpeg(sheet) for key, sheet in sheets.items()},
            {key: len(spots) for key, spots in chosen.items()},
            _jpeg(thumbs),
        )


def _seen(picture: Picture, name: str, spot: Spot) -> Image | None:
    """The crop of a modality around a spot of the reference; None where it is not seen."""
    image = picture.images.get(name)
    if image is None:
        return None
    row, column = spot.row, spot.column
    grid_map = picture.maps.get(name)
    if grid_map is not None:
        height, width = grid_map.valid.shape
        cell = (int(row * height), int(column * width))
        if not grid_map.valid[cell]:
            return None
        x, y = grid_map.coordinates[cell].tolist()
        row, column = (y + 0.5) / grid_map.source[0], (x + 0.5) / grid_map.source[1]
    return _resized(_window(image, row, column), TILE_PX)


def _window(image: Image, row: float, column: float) -> Image:
    """The square around a place, moved inside the image: (side, side, ...), not copied."""
    height, width = image.shape[:2]
    side = max(3, round(CROP_SHARE * min(height, width)))
    top = min(max(round(row * height - side / 2), 0), height - side)
    left = min(max(round(column * width - side / 2), 0), width - side)
    return image[top : top + side, left : left + side]


def _resized(image: Image, side: int) -> Image:
    shrinks = side < len(image)
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(image, (side, side), interpolation=how))


def _outline(tile: Image, spot: Spot, here: NDArray[np.bool_]) -> None:
    """Draw where a cluster is into a crop: white on black, to be seen on every ground."""
    mask = _window(here.astype(np.uint8), spot.row, spot.column)
    mask = cv2.resize(mask, (TILE_PX, TILE_PX), interpolation=cv2.INTER_NEAREST)
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8))  # beyond the crop nothing is taken away
    line = mask - inner
    tile[cv2.dilate(line, np.ones((3, 3), np.uint8)) > 0] = 0
    tile[line > 0] = 255


def _jpeg(image: Image) -> bytes:
    done, content = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    )
    if not done:
        raise Unim2Error(
            "cannot write JPEG",
            expected="an OpenCV that can encode it",
            found=f"OpenCV {cv2.__version__} refused",
            remedy="install opencv-python-headless from PyPI",
        )
    return content.tobytes()
