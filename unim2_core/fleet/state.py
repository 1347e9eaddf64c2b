"""What a fleet has done so far: a line for each thing that happened, in a folder of its own.

A line is whole once its end is on the disk; what a crash cut off is left out at the next start.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from unim2_core.errors import Unim2Error
from unim2_core.files import cannot_write
from unim2_core.fleet.drives import Drive
from unim2_core.fleet.transfer import Place
from unim2_core.fleet.work import Outcome, Task

JOURNAL, LOCK = "fleet.jsonl", "fleet.lock"


@dataclass
class Entry:
    """What is known of a drive.

    Attributes:
        address: of the drive.
        name: of its outputs.
        mark: of the drive as it was then.
        status: ``done``, ``quarantined``, or ``open``.
        reason: why it is not done.
        facts: of the job.
        outputs: where they are.
        size: bytes of them.
        seconds: that it took.
        died: how often the process that had begun with it ended without a word.
    """

    address: str
    name: str
    mark: str = ""
    status: str = "open"
    reason: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    outputs: Sequence[str] = ()
    size: int = 0
    seconds: float = 0.0
    died: int = 0


class State:
    """The journal of a fleet; one process at a time may have it open.

    Use as a context manager.

    Attributes:
        entries: address -> what is known of the drive.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Open a fleet's folder, or begin one.

        Args:
            folder: of the fleet.
            identity: of the job; outputs of two jobs in one folder could not be told apart.

        Raises:
            Unim2Error: another fleet writes there, it belongs to another job, or it cannot be
                written to.
        """
        self.entries: dict[str, Entry] = {}
        self._folder, self._path = folder, folder / JOURNAL
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._locked()
            try:
                self._read(json.loads(json.dumps(dict(identity))))
            except BaseException:
                self._lock.close()
                raise
        except OSError as error:
            raise cannot_write(folder, error) from error

    def __enter__(self) -> State:
        """Nothing more to do: it is open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let others in."""
        self._file.close()
        self._lock.close()

    @property
    def names(self) -> dict[str, str]:
        """Address -> the name that it was given."""
        return {entry.address: entry.name for entry in self.entries.values()}

    def left(
        self, drives: Iterable[Drive], place: Place, retries: int, *, again: bool = False
    ) -> list[Task]:
        """The drives that something is to be done with.

        A drive with which this process died as often as it may is quarantined here: nobody else
        could have said so.

        Args:
            drives: all of them.
            place: where outputs are looked for.
            retries: how often a drive may be tried again.
            again: try those again that are quarantined.
        """
        tasks = []
        for drive in drives:
            entry = self.entries.get(drive.address)
            same = entry is not None and entry.mark == drive.mark
            if entry is None or not same:
                tasks.append(Task(drive))
            elif entry.status == "done":
                if not all(place.is_there(output) for output in entry.outputs):
                    tasks.append(Task(drive))
            elif entry.status == "quarantined":
                if again:
                    tasks.append(Task(drive))
            elif entry.died > retries:
                reason = f"the process died with it {entry.died} times, without a word"
                self.end(Outcome(Task(drive, entry.died), "quarantined", reason))
            else:
                tasks.append(Task(drive))
        return tasks

    def begin(self, task: Task) -> None:
        """This very process begins with a drive: if it dies, the drive is under suspicion."""
        self._write("begun", task.drive)

    def give_back(self, drive: Drive) -> None:
        """It was stopped by a person: nobody is to blame."""
        self._write("given back", drive)

    def end(self, outcome: Outcome) -> None:
        """A drive is done or quarantined."""
        self._write(
            outcome.status,
            outcome.task.drive,
            reason=outcome.reason,
            facts=dict(outcome.facts),
            outputs=list(outcome.outputs),
            size=outcome.size,
            seconds=outcome.seconds,
        )

    def _locked(self) -> IO[bytes]:
        file = (self._folder / LOCK).open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            other = file.read().decode(errors="replace").strip()
            file.close()
            raise Unim2Error(
                f"another fleet writes to {self._folder}",
                expected="a folder that no other process uses",
                found=f"a lock of {other or 'an unknown process'}",
                remedy="wait for it or stop it, or choose another --out",
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        file.flush()
        return file

    def _read(self, identity: dict[str, Any]) -> None:
        content = self._path.read_bytes() if self._path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        lines = [self._parsed(line) for line in whole.splitlines()]
        if lines and lines[0] != {"fleet": identity}:
            raise Unim2Error(
                f"{self._folder} belongs to another fleet",
                expected=f"{_differing(identity, lines[0].get('fleet', {}))} as now",
                found=f"{_differing(lines[0].get('fleet', {}), identity)} in {JOURNAL}",
                remedy="give the same model, rig and settings, or choose another --out",
            )
        for line in lines[1:]:
            self._take_in(line)
        self._file = self._path.open("ab")
        if len(whole) != len(content):
            self._file.truncate(len(whole))
        if not lines:
            self._append({"fleet": identity})

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            found = json.loads(line)
            if isinstance(found, dict):
                return found
        except ValueError:
            pass
        raise Unim2Error(
            f"{self._path} is damaged",
            expected="a JSON object on each line",
            found=line[:60].decode(errors="replace"),
            remedy="restore it, or remove it and begin again: outputs are then made anew",
        )

    def _take_in(self, line: Mapping[str, Any]) -> None:
        event, address = line["event"], line["address"]
        entry = self.entries.get(address)
        if entry is None or entry.mark != line["mark"]:
            entry = self.entries[address] = Entry(address, line["name"], line["mark"])
        if event == "begun":
            entry.status, entry.died = "open", entry.died + 1
        elif event == "given back":
            entry.died = max(0, entry.died - 1)
        else:
            entry.status, entry.died, entry.reason = event, 0, line["reason"]
            entry.facts, entry.outputs = line["facts"], line["outputs"]
            entry.size, entry.seconds = line["size"], line["seconds"]

    def _write(self, event: str, drive: Drive, **more: Any) -> None:
        named = {"event": event, "address": drive.address, "name": drive.name, "mark": drive.mark}
        line = named | more
        self._append(line)
        self._take_in(line)

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line, sort_keys=True).encode() + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise cannot_write(self._path, error) from error


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The settings of one that the other has otherwise, shortened."""
    parts = [f"{key} {str(one.get(key))[:60]}" for key in one if one.get(key) != other.get(key)]
    return ", ".join(parts) or "nothing else"
