"""``unim2 rig``: a first rig file from a bag."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from unim2_core.cli.console import console, progress, warn
from unim2_core.errors import RigError
from unim2_core.files import write_atomically
from unim2_core.sensing.bag_rig import guess_rig
from unim2_core.sensing.bag_summary import summarize
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.static_transforms import TransformTree


def command(
    bag: Annotated[Path, typer.Argument(help="rosbag2 directory, .mcap, .db3 or ROS 1 .bag.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write; without it: standard output.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Guess the sensors of a robot from a bag and write a first rig file.

    Topics, encodings, frame ids, rates, counts and /tf_static are looked at; every guess stands
    in the file with its reason. Read it before you use it.

    Example: **unim2 rig drive --out rig.yaml**
    """
    if out is not None and out.exists() and not force:
        raise RigError(
            f"{out} exists already",
            expected="a name that is not taken",
            found="a file that may have been edited by hand",
            remedy="choose another name, or overwrite it with --force",
        )
    with (
        BagReader(bag) as reader,
        progress(f"reading {bag.name}", reader.message_count) as advance,
    ):
        summary = summarize(reader, advance)
        guessed = guess_rig(summary, TransformTree.from_bag(reader), name=bag.resolve().stem)
    if summary.stopped:
        warn(f"only a part of the bag was read: {summary.stopped}")
    text = guessed.dump()
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(out, text.encode())
        rig, comments = guessed.rig, guessed.comments.values()
        sensors = f"{', '.join(rig.sensors)}; reference {rig.reference}"
        marked = sum("(?)" in comment for lines in comments for comment in lines)
        console.print(escape(f"{out}: {sensors}; to look at, marked (?): {marked}"))
