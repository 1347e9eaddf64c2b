"""Running a node: a callback that fails ends it, unless it is to go on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from rclpy.node import Node

from unim2_ros.lifetime import spin

pytestmark = pytest.mark.ros


@pytest.fixture
def failing() -> Iterator[tuple[Node, list[str]]]:
    """A node whose one timer fails each time, and what it has done so far."""
    os.environ["ROS_DOMAIN_ID"] = "73"
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    rclpy.init()
    calls: list[str] = []

    def fail() -> None:
        calls.append("called")
        raise RuntimeError("a bug")

    try:
        node = rclpy.create_node("failing")
        node.create_timer(0.01, fail)
        yield node, calls
        node.destroy_node()
    finally:
        rclpy.try_shutdown()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def test_callbacks_go_on_after_one_that_failed(failing: tuple[Node, list[str]]) -> None:
    node, calls = failing
    errors: list[Exception] = []
    spin(node, until=lambda: len(errors) >= 3, on_error=errors.append)
    assert [str(error) for error in errors] == ["a bug"] * len(calls)


def test_without_a_handler_the_error_ends_it(failing: tuple[Node, list[str]]) -> None:
    node, calls = failing
    with pytest.raises(RuntimeError, match="a bug"):
        spin(node)
    assert calls == ["called"]
