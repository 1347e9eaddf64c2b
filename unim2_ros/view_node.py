#!/usr/bin/env python3
"""The sensors and a node's answers as they come, in the rerun viewer: ``unim2 view``, but live."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import rclpy
import typer
from rclpy.node import Node

from unim2_core.cli.console import console, warn
from unim2_core.cli.main import reported
from unim2_core.cli.options import RigFile, Topics, rig_from
from unim2_core.cli.view import LOOPBACK, check_sink
from unim2_core.cli.viewing import Onlooker
from unim2_core.errors import DecodeError, Unim2Error
from unim2_core.files import cannot_write
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.bag_messages import stamp_ns
from unim2_core.showing.viewer import Recording, rerun
from unim2_ros.answers import Answers
from unim2_ros.lifetime import ros, spinning
from unim2_ros.live_pictures import LiveSets, with_rate

ANSWER_S = 1.0
"""Longest wait for the node's answer to a set."""
QUIET_S = 5.0
START_S = 20.0
POLL_S = 0.01
_Sink = tuple[Path | str, "subprocess.Popen[bytes] | None"]
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@reported
def view(
    context: typer.Context,
    model: Annotated[
        Path | None, typer.Option("--model", help="Model bundle: names and colours of classes.")
    ] = None,
    rig: RigFile = None,
    topic: Topics = None,
    node_name: Annotated[
        str, typer.Option("--node", help="Whose answers, e.g. /front/segment.")
    ] = "segment",
    max_rate: Annotated[float, typer.Option(min=0.01, help="Sets a second, at most.")] = 5.0,
    frames: Annotated[
        int | None, typer.Option(min=1, help="Sets to show; default: until it is stopped.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option(help="Write NAME.rrd and open nothing; needs no display.")
    ] = None,
    web: Annotated[
        bool, typer.Option("--web", help="In the browser, served on this machine alone.")
    ] = False,
) -> None:
    """Look at a robot's sensors and at what the node makes of them, live; no model runs here.

    Classes are taken from the topics of a node that runs; without one the sensors are shown. Other
    arguments go to ROS. Ctrl-C ends it; what --save wrote is whole then.

    Example: unim2 ros view --rig rig.yaml --model site.unim2 --web
    """
    check_sink(save, web)
    rerun()
    sensors = with_rate(rig_from(rig, topic, root=""), max_rate)
    manifest = None if model is None else Bundle(model).manifest
    onlooker = Onlooker(sensors, manifest)
    count = 0
    arguments = ["--ros-args", *(word for word in context.args if word != "--ros-args")]
    with ros(arguments), _sink(save, web) as (to, viewer):
        node = rclpy.create_node("view")
        sets, answers = LiveSets(node, sensors), Answers(node, node_name)
        with (
            Recording(to, sensors, onlooker.modalities, manifest, segmented=True) as recording,
            spinning(node),
            contextlib.suppress(KeyboardInterrupt),  # the usual end of it
        ):
            while frames is None or count < frames:
                if viewer is not None and viewer.poll() is not None:
                    break  # its window was closed
                count += _shown(node, sets, answers, onlooker, recording)
        if answers.unusable:
            warn(answers.unusable)
        for reason, skipped in onlooker.skipped.items():
            warn(f"{skipped} left out: {reason}")
        sets.streams.close()
        node.destroy_node()
        if not count:
            raise Unim2Error(
                "no image came in",
                expected=f"images on {sensors.reference_topic}",
                found="none",
                remedy="start the drivers, or name their topics with --rig or --topic",
            )
    console.print(f"{count} sets shown")


def _shown(
    node: Node, sets: LiveSets, answers: Answers, onlooker: Onlooker, recording: Recording
) -> bool:
    """Show the next set; False where there is none yet."""
    streams = sets.streams
    matched = sets.within(QUIET_S)
    if matched is None:
        node.get_logger().warning(
            f"no image of {streams.rig.reference} came for {QUIET_S:g} s, on "
            f"{streams.inputs[0].topic}: {streams.inputs[0].publishers} publisher(s)"
        )
        return False
    try:
        frames = streams.decode(matched)
    except DecodeError as error:
        node.get_logger().warning(str(error), throttle_duration_sec=QUIET_S)
        return False
    for sensor, extrinsics in streams.transforms.found.items():
        onlooker.place(sensor, extrinsics)
        recording.place(sensor, extrinsics)
    reference = frames.frames[frames.reference]
    size = reference.height, reference.width
    parts = matched.members[frames.reference].payload
    header_ns = stamp_ns(next(iter(parts.values())).header)
    deadline = time.monotonic() + ANSWER_S
    answer = answers.at(header_ns, size)
    while answer is None and answers.expected and time.monotonic() < deadline:
        time.sleep(POLL_S)
        answer = answers.at(header_ns, size)
    onlooker.show(recording, frames, answer, streams.transforms.tree)
    return True


@contextlib.contextmanager
def _sink(save: Path | None, web: bool) -> Iterator[_Sink]:
    """Where a recording goes: a file that is whole in the end, or a viewer on this machine."""
    if save is not None:
        draft = save.with_name(f".{save.name}.partial")
        try:
            save.parent.mkdir(parents=True, exist_ok=True)
            yield draft, None
            os.replace(draft, save)
        except OSError as error:
            raise cannot_write(save, error) from error
        finally:
            draft.unlink(missing_ok=True)
        return
    port, page = _free_port(), _free_port()
    arguments = ["--web-viewer", "--web-viewer-port", str(page)] if web else []
    viewer = subprocess.Popen(
        [sys.executable, "-m", "rerun", "--bind", LOOPBACK, "--port", str(port), *arguments],
        start_new_session=True,  # ctrl-C ends us first, and it has a child of its own
    )
    try:
        _wait_for(port, viewer)
        address = f"rerun+http://{LOOPBACK}:{port}/proxy"
        if web:
            console.print(f"http://{LOOPBACK}:{page}?url={quote(address, safe='')}")
        yield address, viewer
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(viewer.pid, signal.SIGTERM)
        viewer.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def _wait_for(port: int, viewer: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while viewer.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port), 1.0):
            return
        time.sleep(POLL_S)
    raise Unim2Error(
        "the viewer did not start",
        expected="a display, or a browser with --web",
        found="see above" if viewer.poll() is not None else f"nothing within {START_S:g} s",
        remedy="look at it in a browser with --web, or elsewhere with --save drive.rrd",
    )


def main(args: list[str] | None = None) -> None:
    """Run until it is stopped; ends the process with the exit status of the command."""
    app(args, prog_name="unim2 ros view")


if __name__ == "__main__":
    sys.exit(main())
