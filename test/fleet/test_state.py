"""The journal, and the runner that needs no cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from perilous import Copy, contents, drives_in

from unim2_core.errors import Unim2Error
from unim2_core.fleet.alone import run_alone
from unim2_core.fleet.drives import Drive, list_drives
from unim2_core.fleet.state import State
from unim2_core.fleet.summary import SHIFTED, summarize, write_page
from unim2_core.fleet.transfer import Place
from unim2_core.fleet.work import Made, Task

JOB = {"job": "copy"}
RUN = """
import sys
from pathlib import Path
from perilous import Copy
from unim2_core.fleet.alone import run_alone
from unim2_core.fleet.drives import list_drives
from unim2_core.fleet.state import State
from unim2_core.fleet.transfer import Place
root = Path(sys.argv[1])
job, place = Copy(root / "marks", killed="d01", deadly=sys.argv[2]), Place(root / "out")
with State(place.folder, job.identity()) as state:
    tasks = state.left(list_drives([f"{root}/drives/*"]), place, 2)
    for outcome in run_alone(tasks, job, place, begin=state.begin):
        state.end(outcome)
"""


def setting(root: Path, count: int) -> tuple[list[Drive], Copy, Place]:
    drives_in(root / "drives", count)
    (root / "marks").mkdir()
    return list_drives([f"{root}/drives/*"]), Copy(root / "marks"), Place(root / "out")


def do_all(state: State, drives: list[Drive], job: Copy, place: Place) -> int:
    tasks = state.left(drives, place, 2)
    for outcome in run_alone(tasks, job, place, begin=state.begin):
        state.end(outcome)
    return len(tasks)


def test_a_second_call_does_what_is_left_alone(tmp_path: Path) -> None:
    drives, job, place = setting(tmp_path, 4)
    with State(place.folder, JOB) as state:
        assert do_all(state, drives[:2], job, place) == 2
    with State(place.folder, JOB) as state:
        assert do_all(state, drives, job, place) == 2
    with State(place.folder, JOB) as state:
        assert do_all(state, drives, job, place) == 0
        place.folder.joinpath("drives", "d02.out").unlink()
        again = replace(drives[0], mark="recorded again")
        left = state.left([again, *drives[1:]], place, 2)
        assert [task.drive.name for task in left] == ["d00", "d02"]


def test_a_drive_that_fails_is_tried_again_and_then_put_aside(tmp_path: Path) -> None:
    drives, job, place = setting(tmp_path, 2)
    job = replace(job, flaky="d00")
    with State(place.folder, JOB) as state:
        outcomes = list(run_alone([Task(drives[0])], job, place, retries=1))
        assert outcomes[0].status == "quarantined"
        assert outcomes[0].reason == "tried 2 times; the last time: OSError: the network is down"
        state.end(outcomes[0])
        assert not state.left(drives[:1], place, 2)
        assert state.left(drives[:1], place, 2, again=True)
    assert "drives/d00.out" not in contents(place.folder)
    assert not list(place.folder.glob(".work/*"))


def test_two_fleets_do_not_write_to_one_folder(tmp_path: Path) -> None:
    with State(tmp_path / "out", JOB):
        with pytest.raises(Unim2Error, match="another fleet writes") as caught:
            State(tmp_path / "out", JOB)
        assert f"process {os.getpid()} on " in str(caught.value)
    with pytest.raises(Unim2Error, match="belongs to another fleet"):
        State(tmp_path / "out", {"job": "another"})
    State(tmp_path / "out", JOB).__exit__()


def test_what_a_crash_cut_off_is_left_out_and_damage_is_said(tmp_path: Path) -> None:
    drives, job, place = setting(tmp_path, 2)
    with State(place.folder, JOB) as state:
        do_all(state, drives, job, place)
    journal = place.folder / "fleet.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-9])
    with State(place.folder, JOB) as state:
        assert [task.drive.name for task in state.left(drives, place, 2)] == ["d01"]
        do_all(state, drives, job, place)
    journal.write_bytes(b"{}\n" + whole)
    with pytest.raises(Unim2Error, match="belongs to another fleet"):
        State(place.folder, JOB)
    journal.write_bytes(whole.replace(b"{", b"<", 2))
    with pytest.raises(Unim2Error, match="is damaged"):
        State(place.folder, JOB)


def run_process(root: Path, deadly: str) -> int:
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(root), deadly],
        env=os.environ | {"PYTHONPATH": paths},
        check=False,
        timeout=60,
    )
    return done.returncode


def test_a_drive_that_kills_the_process_each_time_is_put_aside(tmp_path: Path) -> None:
    drives, job, place = setting(tmp_path, 4)
    ends = [run_process(tmp_path, "d02") for _ in range(5)]
    assert ends == [-9, -9, -9, -9, 0]  # once with d01, three times with d02
    with State(place.folder, JOB) as state:
        states = {entry.name: entry.status for entry in state.entries.values()}
        assert states.pop("d02") == "quarantined" and set(states.values()) == {"done"}
        assert not state.left(drives, place, 2)
    assert job.begun("d01") == 2 and job.begun("d02") == 3
    assert contents(place.folder / "drives").keys() == {"d00.out", "d01.out", "d03.out"}


def test_no_room_stops_the_fleet_and_blames_no_drive(tmp_path: Path) -> None:
    drives, job, place = setting(tmp_path, 2)

    class Full(Copy):
        def handle(self, drive: Path, name: str, folder: Path) -> Made:
            raise OSError(28, "No space left on device") from None

    class FullAndSaid(Copy):
        def handle(self, drive: Path, name: str, folder: Path) -> Made:
            try:
                Full.handle(self, drive, name, folder)
            except OSError as error:
                raise Unim2Error("cannot write", expected="x", found="y") from error
            raise AssertionError

    for kind in (Full, FullAndSaid):
        with pytest.raises(Unim2Error, match="the fleet stopped at d00"):
            list(run_alone([Task(drives[0])], kind(job.folder), place))


def test_the_page_shows_texts_as_they_are_and_fetches_nothing(tmp_path: Path) -> None:
    from unim2_core.learning import domains

    assert SHIFTED == domains.SHIFTED
    drives, job, place = setting(tmp_path, 2)
    odd = replace(drives[0], name="<script>alert(1)</script>")
    with State(place.folder, JOB) as state:
        for outcome in run_alone([Task(drive) for drive in (odd, drives[1])], job, place):
            state.end(outcome)
        figures = summarize(
            *(state, [odd, drives[1]], JOB),
            seconds=2.0,
            workers=1,
            now=[drive.address for drive in drives],
        )
    assert figures["totals"]["done"] == 1 and figures["totals"]["quarantined"] == 1
    assert figures["this_call"]["frames_per_s"] == 0.5
    page = write_page(place.folder, figures).read_text()
    assert "<script" not in page and "&lt;script&gt;" in page
    assert "http" not in page.replace("http-equiv", "")
