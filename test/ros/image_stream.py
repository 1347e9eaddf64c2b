"""One end of a stream of images over DDS: ``python image_stream.py send|receive TOPIC COUNT``."""

from __future__ import annotations

import array
import sys
import time

import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

WIDTH, HEIGHT, RATE_HZ = 640, 480, 30
START_S, SILENCE_S = 20.0, 2.0


def send(node: Node, topic: str, count: int) -> None:
    """Publish rgb8 images at their rate once somebody listens."""
    publisher = node.create_publisher(Image, topic, qos_profile_sensor_data)
    give_up = time.monotonic() + START_S
    while not publisher.get_subscription_count() and time.monotonic() < give_up:
        time.sleep(0.05)
    time.sleep(0.5)  # until the listener knows us too
    image = Image(height=HEIGHT, width=WIDTH, encoding="rgb8", step=3 * WIDTH)
    image.data = array.array("B", bytes(3 * WIDTH * HEIGHT))
    start = time.monotonic()
    for index in range(count):
        publisher.publish(image)
        time.sleep(max(0.0, start + (index + 1) / RATE_HZ - time.monotonic()))


def receive(node: Node, topic: str, count: int) -> int:
    """Count images until all are here, or none has come for a while."""
    arrivals: list[float] = []
    node.create_subscription(
        Image, topic, lambda _: arrivals.append(time.monotonic()), qos_profile_sensor_data
    )
    give_up = time.monotonic() + START_S
    while len(arrivals) < count and time.monotonic() < give_up:
        rclpy.spin_once(node, timeout_sec=0.1)
        give_up = arrivals[-1] + SILENCE_S if arrivals else give_up
    return len(arrivals)


if __name__ == "__main__":
    _, end, topic, count = sys.argv
    with rclpy.init():
        node = rclpy.create_node(f"{end}er")
        result = {"send": send, "receive": receive}[end](node, topic, int(count))
        if result is not None:
            print(result)
