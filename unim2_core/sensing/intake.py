"""From messages on topics to decoded frame sets; the same for a bag and for a live robot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from unim2_core.errors import DecodeError, RigError
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.decoding import Decoder
from unim2_core.sensing.fallback import FallbackSynchronizer
from unim2_core.sensing.frames import Frame, FrameSet
from unim2_core.sensing.grouping import StampGrouper
from unim2_core.sensing.rate_limit import RateLimit
from unim2_core.sensing.rig import Rig, Sensor
from unim2_core.sensing.synchronizer import (
    MatchedSet,
    Matcher,
    Member,
    StreamPolicy,
    Synchronizer,
)

NANOSECONDS = 1_000_000_000

Parts = dict[str, Any]
"""Part name -> message; one part named ``image`` where a sensor has one topic."""
Matching = Callable[[Rig], Matcher[Parts]]

TOO_MANY = "over max_rate_hz"
_OPTIONAL_PARTS = {"dolp_aolp": frozenset({"s0"})}


class Intake:
    """Routes messages to sensors, groups and synchronises them, decodes what was matched.

    Messages are decoded only once their set is complete, so what is dropped costs nothing. Not
    thread safe: the caller holds a lock around ``add``, ``advance``, ``flush`` and ``reset``;
    ``decode`` may run beside them.

    Args:
        rig: the sensors.
        matching: makes what decides which images belong together; left out: our synchronizer.

    Attributes:
        rig: the sensors.
        dropped: every message or image that was not used, ``sensor/reason`` -> count, apart from
            what the synchronizer counts itself.
    """

    def __init__(self, rig: Rig, matching: Matching | None = None) -> None:
        self.rig = rig
        self.dropped: Counter[str] = Counter()
        self._routes: dict[str, tuple[str, str]] = {}
        self._groupers: dict[str, StampGrouper[Any]] = {}
        for name, sensor in rig.sensors.items():
            for part, topic in sensor.image_topics.items():
                self._routes[topic] = (name, part)
            if sensor.topics:
                optional = _OPTIONAL_PARTS.get(sensor.polarization.layout, frozenset())
                self._groupers[name] = StampGrouper(tuple(sensor.topics), optional)
        self._limits = _limits(rig)
        self._matching = matching or _synchronizer
        self._synchronizer = self._matching(rig)
        self._counted: Counter[str] = Counter()  # by synchronizers before this one
        self._decoder = Decoder(rig)
        self._cameras: dict[str, Intrinsics] = {}
        self._decoded: dict[str, tuple[Parts, Frame]] = {}
        self._info_routes: dict[str, tuple[str, ...]] = {}
        for name, sensor in rig.sensors.items():
            sharing = self._info_routes.get(sensor.info_topic, ())
            self._info_routes[sensor.info_topic] = (*sharing, name)

    @property
    def info_topics(self) -> dict[str, tuple[str, ...]]:
        """Topic of camera_info -> its sensors; to be handed to ``add_camera_info``."""
        return dict(self._info_routes)

    @property
    def topics(self) -> dict[str, str]:
        """Image topic -> sensor."""
        return {topic: sensor for topic, (sensor, _) in self._routes.items()}

    @property
    def counters(self) -> dict[str, int]:
        """Everything that was emitted or dropped since the start, by reason."""
        counts = Counter(self._synchronizer.counters)
        counts.update(self._counted)
        for name, grouper in self._groupers.items():
            for reason, count in grouper.counters.items():
                counts[f"{name}/part {reason}"] += count
        counts.update(dict(self.dropped))  # a copy at once: ``decode`` may add a reason meanwhile
        return dict(counts)

    def add(self, topic: str, message: Any, arrival_ns: int) -> list[MatchedSet[Parts]]:
        """Take one message in.

        Args:
            topic: one of ``topics``.
            message: a sensor_msgs Image or CompressedImage, from rclpy or from a bag.
            arrival_ns: when it arrived, nanoseconds; the log time of a bag.

        Returns:
            The sets that are now complete, oldest first.
        """
        name, part = self._routes[topic]
        stamp = message.header.stamp
        stamp_ns = stamp.sec * NANOSECONDS + stamp.nanosec
        if self.rig.sensors[name].stamp == "arrival":
            stamp_ns = arrival_ns
        elif stamp_ns <= 0:
            self.dropped[f"{name}/zero stamp"] += 1
            return []
        grouper = self._groupers.get(name)
        whole = [(stamp_ns, {part: message})]
        if grouper is not None:
            whole = grouper.add(part, stamp_ns, message)
        found: list[MatchedSet[Parts]] = []
        for image_ns, parts in whole:
            if self._limits[name].takes(image_ns):
                found += self._synchronizer.add(name, image_ns, parts, arrival_ns)
            else:
                self.dropped[f"{name}/{TOO_MANY}"] += 1
        return found

    def add_camera_info(self, topic: str, message: Any) -> None:
        """Take a camera's calibration in; one that says nothing is counted and not used."""
        for name in self._info_routes[topic]:
            try:
                self._cameras[name] = Intrinsics.from_camera_info(message)
            except RigError:
                self.dropped[f"{name}/camera_info without calibration"] += 1

    def advance(self, arrival_ns: int) -> list[MatchedSet[Parts]]:
        """Let time pass without a message."""
        return self._synchronizer.advance(arrival_ns)

    def flush(self) -> list[MatchedSet[Parts]]:
        """Decide everything that still waits: the stream has ended."""
        return self._synchronizer.flush()

    def reset(self) -> None:
        """Forget all that waits; counters stay."""
        self._synchronizer.reset()
        self._limits = _limits(self.rig)
        for grouper in self._groupers.values():
            grouper.reset()

    def retune(self, rig: Rig) -> None:
        """Go on with other times, rates and required sensors; what waits is forgotten.

        Args:
            rig: the same sensors on the same topics.
        """
        self.rig = rig
        self.reset()
        self._counted.update(self._synchronizer.counters)
        self._synchronizer = self._matching(rig)

    def decode(self, matched: MatchedSet[Parts]) -> FrameSet:
        """Decode the images of a set.

        A sensor whose image cannot be decoded is counted, named in ``missing`` and left out.

        Raises:
            DecodeError: the reference image, or one of a required sensor, cannot be decoded.
        """
        frames: dict[str, Frame] = {}
        missing = dict(matched.missing)
        for name, member in matched.members.items():
            try:
                frame = self._frame(name, member)
                frames[name] = replace(frame, camera=self._cameras.get(name))
            except DecodeError as error:
                self.dropped[f"{name}/not decodable"] += 1
                if name == matched.reference or self.rig.sensors[name].required:
                    raise
                missing[name] = f"{error.what}; expected {error.expected}, found {error.found}"
        skew: Mapping[str, float] = {
            name: seconds for name, seconds in matched.skew_s.items() if name in frames
        }
        return FrameSet(matched.reference, frames, missing, skew)

    def _frame(self, name: str, member: Member[Parts]) -> Frame:
        """The frame of a message; one that serves again, of a slow sensor, is decoded once."""
        kept = self._decoded.get(name)
        if kept is None or kept[0] is not member.payload:
            frame = self._decoder.decode(name, member.payload, member.stamp_ns)
            kept = self._decoded[name] = (member.payload, frame)
        return kept[1]


def _limits(rig: Rig) -> dict[str, RateLimit]:
    return {name: RateLimit(sensor.max_rate_hz) for name, sensor in rig.sensors.items()}


def with_fallback(references: Sequence[str]) -> Matching:
    """Matching around other sensors while the rig's reference is silent.

    Args:
        references: sensors in the order in which they take its place; those that a rig lacks have
            no part.
    """

    def matching(rig: Rig) -> FallbackSynchronizer[Parts]:
        order = dict.fromkeys(
            [rig.reference, *(name for name in references if name in rig.sensors)]
        )
        return FallbackSynchronizer(tuple(order), _policies(rig), rig.deadline_s)

    return matching


def _synchronizer(rig: Rig) -> Synchronizer[Parts]:
    return Synchronizer(rig.reference, _policies(rig), rig.deadline_s)


def _policies(rig: Rig) -> dict[str, StreamPolicy]:
    return {name: _policy(sensor) for name, sensor in rig.sensors.items()}


def _policy(sensor: Sensor) -> StreamPolicy:
    return StreamPolicy(
        required=sensor.required, max_age_s=sensor.max_age_s, offset_s=sensor.offset_s
    )
