"""A live run on this machine: a bag played over DDS to the node, its outputs recorded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unim2_core.cli.ros import parameter
from unim2_core.errors import Unim2Error
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.rig import Rig

OUTPUTS = ("/segment/segmentation", "/segment/confidence", "/segment/overlay")
DIAGNOSTICS = "/diagnostics"
COUNTERS = "segment: counters"
HISTORY = 20
SETTLE_S = 1.0
"""After the last message: more than the deadline and one frame."""
START_S = 60.0
POLL_S = 0.05
STOP_S = 30.0


@dataclass(frozen=True)
class LiveReport:
    """What came of a live run.

    Attributes:
        played: reference images that were published to the node.
        counters: what the node says became of them, and its other counts.
        percentiles_ms: ``stage pNN ms`` -> milliseconds, as the node reports them.
        latencies_ms: topic -> stamp to arrival at the recorder, of each output.
    """

    played: int
    counters: Mapping[str, int]
    percentiles_ms: Mapping[str, float]
    latencies_ms: Mapping[str, list[float]]


def ros_is_here() -> bool:
    """Whether rclpy and the messages can be imported by a child process."""
    return all(find_spec(name) for name in ("rclpy", "sensor_msgs", "diagnostic_msgs"))


def run_live(
    bag: Path,
    model: Path,
    rig: Path,
    out: Path,
    *,
    loops: int = 1,
    domain: int = 87,
    settings: Sequence[str] = (),
) -> LiveReport:
    """Play a bag to the node and record what it publishes.

    Args:
        bag: the drive; it is played with the stamps moved to the present.
        model: the bundle.
        rig: the rig file.
        out: folder for the recording and the processes' logs.
        loops: how often to play the bag.
        domain: DDS domain, so that nothing else on this machine or network takes part.
        settings: more parameters of the node, each NAME:=VALUE.

    Raises:
        Unim2Error: a process failed; its log is named.
    """
    out.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    latencies = out / "latencies.json"
    topics = [f"{topic}=sensor_msgs/msg/Image" for topic in OUTPUTS]
    topics.append(f"{DIAGNOSTICS}=diagnostic_msgs/msg/DiagnosticArray")
    with BagReader(bag) as reader, ExitStack() as stack:
        reference = Rig.load(rig).reference_topic

        def start(name: str, *arguments: str) -> Child:
            return stack.enter_context(Child(name, arguments, out / f"{name}.log", environment))

        recorder = start(
            "record_node", str(out / "outputs"), *topics, "--latencies", str(latencies)
        )
        # With a depth of 1 a newer output replaces one that a busy recorder has not taken yet.
        kept = [f"qos_overrides.{topic}.publisher.depth:={HISTORY}" for topic in OUTPUTS]
        node = start(
            "segment_node",
            "--ros-args",
            *parameter("model", model),
            *parameter("rig", rig),
            *(word for setting in (*kept, *settings) for word in ("-p", setting)),
        )
        player = start(
            "play_node",
            str(bag),
            "--now",
            "--loops",
            str(loops),
            # A node that nobody listens to computes nothing, so the recorder must be there too.
            *(word for topic in (reference, *OUTPUTS) for word in ("--wait-for", topic)),
            "--wait",
            str(START_S),
        )
        length_s = loops * (reader.end_ns - reader.start_ns) * 1e-9
        player.wait(START_S + length_s + STOP_S, beside=(node, recorder))
        time.sleep(SETTLE_S)
        node.stop()
        recorder.stop()
        played = loops * reader.topics[reference].count
    counters, percentiles = _last_report(out / "outputs")
    return LiveReport(played, counters, percentiles, json.loads(latencies.read_text()))


class Child:
    """One of our nodes in a process of its own; its output goes to a log file."""

    def __init__(
        self, module: str, arguments: tuple[str, ...], log: Path, environment: Mapping[str, str]
    ) -> None:
        self._log = log
        self._module = module
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"unim2_ros.{module}", *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(environment),
            )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def wait(self, timeout_s: float, beside: Sequence[Child] = ()) -> None:
        """Wait until the process has ended by itself.

        Args:
            timeout_s: longest wait, seconds.
            beside: processes that must go on meanwhile.

        Raises:
            Unim2Error: it failed, did not end in time, or one beside it ended.
        """
        deadline = time.monotonic() + timeout_s
        while (status := self._process.poll()) is None:
            for other in beside:
                if other._process.poll() is not None:
                    raise other._failed(f"exit status {other._process.returncode}")
            if time.monotonic() > deadline:
                raise self._failed(f"still running after {timeout_s:.0f} s")
            time.sleep(POLL_S)
        if status:
            raise self._failed(f"exit status {status}")

    def wait_for(self, path: Path, timeout_s: float) -> None:
        """Wait until the process has made a file or folder.

        Raises:
            Unim2Error: it ended before, or took too long.
        """
        deadline = time.monotonic() + timeout_s
        while not path.exists():
            if self._process.poll() is not None:
                raise self._failed(f"exit status {self._process.returncode}")
            if time.monotonic() > deadline:
                raise self._failed(f"no {path} after {timeout_s:.0f} s")
            time.sleep(POLL_S)

    def stop(self) -> None:
        """Interrupt the process as ctrl-C would, and wait for it.

        Raises:
            Unim2Error: it had failed before, or did not end.
        """
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self.wait(STOP_S)

    def _failed(self, found: str) -> Unim2Error:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return Unim2Error(
            f"{self._module} failed in the live run",
            expected="exit status 0",
            found=f"{found}; it said last: {' / '.join(lines[-3:]) or 'nothing'}",
            remedy=f"read {self._log}",
        )


def _last_report(bag: Path) -> tuple[dict[str, int], dict[str, float]]:
    """The node's counters and percentiles from its last diagnostics in a recording."""
    last: Any = None
    with BagReader(bag) as reader:
        for message in reader.messages([DIAGNOSTICS]):
            report = message.decode()
            if any(entry.name == COUNTERS for entry in report.status):  # others report too
                last = report
    if last is None:
        raise Unim2Error(
            "the node reported nothing",
            expected=f"messages on {DIAGNOSTICS}",
            found="none",
            remedy=f"read the logs beside {bag}",
        )
    entries = {
        entry.name.partition(": ")[2]: {item.key: item.value for item in entry.values}
        for entry in last.status
    }
    return (
        {key: int(value) for key, value in entries["counters"].items()},
        {key: float(value) for key, value in entries["latency"].items()},
    )
