"""Rendering in other processes: numpy's many small steps would make threads wait for each other.

The processes are started here and not by ``multiprocessing``, whose ``spawn`` runs the caller's
script a second time unless it is written for that, and whose ``fork`` copies locks that OpenCV's
and torch's threads hold.
"""

from __future__ import annotations

import pickle
import queue
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import IO

from unim2_core.data.world.config import DriveConfig
from unim2_core.data.world.rendering import Rendering, render
from unim2_core.errors import Unim2Error

Task = tuple[DriveConfig, float, str]
"""Arguments of :func:`render`."""


class RenderPool:
    """Renders images in the order in which they are asked for, in several processes.

    Use as a context manager.

    Args:
        processes: how many; with 1 everything is rendered in this process.
    """

    def __init__(self, processes: int) -> None:
        self._size = processes
        self._threads = ThreadPoolExecutor(processes)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
        if processes > 1:
            command = [sys.executable, "-m", __name__]
            for _ in range(processes):
                process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
                self._processes.append(process)
                self._idle.put(process)

    def __enter__(self) -> RenderPool:
        """Nothing more to do: the processes are running."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the processes; what is being rendered is thrown away."""
        if error is not None:
            for process in self._processes:
                process.kill()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.communicate()  # closes the pipes, which ends it, and waits

    def render(self, tasks: Iterable[Task]) -> Iterator[Rendering]:
        """Render ``tasks``, a few ahead of the one that is asked for.

        Raises:
            Unim2Error: a process ended or failed; what it said is on stderr.
        """
        pending: deque[Future[Rendering]] = deque()
        for task in tasks:
            pending.append(self._threads.submit(self._render, task))
            if len(pending) > 2 * self._size:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()

    def _render(self, task: Task) -> Rendering:
        if not self._processes:
            return render(*task)
        process = self._idle.get()
        try:
            return _ask(process, task)
        finally:
            self._idle.put(process)


def _ask(process: subprocess.Popen[bytes], task: Task) -> Rendering:
    assert process.stdin is not None and process.stdout is not None
    try:
        pickle.dump(task, process.stdin, protocol=5)
        process.stdin.flush()
        answer = pickle.load(process.stdout)
    except (OSError, EOFError, pickle.UnpicklingError) as error:
        raise Unim2Error(
            "a process that renders ended before its time",
            expected="an image from it",
            found=f"exit status {process.wait()}",
            remedy="look above for what it said; if the memory was full, use fewer workers",
        ) from error
    return Rendering(*answer)


def serve(tasks: IO[bytes], answers: IO[bytes]) -> None:
    """Answer tasks until there are no more."""
    while True:
        try:
            task = pickle.load(tasks)
        except EOFError:
            return
        pickle.dump(tuple(render(*task)), answers, protocol=5)
        answers.flush()


if __name__ == "__main__":
    # Ctrl-C reaches the whole terminal; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # nothing but answers may go there
    serve(sys.stdin.buffer, answers)
