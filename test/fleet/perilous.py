"""A job that does to its worker what drives and machines do; workers import it, too."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unim2_core.fleet.work import Handler, Made


@dataclass(frozen=True)
class Copy:
    """Copies a drive's first file, upside down.

    Attributes:
        folder: where it is marked what was begun.
        killed: name of a drive whose worker is killed once, half-way.
        deadly: name of a drive that kills its worker each time.
        flaky: name of a drive that fails twice, and then does not.
        seconds: that a drive takes.
    """

    folder: Path
    killed: str = ""
    deadly: str = ""
    flaky: str = ""
    seconds: float = 0.0

    def identity(self) -> Mapping[str, Any]:
        return {"job": "copy"}

    def open(self, threads: int) -> Handler:
        return self.handle

    def handle(self, drive: Path, name: str, folder: Path) -> Made:
        tries = self.begun(name)
        self.folder.joinpath(f"{name}.{tries}").write_text(str(os.getpid()))
        out = folder / f"{name}.out"
        with out.open("wb") as file:
            file.write(b"half of it")
            file.flush()
            time.sleep(self.seconds)
            if name == self.deadly or (name == self.killed and not tries):
                os.kill(os.getpid(), signal.SIGKILL)
            if name == self.flaky and tries < 2:
                raise OSError("the network is down")
            file.seek(0)
            file.write(drive.read_bytes()[::-1])
        return Made([out], {"frames": 1})

    def begun(self, name: str) -> int:
        """How often a drive was begun."""
        return len(list(self.folder.glob(f"{name}.*")))


def drives_in(folder: Path, count: int) -> Path:
    """A folder of files that pass for bags until they are opened."""
    folder.mkdir()
    for number in range(count):
        (folder / f"d{number:02}.mcap").write_bytes(f"drive {number} ".encode() * 9)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of all files below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
