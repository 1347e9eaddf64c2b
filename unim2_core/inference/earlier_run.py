"""What an interrupted run has left: its outputs are taken over instead of computed again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from unim2_core.errors import BagError
from unim2_core.sensing.bag_messages import stamp_ns
from unim2_core.sensing.bag_writer import partial_bag
from unim2_core.sensing.bags import BagMessage, BagReader

OUTPUTS = ("/segment/segmentation", "/segment/confidence", "/segment/overlay")
FINGERPRINT = "run.txt"


class EarlierRun:
    """The outputs of an interrupted run, in the order of their stamps.

    Two folders are kept beside the output while it is made: the writer's own and, once a run is
    resumed, the one that it is resumed from. So an interruption at any moment loses nothing.
    """

    def __init__(self, out: Path, fingerprint: str) -> None:
        """Look for what is left.

        Args:
            out: the bag that is to be written.
            fingerprint: of everything that the outputs depend on; other runs are not used.
        """
        self._fingerprint = fingerprint
        self._partial = partial_bag(out).parent
        self._kept = out.with_name(out.name + ".resume")
        self._bag = self._kept / partial_bag(out).name
        self._reader: BagReader | None = None
        self._groups: Iterator[tuple[int, list[BagMessage]]] = iter(())
        self._next: tuple[int, list[BagMessage]] | None = None

    def __enter__(self) -> EarlierRun:
        if self._usable(self._partial) and not self._shorter(self._partial, self._kept):
            shutil.rmtree(self._kept, ignore_errors=True)
            os.rename(self._partial, self._kept)
        if self._usable(self._kept):
            try:
                self._reader = BagReader(self._bag)
            except BagError:
                return self  # killed before anything readable was written
            self._groups = _complete(self._reader)
            self._next = next(self._groups, None)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._reader:
            self._reader.close()
        if kind is None:
            shutil.rmtree(self._kept, ignore_errors=True)

    def claim(self) -> None:
        """Mark the writer's folder, now that it is there, as one of this run."""
        (self._partial / FINGERPRINT).write_text(self._fingerprint, encoding="utf-8")

    def outputs(self, stamp: int) -> list[BagMessage]:
        """The messages that were written for a reference image; empty where there are none.

        Args:
            stamp: of the reference image's header, nanoseconds; asked for in order.
        """
        if self._next is None or self._next[0] != stamp:
            return []
        messages = self._next[1]
        self._next = next(self._groups, None)
        return messages

    def _usable(self, folder: Path) -> bool:
        try:
            return (folder / FINGERPRINT).read_text(encoding="utf-8") == self._fingerprint
        except OSError:
            return False

    @staticmethod
    def _shorter(folder: Path, other: Path) -> bool:
        def size(root: Path) -> int:
            return sum(file.stat().st_size for file in root.rglob("*.mcap"))

        return other.is_dir() and size(folder) < size(other)


def _complete(reader: BagReader) -> Iterator[tuple[int, list[BagMessage]]]:
    """Stamp and messages of each reference image of which every output was written."""
    wanted = [topic for topic in OUTPUTS if topic in reader.topics]
    stamped = ((stamp_ns(message.decode().header), message) for message in reader.messages(wanted))
    for stamp, group in groupby(stamped, key=lambda item: item[0]):
        messages = [message for _, message in group]
        if len(messages) == len(OUTPUTS):
            yield stamp, messages
