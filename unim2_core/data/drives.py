"""Drives: recorded bags as a stream of synchronised frame sets."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

from unim2_core.errors import BagError, DecodeError, RigError
from unim2_core.files import sha256
from unim2_core.sensing.bag_messages import stamp_ns
from unim2_core.sensing.bags import BagMessage, BagReader
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.intake import Intake, Parts
from unim2_core.sensing.rig import Rig
from unim2_core.sensing.synchronizer import MatchedSet

Sets = Generator[tuple[FrameSet, int], None, None]
"""Frame sets, each with the stamp in the header of its reference image, nanoseconds."""
Warn = Callable[[str], object]


def with_topics(rig: Rig, topics: Mapping[str, str]) -> Rig:
    """A rig whose sensors publish elsewhere.

    Args:
        rig: the rig to change.
        topics: sensor -> image topic; a sensor that the rig lacks is added with defaults.

    Raises:
        RigError: a sensor is unknown.
    """
    content = rig.model_dump()
    for sensor, topic in topics.items():
        content["sensors"].setdefault(sensor, {})
        content["sensors"][sensor].update(topic=topic, topics={})
    return Rig.parse(content, source="--topic")


def check_topics(reader: BagReader, rig: Rig) -> list[str]:
    """Hold a rig against the topics of a bag.

    Returns:
        A warning for each sensor whose images are not in the bag.

    Raises:
        BagError: the reference sensor's images, or a required sensor's, are not in the bag.
    """
    warnings = []
    for name, sensor in rig.sensors.items():
        absent = [topic for topic in sensor.image_topics.values() if topic not in reader.topics]
        if not absent:
            continue
        if name == rig.reference or sensor.required:
            raise BagError(
                f"the bag has no images of the sensor {name}",
                expected=f"the topic {', '.join(absent)}",
                found=", ".join(
                    topic.name for topic in reader.topics.values() if "Image" in topic.type
                )
                or "no image topic at all",
                remedy=f"name it with --topic {name}=/its/topic, or write a rig: unim2 rig BAG",
            )
        warnings.append(f"{name} is missing: the bag has no topic {', '.join(absent)}")
    return warnings


def synchronised(reader: BagReader, intake: Intake) -> Iterator[MatchedSet[Parts]]:
    """Stream the sets of a bag in the order of their reference images.

    Args:
        reader: the open bag.
        intake: made from the rig; its counters are complete when the iteration has ended.
    """
    wanted = {*intake.topics, *intake.info_topics} & set(reader.topics)
    for message in reader.messages(wanted):
        yield from take(intake, message)
    yield from intake.flush()


def take(intake: Intake, message: BagMessage) -> list[MatchedSet[Parts]]:
    """Hand a message of a bag to the intake; one on a topic of no sensor is passed over."""
    if message.topic in intake.topics:
        return intake.add(message.topic, message.decode(), message.log_ns)
    if message.topic in intake.info_topics:
        intake.add_camera_info(message.topic, message.decode())
    return []


def check_stamps(intake: Intake, emitted: int) -> None:
    """Say why a drive gave no set at all.

    Raises:
        RigError: nothing was emitted.
    """
    if emitted:
        return
    counts = {key: count for key, count in intake.counters.items() if count}
    reference = intake.rig.reference
    stampless = counts.get(f"{reference}/zero stamp", 0)
    raise RigError(
        "the bag gave no synchronised set",
        expected=f"images of {reference} with a stamp in their header",
        found=f"{stampless} images with stamp zero" if stampless else str(counts or "no message"),
        remedy=f"set stamp: arrival for {reference} in the rig"
        if stampless
        else "look at the streams with: unim2 info BAG",
    )


def spread_sets(bag: Path, rig: Rig, frames: int, warn: Warn) -> Sets:
    """Decoded frame sets, spread evenly over a drive.

    Args:
        bag: the drive.
        rig: which topics to read and how.
        frames: how many, at most.
        warn: told what could not be read.

    Yields:
        A set, and the stamp in the header of its reference image, nanoseconds.

    Raises:
        BagError: the drive cannot be opened, or lacks its reference images.
        RigError: it gives no set.
        DecodeError: no reference image can be decoded.
    """
    intake = Intake(rig)
    emitted = given = 0
    errors: list[DecodeError] = []
    with BagReader(bag) as reader:
        count = reader.topics[rig.reference_topic].count
        for emitted, matched in enumerate(synchronised(reader, intake), start=1):
            if not is_taken(emitted - 1, frames, count):
                continue
            try:
                decoded = intake.decode(matched)
            except DecodeError as error:  # the other images of the drive may be whole
                errors.append(error)
                continue
            given += 1
            parts = matched.members[rig.reference].payload
            yield decoded, stamp_ns(next(iter(parts.values())).header)
        if errors and not given:
            raise errors[0]
        if errors:
            warn(f"{len(errors)} images of {bag} were left out, the first: {errors[0].what}")
        check_stamps(intake, emitted)
        if reader.stopped:
            warn(f"{bag} was read up to its damage: {reader.stopped}")


def is_taken(index: int, wanted: int, count: int) -> bool:
    """Whether an item is one of those that are spread evenly over all, the first included.

    Args:
        index: of the item; those beyond ``count`` are not taken.
        wanted: how many are taken, at most.
        count: how many items there are.
    """
    if index >= count:
        return False
    wanted = min(wanted, count)
    return index * wanted // count != (index - 1) * wanted // count


def contents(bag: Path) -> dict[str, str]:
    """File name -> hex digest, of all files of a bag."""
    if bag.is_file():
        return {"": sha256(bag)}  # its name does not matter
    return {
        str(path.relative_to(bag)): sha256(path)
        for path in sorted(bag.rglob("*"))
        if path.is_file()
    }
