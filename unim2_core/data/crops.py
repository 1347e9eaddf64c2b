"""Which part of an image becomes a picture, and how it is brought to the size asked for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.labels import Labels
from unim2_core.errors import DataError
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.modalities import Encoder, Preset
from unim2_core.sensing.resampling import (
    Size,
    covering_size,
    five_crop_boxes,
    nearest_indices,
    random_crop_boxes,
    resize,
    resize_published,
)

CropKind = Literal["five", "random", "none"]
Framing = Literal["centre_crop", "full_frame"]
Encoded = tuple[NDArray[np.uint8], NDArray[np.bool_] | None]

CROP_RATIO = 0.5
CROP_SIDE = 224
"""Shorter side of a training crop, pixels."""
IMAGE_SIDE = 320
"""Shorter side of a whole image, pixels."""
JPEG_QUALITY = 75
"""With which the release stores its training crops: the default of the library it uses."""
_MULTIPLE = 16


@dataclass(frozen=True)
class Box:
    """A part of an image, pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image: NDArray[Any]) -> NDArray[Any]:
        """The part of an image or label map (H, W, ...), contiguous."""
        rows = slice(self.top, self.top + self.height)
        return np.ascontiguousarray(image[rows, self.left : self.left + self.width])

    def cut_frame(self, frame: Frame) -> Frame:
        """The part of a frame."""
        valid = None if frame.valid is None else self.cut(frame.valid)
        return replace(frame, data=self.cut(frame.data), valid=valid)


def boxes(kind: CropKind, item: int, size: Size) -> list[Box]:
    """The parts of an image that become pictures.

    Args:
        kind: ``five``: corners and centre. ``random``: five, which depend on ``item`` alone.
            ``none``: the whole image.
        item: number of the image.
        size: height and width of the image.
    """
    if kind == "none":
        return [Box(0, 0, *size)]
    crops = (
        five_crop_boxes(*size, CROP_RATIO)
        if kind == "five"
        else random_crop_boxes(item, *size, CROP_RATIO)
    )
    return [Box(*map(int, crop)) for crop in crops]


def default_size(
    kind: CropKind, framing: Framing, image: Size, whole_side: int = IMAGE_SIDE
) -> Size:
    """Height and width of pictures where none were asked for.

    A training crop has a shorter side of 224 pixels, a whole image one of 320, or its own if that
    is smaller; with ``full_frame`` the aspect stays, to multiples of 16.

    Args:
        kind: of the crops.
        framing: whether pictures are squares out of the middle or all of the part.
        image: height and width of the first image.
        whole_side: the shorter side of a whole image, pixels.
    """
    side = whole_side if kind == "none" else CROP_SIDE
    if framing == "centre_crop":
        return side, side
    part = boxes(kind, 0, image)[0]
    scale = side / max(1, min(part.height, part.width))
    if kind == "none":
        scale = min(scale, 1.0)
    height, width = (
        max(_MULTIPLE, round(length * scale / _MULTIPLE) * _MULTIPLE)
        for length in (part.height, part.width)
    )
    return height, width


@dataclass(frozen=True)
class Sizing:
    """How a part of an image is brought to its size.

    Attributes:
        preset: ``paper`` takes the nearest pixel, ``robot`` averages over areas.
        framing: ``centre_crop``: the published one, a part of the aspect of ``size`` out of the
            middle. ``full_frame``: everything, stretched to ``size``.
        size: height and width of the result, multiples of 16.
        stored: whether the part went through the release's store of lossy JPEG files.
    """

    preset: Preset
    framing: Framing
    size: Size
    stored: bool

    def __post_init__(self) -> None:
        if min(self.size) < _MULTIPLE or any(length % _MULTIPLE for length in self.size):
            raise DataError(
                "pictures cannot have this size",
                expected=f"multiples of {_MULTIPLE} pixels",
                found=f"{self.size[0]}x{self.size[1]}",
                remedy="give another with --size",
            )

    def encoded(self, content: NDArray[np.uint8] | Frame, box: Box, encoder: Encoder) -> Encoded:
        """A part of an image at the final size.

        Args:
            content: (H, W, 3) uint8 that is encoded already, or a frame.
            box: the part.
            encoder: of frames.

        Returns:
            (h, w, 3) uint8, and (h, w) bool, False where nothing was measured; None = all valid.
        """
        if self.preset == "robot":
            box = self._centre(box) if self.framing == "centre_crop" else box
            if isinstance(content, Frame):
                return encoder.encode(box.cut_frame(content), self.size)
            return resize(box.cut(content), self.size), None
        assert not isinstance(content, Frame)  # the published rules apply to whole images
        part = box.cut(content)
        return self._nearest(_through_jpeg(part) if self.stored else part), None

    def labels(self, labels: Labels, box: Box) -> Labels:
        """A part of a label map (H, W) at the final size, by the nearest pixel."""
        return self._nearest(box.cut(labels))

    def _nearest(self, part: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self.framing == "centre_crop":
            return np.ascontiguousarray(resize_published(part, self.size))
        rows, columns = (
            nearest_indices(length, resized)
            for length, resized in zip(part.shape[:2], self.size, strict=True)
        )
        return part[rows[:, None], columns]

    def _centre(self, box: Box) -> Box:
        """The part of a box that the published resize and centre crop keep."""
        (top, height), (left, width) = (
            (round((covered - kept) / 2 * length / covered), round(kept * length / covered))
            for length, covered, kept in zip(
                (box.height, box.width),
                covering_size((box.height, box.width), self.size),
                self.size,
                strict=True,
            )
        )
        return Box(box.top + top, box.left + left, height, width)


def _through_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What is left of (H, W, 3) red, green, blue after it was stored as JPEG and read again."""
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    _, stored = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    loaded: NDArray[np.uint8] = cv2.cvtColor(
        cv2.imdecode(stored, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
    )
    return loaded
