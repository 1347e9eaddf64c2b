"""Read the next batch while a step is taken: a network answers in its own time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from unim2_core.learning.objective import Batch


class Ahead:
    """Gives the batches that another gives, the next one read beforehand.

    One batch more is in memory. What goes wrong with a batch is raised when it is asked for.

    Args:
        batches: gives the batch of a step, the same whenever it is asked.
        steps: how many there are; nothing is read beyond the last.
    """

    def __init__(self, batches: Callable[[int], Batch], steps: int) -> None:
        self._batches, self._steps = batches, steps
        self._pool = ThreadPoolExecutor(1, "batches")
        self._next: tuple[int, Future[Batch]] | None = None

    def __call__(self, step: int) -> Batch:
        """The batch of a step, counted from 0."""
        coming, self._next = self._next, None
        if coming is None or coming[0] != step:
            coming = step, self._pool.submit(self._batches, step)
        batch = coming[1].result()
        if step + 1 < self._steps:
            self._next = step + 1, self._pool.submit(self._batches, step + 1)
        return batch
