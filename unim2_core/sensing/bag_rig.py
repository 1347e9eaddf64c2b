"""A first rig file from the topics of a bag, with the reason of every guess."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from unim2_core.errors import BagError
from unim2_core.sensing.bag_pairing import pair
from unim2_core.sensing.bag_summary import BagSummary, ImageForm, TopicSummary
from unim2_core.sensing.decoding import POLARIZATION_PARTS
from unim2_core.sensing.rig import SENSORS, Rig
from unim2_core.sensing.sensor_guess import Guess, guess, radiometric
from unim2_core.sensing.static_transforms import TransformTree

AGE_PERIODS = 1.5
"""The latest image of a slow camera may be a period old, and come late."""
WHITE = (1023, 4095, 16383)
"""Full scale of 10, 12 and 14 bit sensors in 16 bit images."""


class _Dumper(yaml.SafeDumper):
    """Mappings in lines, vectors in brackets."""


_Dumper.add_representer(
    list, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, True)
)


@dataclass
class RigGuess:
    """A rig and what speaks for it.

    Attributes:
        rig: the rig, valid.
        comments: sensor -> why it is so, lines.
        unused: image topics that are not in the rig, each with the reason.
    """

    rig: Rig
    comments: Mapping[str, Sequence[str]]
    unused: Sequence[str] = field(default_factory=list)

    def dump(self) -> str:
        """The rig as YAML, with its reasons as comments."""
        content = yaml.safe_load(self.rig.dump())
        sensors = content.pop("sensors")
        lines = [
            "# A first guess from the topics of a bag. Check it, above all what is marked (?).",
            yaml.safe_dump(content, sort_keys=False).rstrip(),
            "sensors:",
        ]
        for name, options in sensors.items():
            lines += [f"  # {comment}" for comment in self.comments[name]]
            block = yaml.dump({name: options}, Dumper=_Dumper, sort_keys=False)
            lines += [f"  {line}" for line in block.splitlines()]
        if self.unused:
            lines += ["# Image topics that are not used:"]
            lines += [f"#   {text}" for text in self.unused]
        return "\n".join(lines) + "\n"


def guess_rig(summary: BagSummary, transforms: TransformTree, name: str = "robot") -> RigGuess:
    """Guess the sensors of a robot from a bag of it.

    Args:
        summary: what is in the bag.
        transforms: its static transforms.
        name: name of the rig.

    Raises:
        BagError: the bag holds no images that fit a sensor.
    """
    guesses = [guess(topic) for topic in summary.images]
    best = _best(guesses)
    if not best:
        raise BagError(
            "no rig can be made of this bag",
            expected="at least one topic with images of a camera",
            found=", ".join(f"{g.topic.info.name}: {g.reason}" for g in guesses)
            or "no image topic",
            remedy="record the image topics, or write a rig by hand: config/rigs/example.yaml",
        )
    reference = next(sensor for sensor in SENSORS if sensor in best)
    first = best[reference][0].topic
    sensors: dict[str, dict[str, Any]] = {}
    comments: dict[str, list[str]] = {}
    for sensor in sorted(best, key=lambda sensor: (sensor != reference, SENSORS.index(sensor))):
        chosen = best[sensor]
        options, lines = _sensor(sensor, chosen, summary)
        if sensor != reference:
            topic = chosen[0].topic
            if topic.period_s:
                options["max_age_s"] = _rounded_up(AGE_PERIODS * topic.period_s)
            lines += _place(options, topic, first, transforms)
            lines += _clock(options, topic, first)
        rivals = _rivals(sensor, chosen, guesses)
        lines += [f"(?) or {rival}" for rival in rivals]
        sensors[sensor], comments[sensor] = options, lines
    sensors[reference]["required"] = True
    unused = [text for one in guesses if (text := _unused(one, best))]
    rig = Rig.parse({"name": name, "reference": reference, "sensors": sensors})
    return RigGuess(rig, comments, unused)


def reference_topic(summary: BagSummary) -> TopicSummary | None:
    """The images that the others are to be synchronised with; None where there are none."""
    best = _best([guess(topic) for topic in summary.images])
    for sensor in SENSORS:
        if sensor in best:
            return best[sensor][0].topic
    return summary.images[0] if summary.images else None


def _best(guesses: Sequence[Guess]) -> dict[str, list[Guess]]:
    """Sensor -> the topic that fits best; several where a sensor needs them."""
    best: dict[str, list[Guess]] = {}
    for one in sorted(guesses, key=lambda one: (-one.score, one.topic.info.name)):
        if one.sensor:
            best.setdefault(one.sensor, [one])
    if "polarization" in best and (parts := _parts(guesses)):
        by_name = {one.topic.info.name: one for one in guesses}
        best["polarization"] = [by_name[topic] for topic in parts[1].values()]
    return best


def _parts(guesses: Sequence[Guess]) -> tuple[str, dict[str, str]] | None:
    """Layout and topics of a polarization camera that publishes its parts, None for a mosaic."""
    found: dict[str, str] = {}
    for one in guesses:
        if one.sensor == "polarization":
            # "i45" and "polar_45" are both 45, "s1" is s1.
            for word, number in re.findall(r"([a-z]*(\d*))", one.topic.info.name.lower()):
                found.setdefault(word, one.topic.info.name)
                found.setdefault(number, one.topic.info.name)
    for layout, parts in POLARIZATION_PARTS.items():
        if len(parts) > 1 and all(part in found for part in parts):
            extra = ("s0",) if layout == "dolp_aolp" and "s0" in found else ()
            return layout, {part: found[part] for part in (*parts, *extra)}
    return None


def _sensor(
    sensor: str, chosen: Sequence[Guess], summary: BagSummary
) -> tuple[dict[str, Any], list[str]]:
    """Options of a sensor, and why."""
    one = chosen[0]
    topic, form = one.topic, one.topic.image
    mark = "(?) " if one.doubtful else ""
    lines = [f"{mark}{_described(topic)}: {one.reason}"]
    options: dict[str, Any] = {"topic": topic.info.name}
    if len(chosen) > 1 and (parts := _parts(chosen)):
        layout, topics = parts
        options = {"topics": topics, "polarization": {"layout": layout}}
        lines.append(f"a topic for each part: {layout}")
    elif sensor == "polarization" and form is not None:
        pattern = re.search(r"bayer_(\w{4})", form.encoding)
        layout = "mosaic_bayer_4x4" if pattern else "mosaic_2x2"
        options["polarization"] = {"layout": layout, **({"bayer": pattern[1]} if pattern else {})}
        lines.append("(?) angles_deg is that of Sony's sensors; check it with the camera's manual")
    if topic.zero_stamps == topic.log_ns.size:
        options["stamp"] = "arrival"
        lines.append("its stamps are zero: the time of arrival is taken")
    if sensor == "thermal" and form is not None:
        options["thermal"], line = _thermal(form)
        lines.append(line)
    if sensor == "nir" and form is not None and form.dtype == "uint16" and form.high is not None:
        white = next((white for white in WHITE if form.high <= white), 0)
        if white:
            options["full_scale"] = white
            lines.append(f"(?) counts up to {form.high:.0f}: full scale {white}")
    lines += _camera_info(options, topic, summary)
    return options, lines


def _thermal(form: ImageForm) -> tuple[dict[str, Any], str]:
    if form.low is None or form.high is None or form.median is None:
        return {}, "(?) its images are black: relative"
    counts = f"values from {form.low:.5g} to {form.high:.5g}"
    if form.dtype == "float32" and 220 < form.median < 420:
        return {"conversion": "scale_offset"}, f"(?) {counts}: kelvin"
    if form.dtype == "float32":
        celsius = {"conversion": "scale_offset", "offset": 273.15}
        return celsius, f"(?) {counts}: degrees Celsius"
    conversion = radiometric(form)
    if conversion == "relative":
        return {}, f"(?) {counts} fit no temperature unit: relative"
    return {"conversion": conversion}, f"(?) {counts}: {conversion}"


def _camera_info(options: dict[str, Any], topic: TopicSummary, summary: BagSummary) -> list[str]:
    """Add the topic of the camera_info where it is not beside the image."""
    infos = {
        name: info
        for name, info in summary.topics.items()
        if info.info.type == "sensor_msgs/msg/CameraInfo" and info.log_ns.size
    }
    expected = Rig.parse({"sensors": {"rgb": {**options, "topics": {}, "topic": topic.info.name}}})
    if expected.sensors["rgb"].info_topic in infos:
        return []
    same_frame = [
        name for name, info in infos.items() if topic.frame_id and info.frame_id == topic.frame_id
    ]
    if not same_frame:
        return ["no camera_info in the bag"]
    options["camera_info_topic"] = same_frame[0]
    return ["its camera_info has the same frame id"]


def _place(
    options: dict[str, Any], topic: TopicSummary, first: TopicSummary, tree: TransformTree
) -> list[str]:
    if topic.frame_id == first.frame_id:
        return [f"in the frame of the reference, {topic.frame_id!r}: taken as aligned"]
    extrinsics = tree.extrinsics(topic.frame_id, first.frame_id)
    if extrinsics is None:
        return [
            f"(?) /tf_static does not connect {topic.frame_id!r} and {first.frame_id!r}: "
            "taken as aligned until extrinsics are given"
        ]
    options["extrinsics"] = extrinsics.model_dump(mode="json")
    return [f"extrinsics from /tf_static: {topic.frame_id!r} in {first.frame_id!r}"]


def _clock(options: dict[str, Any], topic: TopicSummary, first: TopicSummary) -> list[str]:
    found = pair(first, topic)
    if found.overlap_s >= 0 or found.log_overlap_s < 0 or "stamp" in options:
        return []
    options["stamp"] = "arrival"
    return ["(?) its clock is not that of the reference: the time of arrival is taken"]


def _rivals(sensor: str, chosen: Sequence[Guess], guesses: Sequence[Guess]) -> list[str]:
    """Other topics that fit a sensor as well as the chosen one."""
    names = {one.topic.info.name for one in chosen}
    return [
        f"{_described(other.topic)}: {other.reason}"
        for other in guesses
        if other.sensor == sensor
        and other.topic.info.name not in names
        and other.score >= chosen[0].score
    ]


def _unused(one: Guess, best: Mapping[str, Sequence[Guess]]) -> str:
    """Why a topic is not in the rig, empty where it is."""
    names = [chosen.topic.info.name for chosen in best.get(one.sensor, ())]
    if one.topic.info.name in names:
        return ""
    better = f"; {one.sensor} is {', '.join(names)}" if names else ""
    return f"{_described(one.topic)}: {one.reason}{better}"


def _rounded_up(seconds: float) -> float:
    """To hundredths of a second, apart from what binary fractions add."""
    return math.ceil(round(100 * seconds, 3)) / 100


def _described(topic: TopicSummary) -> str:
    form = topic.image
    look = f" ({form.encoding} {form.width}x{form.height}" if form else " ("
    rate = f" at {topic.rate_hz:.1f} Hz)" if topic.rate_hz else ")"
    return f"{topic.info.name}{look}{rate}"
