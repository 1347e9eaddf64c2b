"""QoS policies: which a user may override, and their names in parameters and command lines."""

from __future__ import annotations

from rclpy.qos import QoSPolicyKind
from rclpy.qos_overriding_options import QoSOverridingOptions

_KINDS = (
    QoSPolicyKind.HISTORY,
    QoSPolicyKind.DEPTH,
    QoSPolicyKind.RELIABILITY,
    QoSPolicyKind.DURABILITY,
)
OVERRIDABLE = QoSOverridingOptions(_KINDS)
"""By ``qos_overrides.<topic>.<publisher or subscription>.<policy>``."""


def override(topic: str, entity: str, policy: str) -> str:
    """The parameter that overrides a policy; empty where it cannot be overridden.

    Args:
        topic: its full name.
        entity: ``publisher`` or ``subscription``.
        policy: as ``policy_name`` gives it.
    """
    names = {kind.name.lower() for kind in _KINDS}
    return f"qos_overrides.{topic}.{entity}.{policy}" if policy in names else ""


def policy_name(kind: int) -> str:
    """The policy that an incompatible-QoS event names: ``reliability``, ``durability``, ..."""
    try:
        return QoSPolicyKind(int(kind)).name.lower()
    except ValueError:  # one that this rclpy does not know
        return f"policy {kind}"
