"""What a node in a process of its own says about itself, and what it listens to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from sensor_msgs.msg import Image

pytestmark = pytest.mark.ros
WAIT_S = 30.0
DOMAIN = "64"
RIG = """
sensors:
  rgb: {topic: /cam/image}
  thermal: {topic: /thermal/image}
  nir: {topic: /nir/image}
"""


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setenv("ROS_DOMAIN_ID", DOMAIN)
    rclpy.init()
    try:
        made = rclpy.create_node("listener")
        yield made
        made.destroy_node()
    finally:
        rclpy.try_shutdown()


@pytest.fixture
def start(model_path: Path, tmp_path: Path) -> Iterator[Callable[..., None]]:
    (tmp_path / "rig.yaml").write_text(RIG)
    started: list[subprocess.Popen[bytes]] = []

    def run(*more: str) -> None:
        given = ["-p", f"model:={model_path}", "-p", f"rig:={tmp_path / 'rig.yaml'}", *more]
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "unim2_ros.segment_node", "--ros-args", *given],
                env={**os.environ, "ROS_DOMAIN_ID": DOMAIN},
            )
        )

    yield run
    for process in started:
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0


def _reports(listener: Node, wanted: int) -> list[dict[str, str]]:
    """Name of an entry -> its message, of the first reports."""
    reports: list[dict[str, str]] = []
    listener.create_subscription(
        DiagnosticArray,
        "/diagnostics",
        lambda array: reports.append({entry.name: entry.message for entry in array.status}),
        10,
    )
    deadline = time.monotonic() + WAIT_S
    while len(reports) < wanted and time.monotonic() < deadline:
        rclpy.spin_once(listener, timeout_sec=0.1)
    return reports


def test_reports_what_does_not_come_and_where_it_listens(
    listener: Node, start: Callable[..., None]
) -> None:
    start("-r", "/cam/image:=/front/image")
    [first, *_] = _reports(listener, 1)
    assert first["segment"].startswith("idle: nobody subscribes")
    assert "no publisher on /front/image" in first["segment: rgb"]
    assert "segment: nir" not in first, "the model does not look at it"
    assert listener.count_subscribers("/front/image") == 1
    assert listener.count_subscribers("/nir/image") == 0


def test_an_image_that_cannot_be_used_is_an_error_in_the_report(
    listener: Node, start: Callable[..., None]
) -> None:
    start("-p", "lazy:=false")
    publisher = listener.create_publisher(Image, "/cam/image", 5)
    image = Image(height=2, width=2, step=6, encoding="sonar9", data=bytes(12))

    def publish() -> None:
        image.header.stamp = listener.get_clock().now().to_msg()
        publisher.publish(image)

    listener.create_timer(0.1, publish)
    reports = _reports(listener, 6)
    assert any("unknown image encoding" in report["segment"] for report in reports)


def test_reports_also_without_a_clock(listener: Node, start: Callable[..., None]) -> None:
    start("-p", "use_sim_time:=true")
    reports = _reports(listener, 2)
    assert len(reports) == 2
    assert "nothing publishes /clock" in reports[-1]["segment"]
