"""``unim2 view``: a drive, and what a model makes of it, in the rerun viewer."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from unim2_core.cli.console import Advance, console, progress, warn
from unim2_core.cli.options import BackendName, RigFile, Topics, rig_from
from unim2_core.cli.viewing import Onlooker
from unim2_core.data.drives import check_stamps, check_topics, is_taken, take
from unim2_core.errors import BagError, DecodeError, Unim2Error
from unim2_core.files import cannot_write
from unim2_core.inference.pipeline import Pipeline
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.intake import Intake, Parts
from unim2_core.sensing.rig import Rig
from unim2_core.sensing.static_transforms import TransformTree
from unim2_core.sensing.synchronizer import MatchedSet
from unim2_core.showing.viewer import Answer, Recording, rerun

SUFFIX = ".rrd"
LOOPBACK = "127.0.0.1"
TF = "tf2_msgs/msg/TFMessage"


def command(
    bag: Annotated[Path, typer.Argument(help="rosbag2 directory, .mcap, .db3 or ROS 1 .bag.")],
    model: Annotated[
        Path | None, typer.Option("--model", help="Model bundle; without it: the sensors alone.")
    ] = None,
    rig: RigFile = None,
    topic: Topics = None,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Frame sets to take, evenly spread; default: all.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write NAME.rrd and open nothing; needs no display.")
    ] = None,
    web: Annotated[
        bool, typer.Option("--web", help="In the browser, served on this machine alone.")
    ] = False,
    backend: BackendName = "auto",
) -> None:
    """Look at a drive: every sensor, registered, classes, confidence, points in space, timing.

    The view opens arranged. A saved recording opens later and elsewhere with: rerun NAME.rrd

    Example: unim2 view drive --rig rig.yaml --model site.unim2 --save drive.rrd
    """
    check_sink(save, web)
    rerun()
    sensors = rig_from(rig, topic)
    pipeline = None if model is None else Pipeline(Bundle(model), sensors, backend)
    if pipeline is not None:
        console.print(escape(pipeline.bundle.manifest.summary))
    if save is not None:
        count = _recorded(bag, sensors, pipeline, save, frames)
        console.print(escape(f"{save}: {count} sets; open it with: rerun {save}"))
        return
    with tempfile.TemporaryDirectory(prefix="unim2-view-") as folder:
        file = Path(folder, f"drive{SUFFIX}")
        _recorded(bag, sensors, pipeline, file, frames)
        arguments = ["--web-viewer"] if web else []
        command = [sys.executable, "-m", "rerun", str(file), "--bind", LOOPBACK, *arguments]
        if subprocess.run(command, check=False).returncode:
            raise Unim2Error(
                "the viewer ended with an error",
                expected="a display" if not web else "a browser, and free ports",
                found="see above",
                remedy="look at it in a browser with --web, or elsewhere with --save drive.rrd",
            )


def check_sink(save: Path | None, web: bool) -> None:
    """Check where the recording is to go.

    Raises:
        typer.BadParameter: to two places, or the file's name is none of a recording.
    """
    if save and save.suffix != SUFFIX:
        raise typer.BadParameter(f"expected a name ending in {SUFFIX}, found {save.name}")
    if save and web:
        raise typer.BadParameter("expected --save or --web, found both")


def _recorded(
    bag: Path, rig: Rig, pipeline: Pipeline | None, out: Path, frames: int | None
) -> int:
    """Write a recording, whole or not at all; returns how many sets it holds."""
    draft = out.with_name(f".{out.name}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with BagReader(bag) as reader:
            for text in (*reader.notes, *check_topics(reader, rig)):
                warn(text)
            there = rig.only([n for n, s in rig.sensors.items() if _given(reader, s.image_topics)])
            drive = _Drive(reader, there, pipeline)
            with progress("recording", reader.message_count) as advance:
                count = drive.record(draft, frames, advance)
            if reader.stopped:
                warn(f"{bag} was read up to its damage: {reader.stopped}")
        os.replace(draft, out)
    except OSError as error:
        raise cannot_write(out, error) from error
    finally:
        draft.unlink(missing_ok=True)
    return count


def _given(reader: BagReader, topics: dict[str, str]) -> bool:
    return any(topic in reader.topics for topic in topics.values())


@dataclass
class _Drive:
    """A drive on its way into a recording."""

    reader: BagReader
    rig: Rig
    pipeline: Pipeline | None
    skipped: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._manifest = None if self.pipeline is None else self.pipeline.bundle.manifest
        self._onlooker = Onlooker(self.rig, self._manifest)
        self._tf = TransformTree.from_bag(self.reader)

    def record(self, out: Path, frames: int | None, advance: Advance) -> int:
        """Write all sets, or so many, evenly spread."""
        intake = Intake(self.rig)
        total = self.reader.topics[self.rig.reference_topic].count
        written = emitted = 0
        with Recording(out, self.rig, self._onlooker.modalities, self._manifest) as recording:
            for frameset in self._sets(intake, frames, total, advance):
                emitted += 1
                if frameset is not None:
                    self._add(recording, frameset)
                    written += 1
        check_stamps(intake, emitted)
        if not written:
            raise BagError(
                "no image of the drive can be shown",
                expected="images that can be decoded",
                found="; ".join(self.skipped) or "none",
                remedy="look at the topics with: unim2 info BAG",
            )
        for what, count in (self.skipped + self._onlooker.skipped).items():
            warn(f"{count} left out: {what}")
        return written

    def _sets(
        self, intake: Intake, frames: int | None, total: int, advance: Advance
    ) -> Iterator[FrameSet | None]:
        """Decoded sets; None for those that are not wanted or cannot be decoded."""
        for index, matched in enumerate(self._matched(intake, advance)):
            wanted = frames is None or is_taken(index, frames, total)
            yield self._decoded(intake, matched) if wanted else None

    def _matched(self, intake: Intake, advance: Advance) -> Iterator[MatchedSet[Parts]]:
        """All sets; tf is followed on the way."""
        moving = {name for name, topic in self.reader.topics.items() if topic.type == TF}
        wanted = ({*intake.topics, *intake.info_topics} & set(self.reader.topics)) | moving
        for count, message in enumerate(self.reader.messages(wanted), start=1):
            advance(count)
            if message.topic in moving:
                self._tf.add(message.decode().transforms)
            else:
                yield from take(intake, message)
        yield from intake.flush()

    def _decoded(self, intake: Intake, matched: MatchedSet[Parts]) -> FrameSet | None:
        try:
            return intake.decode(matched)
        except DecodeError as error:  # the other images may be whole
            self.skipped[error.what] += 1
            return None

    def _add(self, recording: Recording, frames: FrameSet) -> None:
        answer = None
        if self.pipeline is not None:
            result = self.pipeline(frames)
            answer = Answer(result.classes, result.confidence, result.latency_ms, result.version)
        self._onlooker.show(recording, frames, answer, self._tf)
