"""Reading of bags: rosbag2 in mcap or SQLite, and ROS 1, whole or damaged, as one stream."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType

from unim2_core.errors import BagError
from unim2_core.sensing.bag_directory import KINDS, OpenBag, open_bag
from unim2_core.sensing.bag_storage import BagMessage, Channel, merged
from unim2_core.sensing.bag_types import Standing

__all__ = ["BagMessage", "BagReader", "TopicInfo"]


@dataclass(frozen=True)
class TopicInfo:
    """One topic of a bag.

    Attributes:
        name: name of the topic.
        type: name of its ROS 2 type.
        count: number of messages that can be read.
        definition: ``standard`` where every ROS 2 has the type, ``stored`` where the bag itself
            defines it, ``missing`` where neither is so: passed through, never decoded.
        latched: late subscribers get the last message (transient local).
    """

    name: str
    type: str
    count: int
    definition: Standing = "standard"
    latched: bool = False


class BagReader:
    """A bag, or several that were recorded together, as one stream of messages.

    Reads rosbag2 directories and single ``.mcap`` or ``.db3`` files, compressed or not, and ROS 1
    bags, whose messages become those of ROS 2. Memory does not grow with the length of a bag,
    apart from an index of some hundred bytes for each chunk. A damaged bag is read as far as it
    can be; ``stopped`` says where that ends.

    Use as a context manager; it is open from construction on.

    Attributes:
        topics: name -> what is known of it.
        start_ns: log time of the first message.
        end_ns: log time of the last message.
        message_count: number of messages that can be read, as far as known when it is opened.
        notes: what is odd about the bag, though nothing is lost.

    Args:
        path: one bag, or several.

    Raises:
        BagError: there is no bag, or nothing in it can be read.
    """

    def __init__(self, path: Path | Sequence[Path]) -> None:
        paths = [path] if isinstance(path, Path) else list(path)
        self._bags: list[OpenBag] = []
        try:
            for each in paths:
                self._bags.append(open_bag(each))
            self.topics: Mapping[str, TopicInfo] = _topics(
                [channel for bag in self._bags for channel in bag.channels]
            )
            self.message_count = sum(topic.count for topic in self.topics.values())
            self._files = [file for bag in self._bags for file in bag.files]
            if not self.message_count:
                raise _empty(paths, self.stopped)
        except BaseException:
            self.close()
            raise
        self.start_ns = min(file.start_ns for file in self._files)
        self.end_ns = max(file.end_ns for file in self._files)

    def __enter__(self) -> BagReader:
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

    @property
    def stopped(self) -> str | None:
        """Where and why reading ended early; None where all could be read.

        A missing end shows as soon as the bag is opened, damage in the middle when it is reached.
        """
        damages = [file.damage for file in self._files if file.damage]
        return "; ".join([*(text for bag in self._bags for text in bag.lost), *damages]) or None

    @property
    def notes(self) -> Sequence[str]:
        """What is odd about the bag, though nothing is lost."""
        return [
            *(note for bag in self._bags for note in bag.notes),
            *(note for file in self._files for note in file.notes),
        ]

    def messages(
        self, topics: Collection[str] | None = None, start_ns: int | None = None
    ) -> Iterator[BagMessage]:
        """Stream messages in the order of their log time.

        Args:
            topics: names of the wanted topics; None: all. Chunks without them are not read.
            start_ns: log time of the first wanted message, nanoseconds; None: from the start.

        Yields:
            Messages, not decoded. After damage the other files of a split bag go on.
        """
        wanted = None if topics is None else frozenset(topics)
        yield from merged(
            (file.start_ns, partial(file.messages, wanted, start_ns))
            for file in self._files
            if file.end_ns >= (start_ns or 0)
        )

    def close(self) -> None:
        """Close all files."""
        for bag in self._bags:
            bag.close()


def _topics(channels: Sequence[Channel]) -> dict[str, TopicInfo]:
    topics: dict[str, TopicInfo] = {}
    for channel in sorted(channels, key=lambda channel: channel.topic):
        known = topics.get(channel.topic)
        # Several publishers, or the parts of a split bag: one topic.
        topics[channel.topic] = (
            TopicInfo(
                channel.topic, channel.type, channel.count, channel.standing, channel.latched
            )
            if known is None
            else replace(
                known,
                count=known.count + channel.count,
                latched=known.latched or channel.latched,
            )
        )
    return topics


def _empty(paths: Sequence[Path], stopped: str | None) -> BagError:
    return BagError(
        f"{', '.join(map(str, paths)) or 'the list of bags'} holds no message that can be read",
        expected=KINDS,
        found=stopped or "a bag without messages",
        remedy="check that topics were published while it was recorded"
        if stopped is None
        else "copy it again from the robot, or repair it: mcap recover, rosbag reindex",
    )
