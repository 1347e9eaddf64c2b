"""Pictures out of what arrives now, as an adaptation takes them in."""

from __future__ import annotations

import hashlib
import math
import queue
import time
from collections import Counter
from collections.abc import Iterator

from rclpy.clock import Clock, ClockType
from rclpy.node import Node

from unim2_core.data.framing import Encodings, Framing
from unim2_core.data.labels import Classes
from unim2_core.data.pictures import Picture
from unim2_core.errors import DecodeError, ModelError
from unim2_core.model.bundle import Manifest
from unim2_core.sensing.intake import Parts
from unim2_core.sensing.resampling import Size
from unim2_core.sensing.rig import Rig
from unim2_core.sensing.synchronizer import MatchedSet
from unim2_ros.streams import Streams

QUEUE = 8
"""Sets that wait for the learner; the oldest goes first, and is counted."""
POLL_S = 0.2
FOLLOW_S = 1.0


class LiveSets:
    """Sets of a rig's topics for a thread that is slower than they are.

    Attributes:
        streams: the subscriptions.
        behind: sets that gave way to newer ones.
    """

    def __init__(self, node: Node, rig: Rig) -> None:
        self.behind = 0
        self._waiting: queue.Queue[MatchedSet[Parts]] = queue.Queue(QUEUE)
        self.streams = Streams(node, rig, self._put)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        node.create_timer(FOLLOW_S, self._follow, clock=steady)

    def _follow(self) -> None:
        for source in self.streams.inputs:
            source.follow_publishers()

    def _put(self, matched: list[MatchedSet[Parts]]) -> None:
        for one in matched:
            if self._waiting.full():
                try:
                    self._waiting.get_nowait()
                    self.behind += 1
                except queue.Empty:  # taken meanwhile
                    pass
            self._waiting.put(one)  # nobody else puts: there is room

    def clear(self) -> None:
        """Forget what waits."""
        while not self._waiting.empty():
            self._waiting.get_nowait()

    def within(self, timeout_s: float) -> MatchedSet[Parts] | None:
        """The next set; None where none came in time."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:  # in short waits: ctrl-C is to be noticed
            try:
                return self._waiting.get(timeout=POLL_S)
            except queue.Empty:
                continue
        return None


def with_rate(rig: Rig, max_rate_hz: float) -> Rig:
    """A rig whose sets come so often, a second, at most."""
    reference = rig.sensors[rig.reference]
    limit_hz = min(reference.max_rate_hz or max_rate_hz, max_rate_hz)
    limited = reference.model_copy(update={"max_rate_hz": limit_hz})
    return rig.model_copy(update={"sensors": {**rig.sensors, rig.reference: limited}})


class LivePictures:
    """The next pictures of a rig's topics; a ``PictureSource`` that is gone through once.

    It ends when there are enough, or when none has come for some time.

    Attributes:
        limit: the most pictures that it gives.
        taken: pictures so far.
        missing: ``modality: reason`` -> in how many sets.
        undecodable: reason -> sets whose reference image could not be decoded.

    Args:
        sets: what arrives.
        manifest: of the model that is to see them.
        limit: how many, at most.
        wait_s: longest wait for one, seconds.
        patient: the first may take as long as it likes.
    """

    label_size: None = None
    classes: Classes | None = None

    def __init__(
        self,
        sets: LiveSets,
        manifest: Manifest,
        limit: int,
        wait_s: float,
        *,
        patient: bool = False,
    ) -> None:
        self.limit = limit
        self.taken = 0
        self.missing: Counter[str] = Counter()
        self.undecodable: Counter[str] = Counter()
        self._sets, self._manifest, self._wait_s = sets, manifest, wait_s
        self._patient = patient

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names; the first is the reference."""
        return tuple(self.encodings)

    @property
    def encodings(self) -> Encodings:
        """Modality -> what ``Encoder.from_description`` takes."""
        return {entry.name: entry.encoding for entry in self._manifest.modalities}

    @property
    def size(self) -> Size:
        """Height and width of every image, pixels."""
        return self._manifest.infer_size

    @property
    def absent(self) -> list[str]:
        """A sentence for each modality that the rig can never give."""
        return [
            f"{entry.name} stays missing: the rig has no sensor {entry.sensor}"
            for entry in self._manifest.modalities
            if entry.sensor not in self._sets.streams.rig.sensors
        ]

    def fingerprint(self) -> str:
        """Hex digest; what arrives live never comes again."""
        return hashlib.sha256(f"live {time.time_ns()}".encode()).hexdigest()

    def __iter__(self) -> Iterator[Picture]:
        """Give them as they come.

        Raises:
            ModelError: none came at all.
        """
        streams = self._sets.streams
        framing = Framing(
            *(streams.rig, self.encodings, self.size),
            self._manifest.backbone.patch_size,
            missing=self.missing,
        )
        self._sets.clear()  # what came while something else was done
        self.taken = 0
        while self.taken < self.limit:
            patient = self._patient and not self.taken
            matched = self._sets.within(math.inf if patient else self._wait_s)
            if matched is None:
                break
            try:
                frames = streams.decode(matched)
            except DecodeError as error:  # the next may be whole
                self.undecodable[str(error)] += 1
                continue
            for sensor, extrinsics in streams.transforms.found.items():
                framing.place(sensor, extrinsics)
            picture = framing.picture(frames, f"live {frames.stamp_ns}", self.taken)
            if picture is not None:
                self.taken += 1
                yield picture
        if not self.taken:
            raise self._nothing()

    def _nothing(self) -> ModelError:
        rig = self._sets.streams.rig
        counts = {key: count for key, count in self._sets.streams.counters.items() if count}
        found = next(iter(self.undecodable), "") or str(counts or "no message")
        return ModelError(
            "no picture came in",
            expected=f"images on {rig.reference_topic} within {self._wait_s:g} s",
            found=found,
            remedy="start the drivers, name their topics with --rig or --topic, and give them the "
            "DDS profile",
        )
