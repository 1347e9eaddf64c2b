"""Long work in a thread of its own, so that callbacks go on meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Job(Generic[T]):
    """One piece of work that has been started.

    Attributes:
        what: in words, for log and diagnostics.
        outcome: its result or exception, once it is done.
    """

    def __init__(self, what: str, work: Callable[[], T]) -> None:
        self.what = what
        self.outcome: Future[T] = Future()
        self._start = time.monotonic()
        # A daemon: ctrl-C does not wait for an engine that takes minutes to build.
        threading.Thread(target=self._run, args=(work,), name=what, daemon=True).start()

    @property
    def seconds(self) -> float:
        """How long ago it was started."""
        return time.monotonic() - self._start

    def done_within(self, timeout_s: float) -> bool:
        """Wait for the end, but not longer than this."""
        ended = threading.Event()
        self.outcome.add_done_callback(lambda _: ended.set())
        return ended.wait(timeout_s)

    def _run(self, work: Callable[[], T]) -> None:
        try:
            result = work()
        except BaseException as error:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)
