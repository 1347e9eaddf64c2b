"""A fleet in this process: one drive after the other, for a laptop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from unim2_core.fleet.transfer import Place
from unim2_core.fleet.work import RETRIES, Job, Outcome, Task, Worker, given_up, stopped

Begin = Callable[[Task], object]


def run_alone(
    tasks: Iterable[Task],
    job: Job,
    place: Place,
    *,
    threads: int = 0,
    retries: int = RETRIES,
    begin: Begin = lambda task: None,
) -> Iterator[Outcome]:
    """Do a job with each drive; yields one outcome, done or quarantined, for each.

    Args:
        tasks: the drives.
        job: what to do.
        place: where outputs go.
        threads: cores to use; 0 means all.
        retries: how often a drive that failed is tried again.
        begin: called before each attempt.

    Raises:
        Unim2Error: the job cannot be done here at all, or no drive could go on.
    """
    worker = Worker(job, place, threads)
    for first in tasks:
        for attempt in range(first.attempt, max(retries, first.attempt) + 1):
            task = Task(first.drive, attempt)
            begin(task)
            outcome = worker.run(task)
            if outcome.status == "stopped":
                raise stopped(outcome)
            if outcome.status != "failed":
                break
        yield given_up(outcome) if outcome.status == "failed" else outcome
