"""Start and end of our processes: interrupted by ctrl-C or by SIGTERM, they end in order."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from unim2_core.errors import Unim2Error
from unim2_ros.dds import use_shipped_profile

POLL_S = 0.2
"""An interrupt is noticed after this long at most, where no message arrives."""


@contextlib.contextmanager
def ros(args: list[str] | None = None) -> Iterator[None]:
    """ROS, from before the first node is made until after the last one is destroyed.

    rclpy's own handlers would shut the context down under a node that still has to report; here
    both signals raise KeyboardInterrupt, which ends the block quietly, until ``spin`` takes over.

    Args:
        args: the process' arguments; None: ``sys.argv``.

    Raises:
        Unim2Error: ROS does not understand the arguments.
    """
    use_shipped_profile()
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy's own have no common base
        raise Unim2Error(
            "ROS cannot start with these arguments",
            expected="ROS arguments, and files of parameters that can be read",
            found=str(error),
            remedy="mend or leave out what is named",
        ) from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
            yield
    finally:
        rclpy.try_shutdown()


def spin(
    node: Node,
    until: Callable[[], bool] = lambda: False,
    on_error: Callable[[Exception], None] | None = None,
) -> None:
    """Run a node's callbacks until the process is interrupted, or until something holds.

    A terminal and ``ros2 launch`` both send SIGINT: the second one must not cut short what the
    first has begun. SIGTERM ends the process at once from then on. From here on signals raise
    nothing: an exception could be lost in whatever code it happened to meet.

    Args:
        node: the node.
        until: looked at after each callback.
        on_error: called with what a callback raises, and on it goes; None: that ends it.
    """
    interrupted = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: interrupted.set())
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        while not interrupted.is_set() and not until():
            try:
                executor.spin_once(timeout_sec=POLL_S)
            except ExternalShutdownException:
                break
            except Exception as error:
                if on_error is None:
                    raise
                on_error(error)
    finally:  # after the context, its end would print a traceback
        executor.shutdown()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
