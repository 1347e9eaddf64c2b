"""A node ``segment`` in a process of its own, and a node in this one that talks to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from scenes import rgb_image, thermal_image
from std_msgs.msg import Header

from unim2_core.sensing.rig import Rig
from unim2_ros.messages import image_message

WAIT_S = 30.0
LOST_S = 5.0
"""After which a question that changes nothing is asked again."""
RIG = Rig.parse(
    {
        "sensors": {
            "rgb": {"topic": "/rgb/image"},
            "thermal": {"topic": "/thermal/image", "thermal": {"conversion": "centikelvin"}},
        }
    }
)


class Talker:
    """Publishes images to the node, listens to it and calls its services.

    Attributes:
        node: its node, for more publishers and subscriptions.
        reports: name of an entry -> the entry, of each report so far.
        received: topic -> messages so far, of topics that ``listen`` was called for.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.node: Node = rclpy.create_node("talker")
        self.reports: list[dict[str, Any]] = []
        self.received: dict[str, list[Any]] = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._clients: dict[str, Any] = {}
        self._publishers: dict[str, Any] = {}
        self._sent = 0
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._reported, 10)

    def listen(self, topic: str, kind: type, qos: Any = 10) -> list[Any]:
        """Subscribe; returns the list that messages go into."""
        found = self.received.setdefault(topic, [])
        self.node.create_subscription(kind, topic, found.append, qos)
        return found

    def send(self, sensors: Sequence[str] = ("rgb", "thermal"), **changes: Any) -> None:
        """Publish one image of each sensor, stamped now; ``changes`` go into the messages."""
        stamp = self.node.get_clock().now().to_msg()
        for sensor in sensors:
            self.publish(sensor, stamp, **changes)
        self._sent += 1

    def publish(self, sensor: str, stamp: Any, **changes: Any) -> None:
        """Publish one image of one sensor."""
        if sensor not in self._publishers:
            kind = type(_image("rgb", 0, stamp))
            self._publishers[sensor] = self.node.create_publisher(kind, f"/{sensor}/image", 5)
        message = _image(sensor, self._sent, stamp)
        for name, value in changes.items():
            setattr(message, name, value)
        self._publishers[sensor].publish(message)

    def until(
        self,
        holds: Callable[[], bool],
        step: Callable[[], None] = lambda: None,
        wait_s: float = WAIT_S,
    ) -> bool:
        """Run callbacks, and a step every 50 ms, until something holds; returns if it does."""
        deadline = time.monotonic() + wait_s
        due = 0.0
        while not holds() and time.monotonic() < deadline:
            assert self.process.poll() is None, "the node's process has ended"
            if time.monotonic() >= due:
                step()
                due = time.monotonic() + 0.05
            self._executor.spin_once(timeout_sec=0.01)
        return holds()

    def says(self, words: str, entry: str = "segment", step: Callable[[], None] = lambda: None):
        """Wait for a report, from now on, whose entry has these words; returns that entry."""
        seen = len(self.reports)

        def found() -> bool:
            return any(words in r[entry].message for r in self.reports[seen:] if entry in r)

        last = [r[entry].message for r in self.reports if entry in r]
        assert self.until(found, step), f"{words!r} not said by {entry}; last: {last[-3:]}"
        return next(
            r[entry] for r in self.reports[seen:] if entry in r and words in r[entry].message
        )

    def counts(self) -> dict[str, int]:
        """The counters of the newest report."""
        entry = self._newest()["segment: counters"]
        return {i.key: int(i.value) for i in entry.values}

    def version(self) -> str:
        """The model's version in the newest report; empty: none was reported."""
        report = self._newest()
        values = report["segment"].values if report else ()
        return next((item.value for item in values if item.key == "model version"), "")

    def _newest(self) -> dict[str, Any]:
        """The newest report of the node; others may report too."""
        return next((r for r in reversed(self.reports) if "segment" in r), {})

    def call(self, kind: type, name: str, **fields: Any) -> Any:
        """Call a service of the node; returns its answer."""
        if name not in self._clients:
            self._clients[name] = self.node.create_client(kind, f"/segment/{name}")
        client = self._clients[name]
        assert self.until(client.service_is_ready), f"no service {name}"
        answer = client.call_async(kind.Request(**fields))
        if kind is GetState and not self.until(answer.done, wait_s=LOST_S):
            # The middleware may give up an answer to a client that it has just met, and says so.
            answer = client.call_async(kind.Request(**fields))
        assert self.until(answer.done), f"no answer from {name}"
        return answer.result()

    def change_state(self, transition: str) -> bool:
        """Make the node go through a transition; returns whether it could."""
        request = ChangeState.Request()
        request.transition.label = transition
        return bool(self.call(ChangeState, "change_state", transition=request.transition).success)

    def state(self) -> str:
        """The node's state."""
        return str(self.call(GetState, "get_state").current_state.label)

    def set_parameter(self, name: str, value: Any) -> Any:
        """Set a parameter of the node; returns the result with its reason."""
        parameter = Parameter(name, value=value).to_parameter_msg()
        return self.call(SetParameters, "set_parameters", parameters=[parameter]).results[0]

    def close(self) -> None:
        """Destroy the node of this process."""
        self._executor.remove_node(self.node)
        self.node.destroy_node()

    def _reported(self, message: DiagnosticArray) -> None:
        self.reports.append({entry.name: entry for entry in message.status})


@contextmanager
def talking(
    folder: Path, domain: int, *parameters: str, rig: Rig = RIG, program: str = ""
) -> Iterator[Talker]:
    """Start the node with parameters NAME:=VALUE and talk to it; it must end well at the end."""
    (folder / "rig.yaml").write_text(rig.dump())
    os.environ["ROS_DOMAIN_ID"] = str(domain)
    given = [f"rig:={folder / 'rig.yaml'}", *parameters]
    process = subprocess.Popen(
        [
            sys.executable,
            *([program] if program else ["-m", "unim2_ros.segment_node"]),
            "--ros-args",
            *(word for setting in given for word in ("-p", setting)),
        ],
        env=dict(os.environ),
    )
    rclpy.init()
    try:
        talker = Talker(process)
        yield talker
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0
        talker.close()
    finally:
        rclpy.try_shutdown()
        if process.poll() is None:
            process.kill()
            process.wait()


def _image(sensor: str, index: int, stamp: Any) -> Any:
    header = Header(stamp=stamp, frame_id=f"{sensor}_optical_frame")
    if sensor == "rgb":
        return image_message(rgb_image(index), "rgb8", header)
    pixels = thermal_image(index)
    message = image_message(pixels.view("uint8"), "mono16", header)
    message.width = pixels.shape[1]
    return message
