"""What the node knows about itself, in words that tell a user what to do."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.time import Time

from unim2_ros.inputs import ImageInput


def status(
    name: str, level: bytes, message: str, values: Mapping[str, object]
) -> DiagnosticStatus:
    """One entry of a diagnostics message."""
    return DiagnosticStatus(
        level=level,
        name=name,
        hardware_id="unim2",
        message=message,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def sensor_status(node: str, source: ImageInput, counters: Mapping[str, int]) -> DiagnosticStatus:
    """How one sensor is doing since the last report.

    Args:
        node: name of the node.
        source: the sensor's subscription.
        counters: every count of the node, ``sensor/reason`` -> number.
    """
    prefix = f"{source.sensor}/"
    own = {
        key.removeprefix(prefix): count
        for key, count in counters.items()
        if key.startswith(prefix)
    }
    topic, publishers, received = source.topic, source.publishers, source.take_received()
    values = {"topic": topic, "publishers": publishers, "received": received, **own}
    level, text = DiagnosticStatus.OK, "receiving"
    if publishers == 0:
        level = DiagnosticStatus.WARN
        text = (
            f"no publisher on {topic}: start its driver, or remap the topic or mend it in the rig"
        )
    elif received == 0:
        level = DiagnosticStatus.WARN
        text = (
            f"{publishers} publisher(s) on {topic} but nothing arrives: does the driver run with "
            "the DDS profile of config/dds, and is its QoS compatible?"
        )
    return status(f"{node}: {source.label}", level, text, values)


def report(stamp: Time, entries: list[DiagnosticStatus]) -> DiagnosticArray:
    """The message for ``/diagnostics``."""
    message = DiagnosticArray()
    message.header.stamp = stamp.to_msg()
    message.status = entries
    return message
