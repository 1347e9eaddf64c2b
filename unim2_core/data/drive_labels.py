"""Ground truth that was recorded with a drive: a label image for each reference image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from unim2_core.data.labels import Classes, Labels
from unim2_core.data.world.materials import CLASSES, PALETTE
from unim2_core.errors import BagError, DataError
from unim2_core.sensing.bag_messages import stamp_ns
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.images import decode_image

_TYPE = "sensor_msgs/msg/Image"


@dataclass(frozen=True)
class DriveLabels:
    """Where a drive has its labels, and what they mean.

    Attributes:
        topic: of mono8 images of raw ids, in the reference camera, with its stamps.
        classes: that the ids mean.
    """

    topic: str
    classes: Classes


SYNTHETIC = DriveLabels(
    "/ground_truth/label",
    Classes(
        names=CLASSES,
        colors=tuple((int(red), int(green), int(blue)) for red, green, blue in PALETTE),
        raw_ids=tuple(range(len(CLASSES))),
    ),
)
"""Of the synthetic drives."""


class LabelReader:
    """Labels of one drive by stamp, read beside its images; one is in memory at a time.

    Use as a context manager.

    Args:
        bag: the drive.
        labels: which.

    Raises:
        BagError: they are not in the bag.
    """

    def __init__(self, bag: Path, labels: DriveLabels) -> None:
        self._bag, self._labels = bag, labels
        self._reader = BagReader(bag)
        topic = self._reader.topics.get(labels.topic)
        if topic is None or topic.type != _TYPE:
            self._reader.close()
            raise BagError(
                f"{bag} has no labels",
                expected=f"images on the topic {labels.topic}",
                found=topic.type if topic else "no such topic",
                remedy="only drives that were recorded with ground truth can be measured",
            )
        self._messages = self._reader.messages([labels.topic])
        self._newest: tuple[int, Any] | None = None

    def __enter__(self) -> LabelReader:
        """Nothing more to do: the bag is open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the bag."""
        self.close()

    def close(self) -> None:
        """Close the bag."""
        self._reader.close()

    def at(self, wanted_ns: int) -> Labels | None:
        """(H, W) uint8 classes, 255 = ignored; None where the image has no label.

        Args:
            wanted_ns: stamp in the header of a reference image; rises from call to call.

        Raises:
            DecodeError: a message cannot be decoded.
            DataError: an image is not one of ids.
        """
        while self._newest is None or self._newest[0] < wanted_ns:
            message = next(self._messages, None)
            if message is None:
                return None
            decoded = message.decode()
            self._newest = stamp_ns(decoded.header), decoded
        if self._newest[0] != wanted_ns:
            return None
        ids = decode_image(self._newest[1])
        if ids.dtype != np.uint8 or ids.ndim != 2:
            raise DataError(
                f"{self._labels.topic} of {self._bag} does not hold labels",
                expected="images of 8 bit ids, mono8",
                found=f"{self._newest[1].encoding}, {ids.dtype} of shape {ids.shape}",
                remedy="record the ids themselves, not their colours",
            )
        return self._labels.classes.of(ids)
