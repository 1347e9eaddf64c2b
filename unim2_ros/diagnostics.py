"""What the node knows about itself, in words that tell a user what to do."""

from __future__ import annotations

from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.time import Time

from unim2_ros.inputs import ImageInput
from unim2_ros.policies import override

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


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


def sensor_status(
    node: str,
    source: ImageInput,
    counters: Mapping[str, int],
    wrong: str = "",
    facts: Mapping[str, object] | None = None,
) -> DiagnosticStatus:
    """How one sensor is doing since the last report.

    Args:
        node: name of the node.
        source: the sensor's subscription.
        counters: every count of the node, ``sensor/reason`` -> number.
        wrong: what is wrong with what arrives; empty: nothing.
        facts: more about it, key -> value.
    """
    prefix = f"{source.sensor}/"
    own = {
        key.removeprefix(prefix): count
        for key, count in counters.items()
        if key.startswith(prefix)
    }
    received = source.take_received()
    text = _trouble(source, received) or wrong
    values = {
        "topic": source.topic,
        "publishers": source.publishers,
        "received": received,
        **own,
        **(facts or {}),
    }
    return status(f"{node}: {source.label}", WARN if text else OK, text or "receiving", values)


def _trouble(source: ImageInput, received: int) -> str:
    topic, publishers = source.topic, source.publishers
    if publishers == 0:
        return (
            f"no publisher on {topic}: start its driver, or remap the topic or mend it in the rig"
        )
    if received == 0 and source.refused:
        policy = source.refused
        parameter = override(topic, "subscription", policy)
        return (
            f"QoS mismatch on {topic}: its publisher offers less {policy} than is asked for: "
            + (f"set {parameter} to what it offers" if parameter else "change its QoS")
        )
    if received == 0:
        return (
            f"{publishers} publisher(s) on {topic} but nothing arrives: does the driver run with "
            "the DDS profile of config/dds, and is its QoS compatible?"
        )
    if publishers > 1:
        return (
            f"{publishers} publishers on {topic} ({', '.join(source.publisher_names)}): their "
            "images are mixed up; stop or remap all but one"
        )
    return ""


def report(stamp: Time, entries: list[DiagnosticStatus]) -> DiagnosticArray:
    """The message for ``/diagnostics``."""
    message = DiagnosticArray()
    message.header.stamp = stamp.to_msg()
    message.status = entries
    return message
