"""The node's services: reload and roll back the model, pause, save a snapshot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rclpy.node import Node

from unim2_core.errors import Unim2Error

try:
    from std_srvs.srv import SetBool, Trigger
except ImportError:  # an older environment of wheels
    SetBool = Trigger = None

ANSWER_S = 0.1
"""Longest wait of a service for its work: meanwhile images queue up."""


@dataclass(frozen=True)
class Offer:
    """One service.

    Attributes:
        name: below the node's own name.
        kind: class of the service; None where it is not to be had here.
        type: name of that class.
        says: what it does.
    """

    name: str
    kind: type | None
    type: str
    says: str


OFFERS = (
    Offer(
        "reload_model",
        Trigger,
        "std_srvs/Trigger",
        "take what lies at the parameter model now: new weights between two images where the "
        "networks are the same, else all of it in the background while the old one goes on",
    ),
    Offer(
        "roll_back",
        Trigger,
        "std_srvs/Trigger",
        "go back to the model before, from the next image on",
    ),
    Offer("pause", SetBool, "std_srvs/SetBool", "true: segment nothing; false: go on"),
    Offer(
        "save_snapshot",
        Trigger,
        "std_srvs/Trigger",
        "write the last snapshot_s seconds as a bag to snapshot_dir; the answer names it",
    ),
)


class Services:
    """The services of one node, while it is configured.

    Args:
        node: that offers them.
        work: name of a service -> what does it: takes ``SetBool``'s value or nothing, returns the
            answer in words, raises Unim2Error where it cannot be done.
    """

    def __init__(self, node: Node, work: dict[str, Callable[..., str]]) -> None:
        self._node = node
        self._services = []
        for offer in OFFERS:
            if offer.kind is None:
                node.get_logger().info(
                    f"~/{offer.name} is not offered: std_srvs is not installed here"
                )
                continue
            self._services.append(
                node.create_service(
                    offer.kind, f"~/{offer.name}", self._answering(work[offer.name])
                )
            )

    def close(self) -> None:
        """Withdraw them."""
        while self._services:
            self._node.destroy_service(self._services.pop())

    def _answering(self, work: Callable[..., str]) -> Callable[[Any, Any], Any]:
        def answer(request: Any, response: Any) -> Any:
            arguments = (request.data,) if hasattr(request, "data") else ()
            try:
                response.success, response.message = True, work(*arguments)
            except Unim2Error as error:
                response.success, response.message = False, str(error)
            except Exception as error:  # a callback never ends the node
                response.success = False
                response.message = f"{type(error).__name__}: {error}"
            if response.success:
                self._node.get_logger().info(response.message)
            else:
                self._node.get_logger().warning(response.message)
            return response

        return answer
