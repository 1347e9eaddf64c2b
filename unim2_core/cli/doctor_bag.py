"""What ``unim2 doctor`` looks at of a rig and a drive: topics, QoS, rates, tf, and how they meet.

How often sensors meet is not estimated: the drive's stamps go through the synchronizer that the
live node runs, with the rig's ages and deadline.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from unim2_core.cli.doctor_findings import Check, Finding, error, ok, warning
from unim2_core.data.drives import check_topics, take
from unim2_core.sensing.bag_pairing import findings, pair
from unim2_core.sensing.bag_rig import reference_topic
from unim2_core.sensing.bag_summary import BagSummary, TopicSummary, summarize
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.intake import Intake
from unim2_core.sensing.poses import Pose
from unim2_core.sensing.rig import Rig
from unim2_core.sensing.static_transforms import TransformTree

Read = Callable[[int], None]

SEGMENT = 512 << 10
"""Bytes of Fast DDS' shared memory where no profile says otherwise."""
MOSTLY, RARELY = 0.9, 0.5
LOST = 0.02
APART_M, APART_RAD = 0.01, 0.01


def rig_checks(rig: Rig) -> dict[str, Check]:
    """Checks of a rig alone."""
    return {"rig": lambda: _rig(rig)}


def bag_checks(bag: Path, rig: Rig | None, read: Read | None = None) -> dict[str, Check]:
    """Checks of a drive.

    Args:
        bag: the drive.
        rig: what reads it; None: only what needs no rig is looked at.
        read: called with the number of messages read.
    """
    look = _Look(bag, rig, read)
    checks: dict[str, Check] = {"bag": look.bag}
    if rig is not None:
        checks |= {"topics": look.topics, "sync": look.sync, "tf": look.tf}
    else:
        checks |= {"rig": look.no_rig}
    return checks


def _rig(rig: Rig) -> Iterator[Finding]:
    yield ok("rig", f"{rig.name}: {', '.join(rig.sensors)}; reference {rig.reference}")
    for name, sensor in rig.sensors.items():
        if sensor.extrinsics is not None:
            Pose.of(sensor.extrinsics)  # raises where it is no rigid motion
        elif name != rig.reference:
            found = f"{name} has no extrinsics: it is taken as aligned with {rig.reference}"
            remedy = "record /tf_static, then: unim2 rig BAG --out rig.yaml; or write them in"
            yield warning("rig", found, remedy)


class _Look:
    """Reads a drive once for all checks."""

    def __init__(self, bag: Path, rig: Rig | None, read: Read | None) -> None:
        self._bag, self._rig, self._read = bag, rig, read
        self._found: BagSummary | None = None

    @property
    def summary(self) -> BagSummary:
        if self._found is None:
            with BagReader(self._bag) as reader:
                self._found = summarize(reader, self._read)
        return self._found

    def bag(self) -> Iterator[Finding]:
        """Whether it is whole, and what is odd about its stamps."""
        summary = self.summary
        images = len(summary.images)
        text = f"{summary.duration_s:.1f} s, {images} image topics of {len(summary.topics)} topics"
        if summary.stopped:
            remedy = "what is readable is used; copy it again, or: mcap recover, ros2 bag reindex"
            yield error("bag", f"{text}; damaged: {summary.stopped}", remedy)
        else:
            yield ok("bag", text)
        first = reference_topic(summary)
        others = [topic for topic in summary.images if topic is not first]
        pairings = [] if first is None else [pair(first, topic) for topic in others]
        for text in [*summary.notes, *findings(summary, pairings)]:
            yield warning("bag", text, f"details: unim2 info {self._bag}")

    def no_rig(self) -> Iterator[Finding]:
        """What is not looked at without a rig."""
        found = "without a rig nothing is said of topics, synchronisation and extrinsics"
        remedy = f"unim2 rig {self._bag} --out rig.yaml, then give --rig rig.yaml"
        yield warning("rig", found, remedy)

    def topics(self) -> Iterator[Finding]:
        """Every topic of the rig: whether it is there, its rate, QoS and calibration."""
        assert self._rig is not None
        with BagReader(self._bag) as reader:
            for text in check_topics(reader, self._rig):
                yield warning("topics", text, f"see the topics: unim2 info {self._bag}")
            qos = _reliabilities(reader, self._rig)
        for name, sensor in self._rig.sensors.items():
            for topic in sensor.image_topics.values():
                found = self.summary.topics.get(topic)
                if found is not None:
                    yield _topic(name, found, qos.get(topic, ""))
            info = self.summary.topics.get(sensor.info_topic)
            if info is None or not info.log_ns.size:
                yield warning(
                    "topics",
                    f"{name} has no calibration: nothing on {sensor.info_topic}; it is taken as "
                    f"aligned with {self._rig.reference}",
                    f"record {sensor.info_topic}, or name another with camera_info_topic",
                )

    def sync(self) -> Iterator[Finding]:
        """In how many sets each sensor is, as the live node would have made them."""
        assert self._rig is not None
        intake = Intake(self._rig)
        sets = 0
        reasons: dict[str, Counter[str]] = defaultdict(Counter)
        skews: dict[str, list[float]] = defaultdict(list)
        with BagReader(self._bag) as reader:
            wanted = {*intake.topics, *intake.info_topics} & set(reader.topics)
            matched = [
                done
                for message in reader.messages(wanted)
                for done in ((m.missing, m.skew_s) for m in take(intake, message))
            ]
        matched += [(m.missing, m.skew_s) for m in intake.flush()]
        for missing, skew_s in matched:
            sets += 1
            for name, reason in missing.items():
                reasons[name][reason] += 1
            for name, seconds in skew_s.items():
                skews[name].append(abs(seconds))
        if not sets:
            counts = {key: count for key, count in intake.counters.items() if count}
            remedy = "a zero stamp is mended by stamp: arrival in the rig; see: unim2 info BAG"
            yield error("sync", f"no set came about: {counts or 'no image'}", remedy)
            return
        yield ok("sync", f"{sets} sets of {self._rig.reference}")
        for name in self._rig.sensors:
            if name != self._rig.reference:
                yield self._met(name, sets, reasons[name], skews[name])
        for key, count in intake.counters.items():
            if count and key.endswith("camera_info without calibration"):
                found = f"{key}: {count} messages"
                yield warning("sync", found, "calibrate the camera, or mend its driver")

    def _met(self, name: str, sets: int, reasons: Counter[str], skews: list[float]) -> Finding:
        """How often one sensor was there."""
        assert self._rig is not None
        sensor = self._rig.sensors[name]
        share = len(skews) / sets
        text = f"{name} is in {100 * share:.0f} % of the sets"
        if skews:
            p50, p95 = np.percentile(skews, [50, 95]) * 1e3
            text += (
                f", skew {p50:.0f} ms, p95 {p95:.0f} ms of max_age {1e3 * sensor.max_age_s:.0f} ms"
            )
        if share >= MOSTLY:
            return ok("sync", text)
        why = ", ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
        text += f"; missing: {why}"
        remedy = self._mended(name, reasons)
        return (error if sensor.required and share < RARELY else warning)("sync", text, remedy)

    def _mended(self, name: str, reasons: Counter[str]) -> str:
        """What to change so that a sensor is there more often."""
        assert self._rig is not None
        worst = reasons.most_common(1)[0][0] if reasons else ""
        topic = next(iter(self._rig.sensors[name].image_topics.values()))
        pairing = (
            pair(self.summary.topics[self._rig.reference_topic], self.summary.topics[topic])
            if topic in self.summary.topics
            else None
        )
        if worst == "too old" and pairing and pairing.p95_skew_s is not None:
            return f"max_age_s: {1.2 * pairing.p95_skew_s:.3f} for it in the rig"
        if worst == "too old" and pairing and pairing.clock_s is not None:
            return f"offset_s: {pairing.clock_s:.3f} for it in the rig: the clocks differ"
        if worst == "late":
            return f"a longer deadline_s in the rig than {self._rig.deadline_s:g}: it comes late"
        return f"its driver, and: unim2 info {self._bag}"

    def tf(self) -> Iterator[Finding]:
        """Where the cameras are: by the rig, by /tf_static, and whether both agree."""
        assert self._rig is not None
        with BagReader(self._bag) as reader:
            tree = TransformTree.from_bag(reader)
        frames = {name: self._frame(name) for name in self._rig.sensors}
        home = frames[self._rig.reference]
        for name, sensor in self._rig.sensors.items():
            if name == self._rig.reference:
                continue
            on_tf = tree.extrinsics(frames[name], home) if frames[name] and home else None
            if sensor.extrinsics is None and on_tf is None:
                found = f"{name}: neither the rig nor /tf_static says where it is"
                yield warning("tf", found, "it is taken as aligned; write extrinsics into the rig")
            elif sensor.extrinsics is None:
                remedy = f"unim2 rig {self._bag} --out rig.yaml takes it over"
                yield warning(
                    "tf", f"{name}: /tf_static says where it is, the rig does not", remedy
                )
            elif on_tf is None:
                yield ok(
                    "tf", f"{name}: by the rig; /tf_static does not connect it to {home or '?'}"
                )
            else:
                yield _agreement(name, Pose.of(sensor.extrinsics), Pose.of(on_tf))

    def _frame(self, name: str) -> str:
        assert self._rig is not None
        sensor = self._rig.sensors[name]
        topic = self.summary.topics.get(next(iter(sensor.image_topics.values())))
        return sensor.frame_id or (topic.frame_id if topic else "")


def _agreement(name: str, rig: Pose, on_tf: Pose) -> Finding:
    apart = rig.inverse @ on_tf
    metres = float(np.linalg.norm(apart.translation))
    turn = float(np.arccos(np.clip((np.trace(apart.rotation) - 1) / 2, -1, 1)))
    if metres < APART_M and turn < APART_RAD:
        return ok("tf", f"{name}: the rig and /tf_static agree")
    found = (
        f"{name}: rig and /tf_static differ by {metres:.3f} m and {np.degrees(turn):.1f} degrees"
    )
    return warning("tf", found, "the rig is used; unim2 rig BAG writes what /tf_static says")


def _topic(name: str, topic: TopicSummary, reliability: str) -> Finding:
    """Rate, loss and QoS of the images of a sensor."""
    rate = f"{topic.rate_hz:.1f} Hz" if topic.rate_hz else "a single image"
    form = topic.image
    text = f"{name}: {topic.info.name}, {topic.log_ns.size} images, {rate}"
    if reliability:
        text += f", {reliability.replace('_', ' ')}"
    if form is None:
        return error(
            "topics", f"{text}; no image can be decoded: {topic.problem}", "unim2 info BAG"
        )
    size = form.width * form.height * form.channels * np.dtype(form.dtype).itemsize
    period_s = topic.period_s or 0.0
    span_s = float(topic.times_ns.max() - topic.times_ns.min()) * 1e-9
    expected = span_s / period_s + 1 if period_s else 1.0
    lost = 1 - topic.times_ns.size / expected
    if lost > LOST and topic.gaps:
        text += f"; {100 * lost:.0f} % lost in {topic.gaps} gaps"
        remedy = "a driver or a disk that stalls: unim2 info BAG shows the longest gap"
        if reliability != "reliable" and size > SEGMENT:
            remedy = (
                "images over 512 KiB need the DDS profile at the driver: unim2 doctor says how"
            )
        return warning("topics", text, remedy)
    return ok("topics", text)


def _reliabilities(reader: BagReader, rig: Rig) -> dict[str, str]:
    """Topic -> what its publishers offered, where the bag says so."""
    found: dict[str, str] = {}
    wanted = {t for s in rig.sensors.values() for t in s.image_topics.values()} & set(
        reader.topics
    )
    for message in reader.messages(wanted):
        if message.topic not in found:
            channel = message.channel
            offered = channel.qos if channel is not None else ()
            found[message.topic] = offered[0].reliability.name.lower() if offered else ""
        if len(found) == len(wanted):
            break
    return found
