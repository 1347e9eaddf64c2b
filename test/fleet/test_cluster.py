"""Real Ray processes: several machines' worth of them on this one."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ray = pytest.importorskip("ray", reason="not installed: pip install 'unim2[fleet]'")

from perilous import Copy, contents, drives_in
from ray.cluster_utils import Cluster as Machines
from scenes import write_bag

from unim2_core.cli.fleet_jobs import On, SegmentJob
from unim2_core.errors import Unim2Error
from unim2_core.fleet.alone import run_alone
from unim2_core.fleet.cluster import Cluster, Size, connected, run_on_cluster
from unim2_core.fleet.drives import list_drives
from unim2_core.fleet.state import State
from unim2_core.fleet.transfer import Place
from unim2_core.fleet.work import Task
from unim2_core.sensing.rig import Rig

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """A head that does no work, and what is added to it; connected to this process."""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    with pytest.MonkeyPatch.context() as patch:  # what workers import
        patch.setenv("PYTHONPATH", paths)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        made = Machines(initialize_head=True, head_node_args={"num_cpus": 0})
        ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
        yield made
        ray.shutdown()
        made.shutdown()


def test_a_lost_machine_a_killed_worker_and_bad_drives(machines: Machines, tmp_path: Path) -> None:
    drives = drives_in(tmp_path / "drives", 12)
    marks = tmp_path / "marks"
    marks.mkdir()
    job = Copy(marks, killed="d01", deadly="d03", flaky="d05", seconds=0.1)
    lost, other = machines.add_node(num_cpus=1), machines.add_node(num_cpus=1)
    place, told = Place(tmp_path / "out"), list[str]()
    with State(place.folder, job.identity()) as state, connected("auto") as cluster:
        tasks = state.left(list_drives([f"{drives}/*"]), place, 2)
        assert len(tasks) == 12 and cluster.cores == 2
        for count, outcome in enumerate(
            run_on_cluster(tasks, job, place, cluster, Size(), told.append)
        ):
            state.end(outcome)
            if count == 4:
                machines.remove_node(lost, allow_graceful=False)
    machines.remove_node(other)
    states = {entry.name: entry.status for entry in state.entries.values()}
    assert states.pop("d03") == "quarantined" and set(states.values()) == {"done"}
    (bad,) = [entry for entry in state.entries.values() if entry.name == "d03"]
    assert bad.reason.startswith("tried 3 times; the last time: a worker died: ")
    assert job.begun("d03") >= 3 and job.begun("d05") >= 3 and job.begun("d01") >= 2
    assert any("a worker died in the middle of d01" in text for text in told)

    clean = tmp_path / "clean"
    clean.mkdir()
    alone = Place(tmp_path / "alone")
    tasks = [task for task in tasks if task.drive.name != "d03"]
    assert all(one.status == "done" for one in run_alone(tasks, Copy(clean), alone))
    assert contents(place.folder / "drives") == contents(alone.folder / "drives")
    assert not contents(place.folder / ".work").keys() & {"d01.0", "d05.0"}
    with State(place.folder, job.identity()) as state:
        assert not state.left(list_drives([f"{drives}/*"]), place, 2)


def test_a_lost_machine_is_not_held_against_its_drive(machines: Machines, tmp_path: Path) -> None:
    drives, marks = drives_in(tmp_path / "drives", 1), tmp_path / "marks"
    marks.mkdir()
    job, told = Copy(marks, seconds=3.0), list[str]()
    nodes = [machines.add_node(num_cpus=1)]

    def lose() -> None:
        while not job.begun("d00"):
            time.sleep(0.05)
        machines.remove_node(nodes[0], allow_graceful=False)

    def replaced(text: str) -> None:
        told.append(text)
        if len(nodes) == 1:
            nodes.append(machines.add_node(num_cpus=1))

    losing = threading.Thread(target=lose)
    losing.start()
    tasks = [Task(drive) for drive in list_drives([f"{drives}/*"])]
    place, once = Place(tmp_path / "out"), Size(1, retries=0)
    (found,) = run_on_cluster(tasks, job, place, Cluster(1, 0, None), once, replaced)
    losing.join()
    machines.remove_node(nodes[1])
    assert found.status == "done" and found.task.excused == 1
    assert told[0] == "a machine of the cluster was lost in the middle of d00"
    assert all("has no room" in text for text in told[1:])  # a machine may take its time to come


def test_classes_are_the_same_to_the_byte(
    machines: Machines, model_path: Path, tmp_path: Path
) -> None:
    for number in range(4):
        write_bag(tmp_path / "drives" / f"d{number}", 3, first=10 * number)
    (tmp_path / "drives" / "bad.mcap").write_bytes(b"not a bag")
    tasks = [Task(drive) for drive in list_drives([f"{tmp_path}/drives/*"])]
    job = SegmentJob(On(model_path), Rig.default())
    here, there = Place(tmp_path / "here"), Place(tmp_path / "there")
    node = machines.add_node(num_cpus=2)
    first = {one.task.drive.name: one.status for one in run_alone(tasks, job, here)}
    cluster = Cluster(2, 0, None)
    second = {
        one.task.drive.name: one.status
        for one in run_on_cluster(tasks, job, there, cluster, Size())
    }
    machines.remove_node(node)
    assert first == second
    assert [name for name, status in first.items() if status == "quarantined"] == ["bad"]
    found = contents(here.folder / "drives")
    assert len(found) == 4 and found == contents(there.folder / "drives")


def test_a_job_that_cannot_begin_says_why(machines: Machines, tmp_path: Path) -> None:
    drives = drives_in(tmp_path / "drives", 2)
    tasks = [Task(drive) for drive in list_drives([f"{drives}/*"])]
    node = machines.add_node(num_cpus=1)
    job = SegmentJob(On(tmp_path / "none.unim2"), Rig.default())
    with pytest.raises(Unim2Error, match=r"none\.unim2"):
        list(run_on_cluster(tasks, job, Place(tmp_path / "out"), Cluster(1, 0, None), Size()))
    machines.remove_node(node)


def test_no_cluster_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    began = time.monotonic()
    with (
        pytest.raises(Unim2Error, match="cannot connect to the cluster"),
        connected(f"127.0.0.1:{port}"),
    ):
        pass
    assert time.monotonic() - began < 5


def test_a_cluster_that_wants_its_token_is_told_from_one_that_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        inner = RuntimeError("... RPC error: InvalidAuthToken: Authentication token is missing")
        raise ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379") from inner

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(Unim2Error, match="refuses this process") as error, connected("auto"):
        pass
    assert "RAY_AUTH_MODE=token" in str(error.value)
