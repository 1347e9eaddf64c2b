"""Drives come to a worker, outputs leave it: whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from unim2_core.data.addresses import answered, file_system, is_remote, unreadable
from unim2_core.errors import Unim2Error
from unim2_core.files import cannot_write
from unim2_core.fleet.drives import Drive

OUTPUTS, QUARANTINED, WORK = "drives", "quarantined", ".work"
"""Folders of a fleet: what is done, what could be read of the others, what is in the making."""


@contextmanager
def fetched(drive: Drive) -> Iterator[Path]:
    """A drive as a path: its own, or that of a copy on this machine's disk, for a while.

    Raises:
        Unim2Error: it cannot be read, or this machine has no room for it.
    """
    if not is_remote(drive.address):
        yield Path(drive.address)
        return
    with tempfile.TemporaryDirectory(prefix="unim2-fleet-") as folder:
        path = Path(folder, PurePosixPath(drive.address).name)
        system, source = file_system(drive.address)
        try:
            if system.isdir(source):
                system.get(f"{source.rstrip('/')}/", f"{path}/", recursive=True)
            else:
                system.get_file(source, str(path))
        except Exception as error:
            raise unreadable(drive.address, error) from error
        yield path


@dataclass(frozen=True)
class Place:
    """Where the outputs of a fleet go.

    Attributes:
        folder: of the fleet, which every worker sees unless ``store`` is given.
        store: address that outputs are sent to instead, or None.
    """

    folder: Path
    store: str | None = None

    @contextmanager
    def work(self, drive: Drive, attempt: int) -> Iterator[Path]:
        """A folder to make outputs in; it is kept where the work is interrupted.

        Two workers never share one: of a machine that is lost nobody knows whether it still
        writes.

        Raises:
            Unim2Error: it cannot be made.
        """
        if self.store is not None:
            with tempfile.TemporaryDirectory(prefix="unim2-fleet-") as folder:
                yield Path(folder)
            return
        path = self.folder / WORK / f"{drive.name}.{attempt}"
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(path, error) from error
        yield path
        for left in path.parent.iterdir():
            if left.name.rpartition(".")[0] == drive.name:
                shutil.rmtree(left, ignore_errors=True)

    def deliver(self, made: Path, *, good: bool) -> tuple[str, int]:
        """Give an output its place; returns where that is, and its bytes.

        Args:
            made: a file or a folder.
            good: False: it is what could be read of a damaged drive.

        Raises:
            Unim2Error: there is no room, or the address refuses it.
        """
        size = _size(made)
        below = OUTPUTS if good else QUARANTINED
        if self.store is not None:
            return self._send(made, f"{self.store.rstrip('/')}/{below}/{made.name}"), size
        target = self.folder / below / made.name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():  # of another version of the drive
                shutil.rmtree(target)
            os.replace(made, target)
        except OSError as error:
            raise cannot_write(target, error) from error
        return str(target.relative_to(self.folder)), size

    def is_there(self, output: str) -> bool:
        """Whether an output is where it was put; what is behind an address is taken as there."""
        return is_remote(output) or (self.folder / output).exists()

    def _send(self, made: Path, address: str) -> str:
        system, path = file_system(address)
        try:
            if made.is_dir():
                system.put(f"{made}/", f"{path}/", recursive=True)
            else:
                system.put_file(str(made), path)
        except Exception as error:
            raise unreadable(address, error) from error
        return address


def check_store(store: str) -> None:
    """Check that outputs can be sent somewhere, before anything is computed.

    Raises:
        Unim2Error: the address does not answer, or refuses.
    """
    if not is_remote(store):
        raise Unim2Error(
            "outputs cannot be sent there",
            expected="an address such as s3://bucket/outputs",
            found=store,
            remedy="leave out --to: outputs then stay in --out",
        )
    system, path = file_system(store)
    probe = f"{path.rstrip('/')}/.fleet"
    answered(store, lambda: system.pipe_file(probe, b"a fleet writes here\n"))


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
