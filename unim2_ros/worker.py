"""One thread that works on the newest item; what it cannot keep up with is counted, not queued."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestWorker(Generic[T]):
    """Runs a function in a thread of its own, always on the newest item.

    Attributes:
        superseded: items that a newer one replaced before their turn came.
        failed: items on which the function raised.
        finished: items that were worked on without an error.
    """

    def __init__(self, work: Callable[[T], None], on_error: Callable[[Exception], None]) -> None:
        self.superseded = 0
        self.failed = 0
        self.finished = 0
        self._work = work
        self._on_error = on_error
        self._waiting: T | None = None
        self._running = True
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="segment-worker", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand an item over; returns at once."""
        with self._changed:
            if self._waiting is not None:
                self.superseded += 1
            self._waiting = item
            self._changed.notify()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Let the item at hand finish and end the thread; what waits is dropped and counted."""
        with self._changed:
            self._running = False
            if self._waiting is not None:
                self.superseded += 1
                self._waiting = None
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._running and self._waiting is None:
                    self._changed.wait()
                if self._waiting is None:
                    return
                item, self._waiting = self._waiting, None
            try:
                self._work(item)
            except Exception as error:
                self.failed += 1
                self._on_error(error)
            else:
                self.finished += 1
