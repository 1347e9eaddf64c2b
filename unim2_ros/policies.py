"""Names of QoS policies, as users write them in parameters and command lines."""

from __future__ import annotations

from rclpy.qos import QoSPolicyKind


def policy_name(kind: int) -> str:
    """The policy that an incompatible-QoS event names: ``reliability``, ``durability``, ..."""
    try:
        return QoSPolicyKind(int(kind)).name.lower()
    except ValueError:  # one that this rclpy does not know
        return f"policy {kind}"
