"""NYU-Depth-v2: indoor RGB and depth, 40 classes merged to 13 or 4.

The published rules for one image. RGB files are stored with x and y swapped; depth comes as a
precomputed HHA image. Below the folder of the data set (``nyu`` in the release's archive)::

    train.txt  val.txt or test.txt   a number a line, filled up to four digits
    RGB/0001.jpg or .png             colour, transposed
    HHA/0001.png                     disparity, height, angle
    Labels/0001.png                  0 = no label, 1 to 40
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.image_files import read_array, three_channels
from unim2_core.data.image_sets import LABELS, ListedImages, Original, Split
from unim2_core.data.labels import Classes, Labels, after_ignored, raw_labels, stored_crop
from unim2_core.sensing.modalities import Preset

# fmt: off
NYU13 = Classes(
    names=(
        "bed", "books", "ceiling", "chair", "floor", "furniture", "objects", "picture", "sofa",
        "table", "tv", "wall", "window",
    ),
    colors=(
        (107, 142, 35), (220, 220, 0), (70, 130, 180), (128, 64, 128), (152, 251, 152),
        (244, 35, 232), (190, 153, 153), (250, 170, 30), (255, 0, 0), (220, 20, 60), (0, 0, 142),
        (70, 70, 70), (153, 153, 153),
    ),
    raw_ids=after_ignored((
        11, 4, 5, 0, 3, 8, 9, 11, 12, 5, 7, 5, 12, 9, 5, 12, 5, 6, 6, 4, 6, 2, 1, 5, 10, 6, 6, 6,
        6, 6, 6, 5, 6, 6, 6, 6, 6, 6, 5, 6,
    )),
)
NYU4 = Classes(
    names=(
        "structure", "furniture", "objects", "void",
    ),
    colors=(
        (70, 70, 70), (220, 20, 60), (190, 153, 153), (128, 128, 128),
    ),
    raw_ids=after_ignored((
        0, 0, 1, 1, 1, 1, 1, 0, 0, 1, 2, 1, 0, 1, 1, 0, 1, 2, 2, 0, 2, 0, 2, 1, 2, 2, 2, 0, 2, 2,
        2, 1, 2, 2, 2, 2, 2, 0, 1, 2,
    )),
)
# fmt: on


def nyu_images(
    rgb_file: NDArray[np.uint8], hha_file: NDArray[np.uint8]
) -> dict[str, NDArray[np.uint8]]:
    """Modality -> (H, W, 3) uint8.

    Args:
        rgb_file: (W, H, 3) red, green, blue, as stored: transposed.
        hha_file: (H, W, 3 or 4), upright.
    """
    return {"rgb": rgb_file.transpose(1, 0, 2), "depth": hha_file[..., :3]}


def nyu_crop_labels(stored: Labels, classes: Classes) -> Labels:
    """Classes of a stored training crop, as the published loader reads them.

    The store holds classes + 1, but the loader takes these for raw ids and merges them a second
    time. Labels of crops only train the linear probe.
    """
    return classes.of(stored)


class NyuImages(ListedImages):
    """NYU-Depth-v2.

    Args:
        root: folder of the data set, or the one around it.
        split: which part of it.
        modalities: some of ``rgb`` and ``depth``.
        preset: how images are encoded.
        classes: ``NYU13`` or ``NYU4``.
    """

    title = "NYU-Depth-v2"
    folder = "nyu"
    available: ClassVar[Mapping[str, str]] = {"rgb": "rgb", "depth": "hha"}
    lists: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("train.txt",),
        "test": ("val.txt", "test.txt"),
    }
    classes: Classes

    def __init__(
        self,
        root: Path,
        split: Split,
        modalities: tuple[str, ...],
        preset: Preset,
        classes: Classes,
    ) -> None:
        super().__init__(root, split, modalities, preset)
        self.names = tuple(name.zfill(4) for name in self.names)
        self.classes = classes

    def files(self, item: int) -> Mapping[str, tuple[Path, ...]]:
        """The files of an image."""
        name = self.names[item]
        rgb = self.root / "RGB" / f"{name}.jpg"
        if not rgb.is_file() and rgb.with_suffix(".png").is_file():
            rgb = rgb.with_suffix(".png")
        paths = {"rgb": rgb, "depth": self.root / "HHA" / f"{name}.png"}
        paths[LABELS] = self.root / "Labels" / f"{name}.png"
        return {kind: (paths[kind],) for kind in (*self.modalities, LABELS)}

    def read(self, item: int) -> Original:
        """Read an image."""
        arrays = {kind: read_array(path) for kind, (path,) in self.files(item).items()}
        images = {}
        for name in self.modalities:
            image = three_channels(arrays[name], self.files(item)[name][0])
            images[name] = image.transpose(1, 0, 2) if name == "rgb" else image
        labels = raw_labels(arrays[LABELS], self.files(item)[LABELS][0])
        return Original(images, self.classes.of(labels))

    def crop_labels(self, labels: Labels) -> Labels:
        """The published loader merges the classes of a crop a second time."""
        if self.preset == "robot":
            return labels
        return nyu_crop_labels(stored_crop(labels), self.classes)
