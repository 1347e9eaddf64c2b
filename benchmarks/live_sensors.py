"""Four cameras of 640x480 that can fail, and the live node with an engine that answers at once."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from unim2_core.cli.training import Places, train_on_drives
from unim2_core.sensing.bag_messages import image_message as bag_image
from unim2_core.sensing.bag_writer import BagWriter
from unim2_core.sensing.rig import Rig
from unim2_ros.dds import use_shipped_profile
from unim2_ros.messages import image_message

HEIGHT, WIDTH = 480, 640
NANOSECONDS = 1_000_000_000
ENCODINGS = {"rgb": "rgb8", "depth": "16UC1", "thermal": "mono16", "polarization": "mono8"}
MODALITIES = ("rgb", "depth", "thermal", "aolp")
RIG = Rig.parse(
    {
        "sensors": {
            "rgb": {"topic": "/rgb/image"},
            "depth": {"topic": "/depth/image"},
            "thermal": {"topic": "/thermal/image", "thermal": {"conversion": "centikelvin"}},
            "polarization": {"topic": "/polarization/image"},
        }
    }
)
START_S = 60.0


def pixels(sensor: str, seed: int) -> np.ndarray:
    """An image with something in it: (H, W) or (H, W, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(40, 200, (HEIGHT // 32, WIDTH // 32, 3)).repeat(32, 0).repeat(32, 1)
    coarse = coarse + rng.integers(-20, 20, coarse.shape)
    grey = coarse[..., 0].astype(np.uint16)
    made = {
        "rgb": coarse.astype(np.uint8),
        "depth": 1000 + 20 * grey,
        "thermal": 28000 + 10 * grey,
    }
    return made.get(sensor, grey.astype(np.uint8))


def make_model(folder: Path) -> Path:
    """A model on all four sensors; its answers do not matter here."""
    with BagWriter(folder / "drive") as writer:
        for index in range(3):
            stamp_ns = NANOSECONDS * (1_700_000_000 + index)
            for sensor, encoding in ENCODINGS.items():
                message = bag_image(pixels(sensor, index), encoding, stamp_ns, sensor)
                writer.write(f"/{sensor}/image", message, stamp_ns)
    places = Places(folder / "model.unim2", folder / "cache", folder / "run")
    made = train_on_drives(
        *([folder / "drive"], RIG, MODALITIES, places),
        method="kmeans",
        clusters=4,
        backbone="texture",
    )
    return made.path


@dataclass
class Fault:
    """What is wrong with one sensor at the moment.

    Attributes:
        dead: it publishes nothing.
        jitter_s: its messages come so much later at most; their stamps are right.
        loss: share of its messages that nobody gets.
        offset_s: added to its stamps.
    """

    dead: bool = False
    jitter_s: float = 0.0
    loss: float = 0.0
    offset_s: float = 0.0


class Sensors:
    """The cameras, each published by a thread of its own.

    Attributes:
        faults: sensor -> what is wrong with it; may be changed while it runs.
        clock_s: added to every stamp.
    """

    def __init__(self, node: Node, rate_hz: float) -> None:
        self.faults = {sensor: Fault() for sensor in ENCODINGS}
        self.clock_s = 0.0
        self._node, self._rate_hz = node, rate_hz
        self._running = True
        self._start, self._start_ns = time.monotonic(), time.time_ns()
        self._threads = [
            threading.Thread(target=self._run, args=(sensor,), daemon=True) for sensor in ENCODINGS
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads."""
        self._running = False
        for thread in self._threads:
            thread.join()

    def _run(self, sensor: str) -> None:
        publisher = self._node.create_publisher(Image, f"/{sensor}/image", 5)
        messages = []
        for seed in range(4):
            array = pixels(sensor, seed)
            flat = array if array.dtype == np.uint8 else array.view(np.uint8)
            message = image_message(flat, ENCODINGS[sensor], Header(frame_id=f"{sensor}_frame"))
            message.width = WIDTH
            messages.append(message)
        generator = random.Random(sensor)
        count = int((time.monotonic() - self._start) * self._rate_hz)
        while self._running:
            count += 1
            due_s = count / self._rate_hz
            fault = self.faults[sensor]
            late_s = generator.uniform(0, fault.jitter_s)
            time.sleep(max(0.0, self._start + due_s + late_s - time.monotonic()))
            if fault.dead or generator.random() < fault.loss:
                continue
            message = messages[count % len(messages)]
            stamp_s = due_s + fault.offset_s + self.clock_s
            stamp_ns = self._start_ns + round(stamp_s * NANOSECONDS)
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, NANOSECONDS)
            publisher.publish(message)


class Listener:
    """What comes back from the node.

    Attributes:
        arrivals: when each mask came, seconds of the steady clock.
        reports: when each report came, and name of an entry -> the entry.
    """

    def __init__(self, node: Node) -> None:
        self.arrivals: list[float] = []
        self.reports: list[tuple[float, dict[str, Any]]] = []
        node.create_subscription(
            Image,
            "/segment/segmentation",
            lambda _: self.arrivals.append(time.monotonic()),
            QoSProfile(depth=20),
        )
        node.create_subscription(DiagnosticArray, "/diagnostics", self._reported, 10)

    def values(self, entry: str) -> dict[str, str]:
        """Key -> value of an entry of the newest report."""
        return {item.key: item.value for item in self.reports[-1][1][entry].values}

    def _reported(self, message: DiagnosticArray) -> None:
        self.reports.append((time.monotonic(), {entry.name: entry for entry in message.status}))


@dataclass(frozen=True)
class Bench:
    """Everything that runs.

    Attributes:
        sensors: the cameras.
        listener: what comes back.
        process: the node's.
    """

    sensors: Sensors
    listener: Listener
    process: subprocess.Popen[bytes]


@contextmanager
def running(folder: Path, rate_hz: float, *parameters: str, domain: int) -> Iterator[Bench]:
    """Train, start the node with parameters NAME:=VALUE and the cameras, wait for masks."""
    model = make_model(folder)
    (folder / "rig.yaml").write_text(RIG.dump())
    os.environ |= {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    use_shipped_profile()
    program = Path(__file__).with_name("constant_engine.py")
    given = [f"model:={model}", f"rig:={folder / 'rig.yaml'}", *parameters]
    given.append("qos_overrides./segment/segmentation.publisher.depth:=20")
    process = subprocess.Popen(
        [sys.executable, str(program), "--ros-args", *(w for g in given for w in ("-p", g))]
    )
    rclpy.init()
    node = rclpy.create_node("bench")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    listener = Listener(node)
    spinning = threading.Thread(target=executor.spin, daemon=True)
    spinning.start()
    sensors = Sensors(node, rate_hz)
    try:
        deadline = time.monotonic() + START_S
        while len(listener.arrivals) < 5 and time.monotonic() < deadline:
            if process.poll() is not None:
                raise SystemExit("the node has ended")
            time.sleep(0.05)
        if not listener.arrivals:
            raise SystemExit("no mask came")
        yield Bench(sensors, listener, process)
    finally:
        sensors.stop()
        process.send_signal(signal.SIGINT)
        process.wait(30)
        executor.shutdown()
        spinning.join(5)
        rclpy.try_shutdown()
