"""What is in a bag: rates, gaps, stamps and images of each topic, found in one pass."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import DecodeError
from unim2_core.sensing.bag_headers import COMPRESSED_IMAGE, IMAGE_TYPES, read_header
from unim2_core.sensing.bag_types import NO_DEFINITION, has_header
from unim2_core.sensing.bags import BagMessage, BagReader, TopicInfo
from unim2_core.sensing.compressed import decode_compressed
from unim2_core.sensing.frames import Array
from unim2_core.sensing.images import decode_image

LOOKED_AT = 5
"""Images of each topic that are decoded, the first ones; a shutter may cover one of them."""
GAP_PERIODS = 3
"""A pause of more than so many periods is a gap."""

Stamps = NDArray[np.int64]


@dataclass(frozen=True)
class ImageForm:
    """What the images of a topic look like.

    Attributes:
        encoding: of the message; of a compressed one its ``format``.
        width: columns, pixels.
        height: rows, pixels.
        dtype: type of the decoded pixels.
        channels: 1 or 3.
        low: 1st percentile of the values that are finite and not zero, None where there is none.
        median: their median.
        high: their 99th percentile.
    """

    encoding: str
    width: int
    height: int
    dtype: str
    channels: int
    low: float | None
    median: float | None
    high: float | None


@dataclass(frozen=True, eq=False)
class TopicSummary:
    """One topic of a bag.

    Attributes:
        info: name, type and where the type's definition comes from.
        log_ns: (N,) when its messages were recorded, in that order, nanoseconds.
        stamp_ns: (N,) stamps in their headers, None where the type has no header.
        frame_id: of the first header.
        image: form of the first images, None where there are none or they cannot be decoded.
        problem: why a message could not be read, empty where all is well.
    """

    info: TopicInfo
    log_ns: Stamps
    stamp_ns: Stamps | None
    frame_id: str
    image: ImageForm | None
    problem: str

    @property
    def is_image(self) -> bool:
        """Whether its messages are images, compressed or not."""
        return self.info.type in IMAGE_TYPES

    @property
    def times_ns(self) -> Stamps:
        """(N,) the stamps that are set, or the log times where the headers have none."""
        if self.stamp_ns is not None and (stamped := self.stamp_ns[self.stamp_ns > 0]).size:
            return stamped
        return self.log_ns

    @property
    def period_s(self) -> float | None:
        """Median time from one message to the next, seconds."""
        steps = self._steps_s
        return float(np.median(steps)) if steps.size else None

    @property
    def rate_hz(self) -> float | None:
        """Messages in a second, at the median period."""
        period_s = self.period_s
        return 1.0 / period_s if period_s else None

    @property
    def jitter_s(self) -> float | None:
        """95th percentile of the deviation from the median period, seconds."""
        steps = self._steps_s
        return float(np.percentile(abs(steps - np.median(steps)), 95)) if steps.size else None

    @property
    def longest_gap_s(self) -> float | None:
        """Longest time without a message, seconds."""
        steps = self._steps_s
        return float(steps.max()) if steps.size else None

    @property
    def gaps(self) -> int:
        """Pauses of more than three periods."""
        period_s = self.period_s
        return int((self._steps_s > GAP_PERIODS * period_s).sum()) if period_s else 0

    @property
    def zero_stamps(self) -> int:
        """Headers whose stamp is zero."""
        return 0 if self.stamp_ns is None else int((self.stamp_ns <= 0).sum())

    @property
    def backward_steps(self) -> int:
        """How often a stamp lies before the one that was recorded earlier."""
        return int((np.diff(self.times_ns) < 0).sum())

    @property
    def delay_s(self) -> NDArray[np.float64] | None:
        """Median and 95th percentile of log time minus stamp, seconds."""
        if self.stamp_ns is None or not (stamped := self.stamp_ns > 0).any():
            return None
        delays = (self.log_ns - self.stamp_ns)[stamped] * 1e-9
        return np.asarray(np.percentile(delays, [50, 95]), np.float64)

    @property
    def _steps_s(self) -> NDArray[np.float64]:
        steps = np.diff(self.times_ns)
        return steps[steps > 0] * 1e-9


@dataclass(frozen=True, eq=False)
class BagSummary:
    """All topics of a bag.

    Attributes:
        topics: name -> summary, in the order of the names.
        duration_s: from the first message to the last, seconds.
        stopped: where and why reading ended early, None where all could be read.
        notes: what is odd about the bag, though nothing is lost.
    """

    topics: dict[str, TopicSummary]
    duration_s: float
    stopped: str | None
    notes: list[str]

    @property
    def images(self) -> list[TopicSummary]:
        """The topics that hold images, at least one that could be read."""
        return [topic for topic in self.topics.values() if topic.is_image and topic.log_ns.size]


def summarize(reader: BagReader, progress: Callable[[int], None] | None = None) -> BagSummary:
    """Read a bag once and say what is in it.

    Only headers are parsed, and the first images decoded. It keeps 16 bytes for each message.

    Args:
        reader: the open bag.
        progress: called with the number of messages read.
    """
    tallies = {name: _Tally(info) for name, info in reader.topics.items()}
    count = 0
    for count, message in enumerate(reader.messages(), start=1):
        tallies[message.topic].add(message)
        if progress is not None and not count % 100:
            progress(count)
    if progress is not None:
        progress(count)
    duration_s = (reader.end_ns - reader.start_ns) * 1e-9
    topics = {name: tally.summary() for name, tally in tallies.items()}
    return BagSummary(topics, duration_s, reader.stopped, list(reader.notes))


@dataclass(eq=False)
class _Tally:
    """Collects one topic while the bag is read."""

    info: TopicInfo
    log_ns: array[int] = field(default_factory=lambda: array("q"))
    stamp_ns: array[int] = field(default_factory=lambda: array("q"))
    frame_id: str = ""
    encoding: str = ""
    images: list[Array] = field(default_factory=list)
    problem: str = ""
    headed: bool | None = None

    def add(self, message: BagMessage) -> None:
        self.log_ns.append(message.log_ns)
        if self.headed is None:
            channel = message.channel
            definition = NO_DEFINITION if channel is None else channel.definition
            self.headed = has_header(message.type, definition)
        try:
            if self.headed:
                self._add_header(message)
            if message.type in IMAGE_TYPES and len(self.images) < LOOKED_AT and not self.problem:
                self._add_image(message)
        except DecodeError as error:
            self.problem = self.problem or str(error)

    def _add_header(self, message: BagMessage) -> None:
        self.stamp_ns.append(0)
        header = read_header(message.raw)
        self.stamp_ns[-1] = header.stamp_ns
        self.frame_id = self.frame_id or header.frame_id

    def _add_image(self, message: BagMessage) -> None:
        image = message.decode()
        if message.type == COMPRESSED_IMAGE:
            self.encoding = self.encoding or image.format
            self.images.append(decode_compressed(image))
        else:
            self.encoding = self.encoding or image.encoding
            self.images.append(decode_image(image))

    def summary(self) -> TopicSummary:
        return TopicSummary(
            info=self.info,
            log_ns=np.array(self.log_ns, np.int64),
            stamp_ns=np.array(self.stamp_ns, np.int64) if self.headed else None,
            frame_id=self.frame_id,
            image=self._form() if self.images else None,
            problem=self.problem,
        )

    def _form(self) -> ImageForm:
        first = self.images[0]
        values = np.concatenate([image.reshape(-1)[::7] for image in self.images])
        values = values[np.isfinite(values) & (values != 0)]
        low, median, high = np.percentile(values, [1, 50, 99]) if values.size else [None] * 3
        return ImageForm(
            encoding=self.encoding,
            width=first.shape[1],
            height=first.shape[0],
            dtype=str(first.dtype),
            channels=first.shape[2] if first.ndim == 3 else 1,
            low=None if low is None else float(low),
            median=None if median is None else float(median),
            high=None if high is None else float(high),
        )
