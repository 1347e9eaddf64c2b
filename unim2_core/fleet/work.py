"""What is done with one drive, whoever does it: this process, or a worker far away."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from unim2_core.errors import Unim2Error, cause
from unim2_core.fleet.drives import Drive
from unim2_core.fleet.transfer import Place, fetched

RETRIES = 2
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
"""What no other drive would get around either: the fleet stops."""

Status = Literal["done", "quarantined", "failed", "stopped"]


@dataclass(frozen=True)
class Made:
    """What a job made of a drive.

    Attributes:
        outputs: files and folders in the work folder that are to be delivered.
        facts: what is to be known of it; JSON types only.
        damaged: why the outputs are not whole, else None.
    """

    outputs: Sequence[Path]
    facts: Mapping[str, Any] = field(default_factory=dict)
    damaged: str | None = None


Handler = Callable[[Path, str, Path], Made]
"""Drive, name of its outputs, folder to make them in -> what was made."""


class Job(Protocol):
    """What a fleet does with each drive. Workers get a pickled copy."""

    def identity(self) -> Mapping[str, Any]:
        """Everything that outputs depend on besides the drive; JSON types only."""
        ...

    def open(self, threads: int) -> Handler:
        """Load what all drives share, such as an engine.

        Args:
            threads: cores to use; 0 means all.
        """
        ...


@dataclass(frozen=True)
class Task:
    """An attempt at a drive.

    Attributes:
        drive: which one.
        attempt: how often it was tried before.
        excused: how many of these ended for reasons that have nothing to do with it.
    """

    drive: Drive
    attempt: int = 0
    excused: int = 0


@dataclass(frozen=True)
class Outcome:
    """How an attempt at a drive ended.

    Attributes:
        task: the attempt.
        status: ``done``; ``quarantined``: it would end so again; ``failed``: it may be tried
            again; ``stopped``: no drive would fare better.
        reason: why it is not done, for people.
        facts: of the job.
        outputs: where they are: relative to the fleet's folder, or addresses.
        size: bytes of them.
        seconds: that it took, fetching and delivering included.
    """

    task: Task
    status: Status
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    size: int = 0
    seconds: float = 0.0


class Worker:
    """Does a job with one drive after the other, on an engine that it loads once."""

    def __init__(self, job: Job, place: Place, threads: int = 0) -> None:
        """Load what the drives share.

        Raises:
            Unim2Error: the job cannot be done here at all.
        """
        self._handle, self._place = job.open(threads), place

    def run(self, task: Task) -> Outcome:
        """Do it. What goes wrong is in the outcome; nothing is raised but an interruption."""
        began = time.perf_counter()

        def ended(status: Status, reason: str = "", **more: Any) -> Outcome:
            seconds = round(time.perf_counter() - began, 3)
            return Outcome(task, status, reason, seconds=seconds, **more)

        try:
            with fetched(task.drive) as path, self._place.work(task.drive, task.attempt) as folder:
                try:
                    made = self._handle(path, task.drive.name, folder)
                except Unim2Error as error:
                    return ended("stopped" if _no_room(error) else "quarantined", str(error))
                except Exception as error:  # only an interruption leaves something to resume from
                    return ended(*_failure(error))
                good = made.damaged is None
                places = [self._place.deliver(output, good=good) for output in made.outputs]
            return ended(
                "done" if good else "quarantined",
                made.damaged or "",
                facts=made.facts,
                outputs=[place for place, _ in places],
                size=sum(size for _, size in places),
            )
        except Exception as error:  # it could not be fetched or delivered, this time
            return ended(*_failure(error))


def _failure(error: Exception) -> tuple[Status, str]:
    """What to do about an error that may be gone the next time, and what it says."""
    said = str(error)
    if not isinstance(error, Unim2Error):
        said = f"{type(error).__name__}: {cause(error)}"
    return "stopped" if _no_room(error) else "failed", said


def _no_room(error: BaseException | None) -> bool:
    """Whether a disk that is full, or may not be written, is behind an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in FULL:
            return True
        error = error.__cause__
    return False


def given_up(outcome: Outcome) -> Outcome:
    """The outcome of a drive that failed as often as it may."""
    tries = outcome.task.attempt + 1 - outcome.task.excused
    reason = f"tried {tries} times; the last time: {outcome.reason}"
    return Outcome(outcome.task, "quarantined", reason, seconds=outcome.seconds)


def stopped(outcome: Outcome) -> Unim2Error:
    """The error of a fleet that cannot go on."""
    return Unim2Error(
        f"the fleet stopped at {outcome.task.drive.name}",
        expected="a place for outputs that has room and may be written to",
        found=outcome.reason,
        remedy="make room or mend its permissions; the same command does what is left",
    )
