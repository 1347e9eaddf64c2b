"""MFNet: road scenes, RGB and thermal in one four-channel file.

The published rules for one image. Below the folder of the data set (``mfnet`` in the release's
archive)::

    train.txt  test.txt    a name a line; ``NAME_flip`` is the mirrored image NAME
    images/NAME.png        red, green, blue, thermal
    labels/NAME.png        0 = no label, 1 to 8
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.image_files import read_array
from unim2_core.data.image_sets import LABELS, ListedImages, Original
from unim2_core.data.labels import Classes, after_ignored, raw_labels
from unim2_core.errors import DataError
from unim2_core.sensing.frames import Frame

# fmt: off
MFNET = Classes(
    names=(
        "car", "person", "bike", "curve", "car_stop", "guardrail", "color_cone", "bump",
    ),
    colors=(
        (64, 0, 128), (64, 64, 0), (0, 128, 192), (0, 0, 192), (128, 128, 0), (64, 64, 128),
        (192, 128, 128), (192, 64, 0),
    ),
    raw_ids=after_ignored(range(8)),
)
# fmt: on

FLIPPED = "_flip"


def source_of(name: str) -> tuple[str, bool]:
    """The file that a listed name stands for, and whether it is to be mirrored.

    The lists hold names such as ``00001D_flip``, for which there is no file.
    """
    return name.removesuffix(FLIPPED), name.endswith(FLIPPED)


def mirrored(image: NDArray[Any]) -> NDArray[Any]:
    """Image or labels (H, W, ...) with left and right swapped."""
    return image[:, ::-1]


def mfnet_images(file: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """Modality -> (H, W, 3) uint8.

    Args:
        file: (H, W, 4) red, green, blue, thermal.
    """
    return {"rgb": file[..., :3], "thermal": np.repeat(file[..., 3:], 3, axis=2)}


class MfnetImages(ListedImages):
    """MFNet; its modalities are ``rgb`` and ``thermal``."""

    title = "MFNet"
    folder = "mfnet"
    available: ClassVar[Mapping[str, str]] = {"rgb": "rgb", "thermal": "thermal"}
    lists: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("train.txt",),
        "test": ("test.txt",),
    }
    classes = MFNET

    @property
    def sources(self) -> Sequence[int]:
        """A mirrored image counts as the image that it mirrors."""
        first: dict[str, int] = {}
        return [first.setdefault(source_of(name)[0], item) for item, name in enumerate(self.names)]

    def files(self, item: int) -> Mapping[str, tuple[Path, ...]]:
        """The files of an image; all modalities are in one."""
        file = f"{source_of(self.names[item])[0]}.png"
        images = dict.fromkeys(self.modalities, (self.root / "images" / file,))
        return {**images, LABELS: (self.root / "labels" / file,)}

    def read(self, item: int) -> Original:
        """Read an image."""
        files = self.files(item)
        (path,), (label_path,) = files[self.modalities[0]], files[LABELS]
        image, labels = read_array(path), raw_labels(read_array(label_path), label_path)
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 4:
            raise DataError(
                f"{path} is not an image of MFNet",
                expected="8 bit, four channels: red, green, blue, thermal",
                found=f"{image.dtype} of shape {image.shape}",
                remedy="use the PNG files of the published data set",
            )
        if source_of(self.names[item])[1]:
            image, labels = mirrored(image), mirrored(labels)
        images: dict[str, NDArray[np.uint8] | Frame] = {**mfnet_images(image)}
        if self.preset == "robot":
            counts = np.ascontiguousarray(image[..., 3], np.float32)
            images["thermal"] = Frame("thermal", 0, counts, unit="counts")
        return Original({name: images[name] for name in self.modalities}, MFNET.of(labels))
