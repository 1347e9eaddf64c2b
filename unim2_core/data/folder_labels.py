"""Label files of a folder data set: colours or ids to classes."""

from __future__ import annotations

import colorsys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.folder_file import FolderFile, FolderLabels
from unim2_core.data.image_files import one_channel
from unim2_core.data.labels import IGNORED, Classes, Labels
from unim2_core.errors import DataError


def folder_classes(file: FolderFile) -> Classes | None:
    """Names and colours of the classes; None where there are no labels.

    A class has the first colour that is listed for it. Where only ids are listed, hues are spread
    evenly.
    """
    if file.labels is None or file.classes is None:
        return None
    count = len(file.classes)
    colors: list[tuple[int, int, int]] = []
    for index in range(count):
        red, green, blue = colorsys.hsv_to_rgb(index / count, 0.75, 0.9)
        colors.append((round(red * 255), round(green * 255), round(blue * 255)))
    for text, value in reversed((file.labels.colors or {}).items()):
        if value != file.labels.ignore:
            red, green, blue = map(int, text.split(","))
            colors[value] = (red, green, blue)
    return Classes(file.classes, tuple(colors), tuple(range(count)))


def folder_labels(
    image: NDArray[Any], options: FolderLabels, classes: Classes, path: Path
) -> Labels:
    """Classes of a label file.

    Args:
        image: (H, W) or (H, W, C) as it was read.
        options: what its colours or ids mean.
        classes: the classes.
        path: of the file, for messages.

    Returns:
        (H, W) uint8, 255 = ignored.

    Raises:
        DataError: nothing in it is listed, or it is of another kind.
    """
    table = options.colors if options.colors is not None else options.ids
    keys = _packed(image, path) if options.colors is not None else _ids(image, path)
    if table is None:
        table = {value: value for value in (*range(len(classes.names)), options.ignore)}
    found = np.full(keys.shape, IGNORED, np.uint8)
    listed = np.zeros(keys.shape, np.bool_)
    for text, value in table.items():
        here = keys == (_key(text) if isinstance(text, str) else text)
        listed |= here
        found[here] = IGNORED if value == options.ignore else value
    if not listed.any():
        some = np.unique(keys)[:5].tolist()
        kind = "colours" if options.colors is not None else "ids"
        raise DataError(
            f"nothing in {path} is listed in the data set's file",
            expected=f"some of the {kind} {'; '.join(map(str, table))}",
            found="; ".join(map(_text if options.colors is not None else str, some)),
            remedy=f"mend the {kind} of the labels",
        )
    return found


def _key(color: str) -> int:
    red, green, blue = map(int, color.split(","))
    return red << 16 | green << 8 | blue


def _text(key: int) -> str:
    return f"{key >> 16},{key >> 8 & 255},{key & 255}"


def _packed(image: NDArray[Any], path: Path) -> NDArray[np.int32]:
    """(H, W) int32, one number for each colour."""
    if image.dtype != np.uint8 or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise DataError(
            f"{path} has no colours",
            expected="an 8 bit image",
            found=f"{image.dtype} of shape {image.shape}",
            remedy="use ids: {...} for the labels",
        )
    planes = image.reshape(*image.shape[:2], -1).astype(np.int32)
    red, green, blue = (planes[..., min(c, planes.shape[2] - 1)] for c in range(3))
    if planes.shape[2] == 1:
        green = blue = red
    packed: NDArray[np.int32] = red << 16 | green << 8 | blue
    return packed


def _ids(image: NDArray[Any], path: Path) -> NDArray[Any]:
    ids = one_channel(image, path)
    if ids.dtype.kind not in "iu":
        raise DataError(
            f"{path} has no ids",
            expected="an image or array of integers",
            found=f"{ids.dtype}",
            remedy="save labels as 8 or 16 bit integers, or give their colours with colors",
        )
    return ids
