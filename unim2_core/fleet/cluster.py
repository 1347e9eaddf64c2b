"""A fleet on Ray: workers that hold the engine, one drive in flight for each.

A worker that dies costs the attempt at its drive, a machine that is lost does not: its drives are
done elsewhere. Only names go through Ray's object store, so it cannot fill up.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from unim2_core.errors import Unim2Error, cause
from unim2_core.fleet.transfer import Place
from unim2_core.fleet.work import RETRIES, Job, Outcome, Task, Worker, given_up, stopped

CONNECT_S = 10.0
"""For a cluster's address to answer."""
ANSWER_S = 2.0
"""For a machine of the cluster to answer."""
LOOK_S = 1.0
"""Between two looks at what the workers do."""
PATIENCE_S = 30.0
"""Without any worker, before it is said that there is no room."""
EXCUSED = 5
"""Machines that may be lost with a drive before it comes under suspicion."""
MEGABYTE = 1 << 20
REFUSED = "InvalidAuthToken"
"""Stands in what Ray says where the cluster asks for a token."""
STORE_BYTES = 80 * MEGABYTE
"""Object store of a local cluster: the least that Ray takes, as only names go through it."""

Warn = Callable[[str], object]


@dataclass(frozen=True)
class Cluster:
    """A cluster that this process is connected to.

    Attributes:
        cores: of all its machines now.
        gpus: of all its machines now.
        dashboard: address of its page, or None.
    """

    cores: int
    gpus: int
    dashboard: str | None


@dataclass(frozen=True)
class Size:
    """How a fleet spreads over a cluster.

    Attributes:
        workers: at once, at most; None: as many as fit into the cluster.
        cores: of each worker.
        gpus: of each worker; a part of one is allowed.
        retries: how often a drive that failed is tried again.
    """

    workers: int | None = None
    cores: int = 1
    gpus: float = 0.0
    retries: int = RETRIES

    def fits(self, cluster: Cluster) -> int:
        """Workers that fit into a cluster, one at least."""
        if self.workers is not None:
            return self.workers
        fit = cluster.cores // self.cores
        if self.gpus:
            fit = min(fit, int(cluster.gpus / self.gpus))
        return max(1, fit)


def is_installed() -> bool:
    """Whether Ray is there."""
    return find_spec("ray") is not None


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Connect to a cluster, or begin one on this machine that ends with the block.

    Args:
        address: ``local``, ``auto``: the one that runs on this machine or that ``RAY_ADDRESS``
            names, or ``HOST:PORT`` or ``ray://HOST:PORT``.

    Raises:
        Unim2Error: Ray is not installed, or nothing answers there.
    """
    if not is_installed():
        raise Unim2Error(
            "many workers need a library that is not installed",
            expected="ray",
            found="no module ray",
            remedy="pip install 'unim2[fleet]', or give --address none: one drive after the other",
        )
    import ray

    ours = not ray.is_initialized()
    page = None
    if ours:
        page = _connect(address)
    try:
        found = ray.cluster_resources()
        yield Cluster(int(found.get("CPU", 1)), int(found.get("GPU", 0)), page)
    finally:
        if ours:
            ray.shutdown()


def _connect(address: str) -> str | None:
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == "local":
            context = ray.init(
                "local", include_dashboard=False, object_store_memory=STORE_BYTES, **quiet
            )
        else:
            _check_answers(address)
            context = ray.init(address, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        mode = os.environ.get("RAY_AUTH_MODE", "not set")
        if any(REFUSED in str(one) for one in (error, error.__cause__, error.__context__)):
            raise Unim2Error(
                f"the cluster {address} refuses this process",
                expected="the cluster's token, in ~/.ray/auth_token or RAY_AUTH_TOKEN",
                found=f"RAY_AUTH_MODE: {mode}, or another token",
                remedy="copy the token of the head's machine here, and set RAY_AUTH_MODE=token",
            ) from error
        raise Unim2Error(
            f"cannot connect to the cluster {address}",
            expected="a Ray cluster that answers",
            found=cause(error),
            remedy="start one with: ray start --head; or give --address local, or none",
        ) from error
    page = getattr(context, "dashboard_url", None)
    return f"http://{page}" if page else None


def _check_answers(address: str) -> None:
    """Knock first: Ray waits for minutes for a machine that is not there."""
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS", "auto")
    if address in ("auto", "local"):
        return
    parts = urlsplit(address if "://" in address else f"ray://{address}")
    if not parts.hostname or not parts.port:
        raise ValueError(f"{address!r} is not HOST:PORT")
    socket.create_connection((parts.hostname, parts.port), CONNECT_S).close()


@dataclass(eq=False)
class _Hand:
    """A worker: its handle, where it runs once that is known, and what it does."""

    actor: Any
    node: str | None = None
    task: Task | None = None


def run_on_cluster(
    tasks: Iterable[Task],
    job: Job,
    place: Place,
    cluster: Cluster,
    size: Size,
    warn: Warn = print,
) -> Iterator[Outcome]:
    """Do a job with each drive; yields one outcome, done or quarantined, as they come.

    Args:
        tasks: the drives.
        job: what to do; every worker gets a copy.
        place: where outputs go, as every worker sees it.
        cluster: from ``connected``.
        size: how many workers, and how large.
        warn: told of workers and machines that are lost.

    Raises:
        Unim2Error: the job cannot be done there at all, or no drive could go on.
    """
    fleet = _Fleet(deque(tasks), job, place, size, warn)
    try:
        fleet.grow(size.fits(cluster))
        while fleet.busy:
            yield from fleet.step()
    finally:
        fleet.dismiss()


class _Fleet:
    """The workers of a run, and the drives that wait for one."""

    def __init__(
        self, waiting: deque[Task], job: Job, place: Place, size: Size, warn: Warn
    ) -> None:
        import ray

        self._waiting, self._size, self._warn, self._place = waiting, size, warn, place
        self._hands: dict[Any, _Hand] = {}  # what a worker is to answer next -> the worker
        self._job = ray.put(job)
        self._kind = ray.remote(num_cpus=size.cores, num_gpus=size.gpus, max_restarts=0)(_Remote)
        self._stillborn = 0
        self._idle_since: float | None = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether anything is left to be done."""
        return bool(self._waiting) or any(hand.task for hand in self._hands.values())

    def grow(self, count: int) -> None:
        """Ask for more workers; they come as there is room for them."""
        for _ in range(min(count, len(self._waiting))):
            actor = self._kind.remote(self._job, self._place, self._size.cores)
            # A drive is given to a worker that is there, not to one that may never come.
            self._hands[actor.prepare.remote()] = _Hand(actor)

    def step(self) -> Iterator[Outcome]:
        """Wait a little for an answer, and act on it."""
        import ray

        answers, _ = ray.wait(list(self._hands), num_returns=1, timeout=LOOK_S)
        self._say_where_there_is_no_room()
        for answer in answers:
            hand = self._hands.pop(answer)
            try:
                said = ray.get(answer)
            except ray.exceptions.RayTaskError as error:  # its engine could not be loaded
                raise self._useless(error) from error
            except ray.exceptions.RayError as error:
                yield from self._lost(hand, error)
                continue
            if hand.task is None:
                hand.node = said
                self._stillborn = 0
            else:
                yield from self._judged(said)
                hand.task = None
            self._employ(hand)

    def dismiss(self) -> None:
        """End all workers."""
        import ray

        for hand in self._hands.values():
            ray.kill(hand.actor)
        self._hands.clear()

    def _say_where_there_is_no_room(self) -> None:
        if any(hand.node for hand in self._hands.values()):
            self._idle_since = time.monotonic()
        elif self._idle_since and time.monotonic() - self._idle_since > PATIENCE_S:
            self._idle_since = None  # once
            need = f"{self._size.cores} cores" + (" and a GPU" if self._size.gpus else "")
            self._warn(f"the cluster has no room for a worker of {need} now: waiting for it")

    def _employ(self, hand: _Hand) -> None:
        """Give a worker that is free the next drive, or let it go."""
        import ray

        if self._waiting:
            hand.task = self._waiting.popleft()
            self._hands[hand.actor.run.remote(hand.task)] = hand
        else:
            ray.kill(hand.actor)

    def _judged(self, outcome: Outcome) -> Iterator[Outcome]:
        if outcome.status == "stopped":
            raise stopped(outcome)
        if outcome.status != "failed":
            yield outcome
        else:
            yield from self._again(outcome, 0)

    def _lost(self, hand: _Hand, error: Exception) -> Iterator[Outcome]:
        """A worker is gone, with or without its machine."""
        machine = hand.node is not None and not _is_there(hand.node)
        what = "a machine of the cluster was lost" if machine else "a worker died"
        if hand.task is None:
            self._stillborn += 1
            if getattr(error, "actor_init_failed", False):  # such as a machine without unim2
                raise self._useless(error)
            if self._stillborn > self._size.retries and not machine:
                raise self._useless(error)
        else:
            task = hand.task
            self._warn(f"{what} in the middle of {task.drive.name}")
            yield from self._again(Outcome(task, "failed", f"{what}: {_first(error)}"), machine)
        self.grow(1)

    def _again(self, outcome: Outcome, excused: int) -> Iterator[Outcome]:
        """Let a drive be tried again, unless it failed as often as it may."""
        task = outcome.task
        again = Task(task.drive, task.attempt + 1, min(task.excused + excused, EXCUSED))
        if again.attempt - again.excused > self._size.retries:
            yield given_up(outcome)
        else:
            self._waiting.append(again)

    def _useless(self, error: Exception) -> Unim2Error:
        inner = getattr(error, "cause", None)
        if isinstance(inner, Unim2Error):
            return inner
        return Unim2Error(
            "the workers cannot begin",
            expected="machines that have unim2, the model, and room for it",
            found=_first(error),
            remedy="try the same command with --address none, and install what is missing there",
        )


class _Remote:
    """What runs in a worker's process."""

    def __init__(self, job: Job, place: Place, threads: int) -> None:
        self._given = (job, place, threads)

    def prepare(self) -> str:
        """Load the engine; returns the machine that this runs on.

        Not done when the process begins: what goes wrong there reaches nobody as an exception.
        """
        import ray

        self._worker = Worker(*self._given)
        return str(ray.get_runtime_context().get_node_id())

    def run(self, task: Task) -> Outcome:
        """See ``Worker.run``."""
        return self._worker.run(task)


def _is_there(machine: str) -> bool:
    """Whether a machine is part of the cluster still, and answers.

    The cluster takes many seconds to notice that one is gone; its workers' ends are told at once.
    """
    import ray

    for node in ray.nodes():
        if node["NodeID"] == machine and node["Alive"]:
            try:
                address = (node["NodeManagerAddress"], node["NodeManagerPort"])
                socket.create_connection(address, ANSWER_S).close()
                return True
            except OSError:
                return False
    return False


def _first(error: Exception) -> str:
    """What Ray says, without its traces: the last of its lines is the one that tells."""
    inner = getattr(error, "cause", None)
    if isinstance(inner, Exception):
        return f"{type(inner).__name__}: {cause(inner)}"
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
