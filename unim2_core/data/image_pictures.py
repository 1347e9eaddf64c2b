"""Pictures out of a data set of image files: read one by one, cut, encoded, at one size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from unim2_core.data.crops import Box, CropKind, Framing, Sizing, boxes, default_size
from unim2_core.data.image_files import require_files
from unim2_core.data.image_sets import LABELS, ImageSet, Original
from unim2_core.data.labels import Classes
from unim2_core.data.pictures import Picture
from unim2_core.errors import DataError
from unim2_core.files import sha256
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.modalities import Encoder
from unim2_core.sensing.resampling import Size

RULES_VERSION = 1
"""To be raised when the same files give other pictures."""


class ImagePictures:
    """The pictures of a data set of image files; a ``PictureSource``.

    Image i with five crops gives pictures 5i to 5i + 4. One image is in memory at a time.

    Args:
        images: the data set.
        crops: which parts of an image become pictures.
        framing: what of such a part is kept, see ``Sizing``.
        size: height and width of the pictures; None: see ``default_size``, with the first image.

    Raises:
        DataError: files are missing, the first image cannot be read, or the size is not possible.
    """

    def __init__(
        self, images: ImageSet, crops: CropKind, framing: Framing, size: Size | None
    ) -> None:
        self._images, self._crops = images, crops
        every = [images.files(item) for item in range(len(images.names))]
        self._files = [path for files in every for paths in files.values() for path in paths]
        require_files(
            dict.fromkeys(self._files), f"the data set of {', '.join(images.modalities)}"
        )
        self._encoders = {
            name: Encoder(kind, images.preset) for name, kind in images.kinds.items()
        }
        size = size or default_size(crops, framing, self._read(0)[1])
        stored = images.preset == "paper" and crops != "none"
        self._sizing = Sizing(images.preset, framing, size, stored)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names; the first is the reference."""
        return self._images.modalities

    @property
    def encodings(self) -> Mapping[str, Mapping[str, Any]]:
        """Modality -> what ``Encoder.from_description`` takes, for a model's manifest."""
        return {name: encoder.describe() for name, encoder in self._encoders.items()}

    @property
    def size(self) -> Size:
        """Height and width of every image, pixels."""
        return self._sizing.size

    @property
    def label_size(self) -> Size | None:
        """Height and width of the labels; None where there are none."""
        return None if self.classes is None else self._sizing.size

    @property
    def classes(self) -> Classes | None:
        """That the labels mean; None where there are none."""
        return self._images.classes

    @property
    def limit(self) -> int:
        """How many pictures there are."""
        return len(self._images.names) * len(boxes(self._crops, 0, (2, 2)))

    def fingerprint(self) -> str:
        """Hex digest of everything that decides the pictures: file contents, encodings, crops."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        rules = {
            "version": RULES_VERSION,
            "images": self._images.rules,
            "names": self._images.names,
            "encodings": self.encodings,
            "crops": self._crops,
            "sizing": vars(self._sizing),
        }
        digest = hashlib.sha256(json.dumps(rules, default=dict).encode())
        contents = {path: sha256(path) for path in dict.fromkeys(self._files)}
        for path in self._files:
            digest.update(bytes.fromhex(contents[path]))
        return digest.hexdigest()

    def __iter__(self) -> Iterator[Picture]:
        """Stream the pictures.

        Raises:
            DataError: a file is unreadable or not what it should be.
        """
        for item, name in enumerate(self._images.names):
            original, size = self._read(item)
            self._begin(original)
            for number, box in enumerate(boxes(self._crops, item, size)):
                label = name if self._crops == "none" else f"{name} crop {number}"
                yield self._picture(original, box, label, self._images.sources[item])

    def _read(self, item: int) -> tuple[Original, Size]:
        """An image and its size, which all modalities and the labels must share."""
        original = self._images.read(item)
        shapes: dict[str, Size] = {}
        for name, image in original.images.items():
            shapes[name] = (image.data if isinstance(image, Frame) else image).shape[:2]
        if original.labels is not None:
            shapes[LABELS] = original.labels.shape
        reference = shapes[self.modalities[0]]
        for name, shape in shapes.items():
            if shape != reference:
                file = ", ".join(map(str, self._images.files(item)[name]))
                raise DataError(
                    f"{file} does not have the size of its {self.modalities[0]} image",
                    expected=f"{reference[0]}x{reference[1]} pixels",
                    found=f"{shape[0]}x{shape[1]} pixels",
                    remedy="bring all images of a scene into one camera first, pixel on pixel",
                )
        return original, reference

    def _begin(self, original: Original) -> None:
        """Let the encoders take an image as the first of a stream.

        Data sets are no streams, and all crops of an image share its range: an encoder keeps the
        range of the first of several frames with one stamp.
        """
        for name, image in original.images.items():
            if isinstance(image, Frame):
                self._encoders[name].reset()
                if self._crops != "none" and image.sensor == "thermal":
                    self._encoders[name].encode(image, (1, 1))

    def _picture(self, original: Original, box: Box, name: str, source: int) -> Picture:
        images, valid = {}, {}
        for modality, content in original.images.items():
            pixels, mask = self._sizing.encoded(content, box, self._encoders[modality])
            images[modality] = pixels
            if mask is not None:
                valid[modality] = mask
        labels = None
        if original.labels is not None:
            labels = self._sizing.labels(original.labels, box)
            if self._crops != "none":
                labels = self._images.crop_labels(labels)
            labels = np.ascontiguousarray(labels)
        return Picture(name, images, valid, labels=labels, source=source)
