"""Built engines on disk: beside the model, found by all that decides them, whole or not there."""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unim2_core.files import cannot_write
from unim2_core.model.bundle import ENGINES

ENGINE, MANIFEST = "engine.plan", "manifest.json"
TELL_EVERY_S = 5.0
"""A robot that builds must not look as if it hung."""

_log = logging.getLogger(__name__)


class EngineStore:
    """Engines under ``engines/<key>/``.

    The key is the sha256 of what decides an engine, so one of another graph, library or GPU is
    never found. Beside the engine its manifest says the same in words, and holds the sha256 of the
    engine: one that was damaged is built again.
    """

    def __init__(self, graph: Path) -> None:
        """Find the place.

        Args:
            graph: the ONNX file that is built; one of a bundle has its engines in the bundle, or,
                where that may not be written to, in the user's cache.
        """
        bundle = graph.parent.parent if graph.parent.name == "onnx" else graph.parent
        self.folder = bundle / ENGINES
        if not os.access(self.folder if self.folder.is_dir() else bundle, os.W_OK):
            cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            self.folder = Path(cache, "unim2", ENGINES)

    def get(self, facts: Mapping[str, Any], build: Callable[[], bytes]) -> bytes:
        """The engine that was built before, else a new one.

        One process builds at a time; another one that wants the same waits and finds it.

        Args:
            facts: all that decides the engine; JSON types only.
            build: makes it, and may take minutes.

        Raises:
            Unim2Error: the folder cannot be written to, or whatever ``build`` raises.
        """
        key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        place = self.folder / key
        found = self._read(place, facts)
        if found is not None:
            return found
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked(key):
                found = self._read(place, facts)  # another process may have been faster
                if found is not None:
                    return found
                if place.is_dir():
                    _log.warning("%s is damaged: the engine is built again", place)
                began = time.monotonic()
                engine = build()
                try:
                    self._write(place, engine, {**facts, "seconds": time.monotonic() - began})
                except OSError as error:  # it took minutes, and runs
                    _log.warning("the engine cannot be kept in %s: %s", place, error.strerror)
                return engine
        except OSError as error:
            raise cannot_write(place, error) from error

    def _read(self, place: Path, facts: Mapping[str, Any]) -> bytes | None:
        """None where there is none, or it is not what its manifest says."""
        if not place.is_dir():
            return None
        try:
            manifest = json.loads((place / MANIFEST).read_text())
            engine = (place / ENGINE).read_bytes()
            whole = manifest["sha256"] == hashlib.sha256(engine).hexdigest()
            if whole and {name: manifest.get(name) for name in facts} == dict(facts):
                return engine
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return None

    def _write(self, place: Path, engine: bytes, manifest: Mapping[str, Any]) -> None:
        for left in self.folder.glob(f".{place.name}.*"):  # of a process that was killed
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=self.folder))
        try:
            content = {**manifest, "sha256": hashlib.sha256(engine).hexdigest()}
            for name, part in (
                (ENGINE, engine),
                (MANIFEST, (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()),
            ):
                with (draft / name).open("wb") as file:
                    file.write(part)
                    file.flush()
                    os.fsync(file.fileno())
            draft.chmod(0o755)
            shutil.rmtree(place, ignore_errors=True)
            draft.rename(place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        """Alone among all processes; the system opens the lock of one that dies."""
        with (self.folder / f".{key}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                _log.warning("waiting for another process that builds the same engine")
                fcntl.flock(file, fcntl.LOCK_EX)
            yield


class Telling:
    """Says on the log that something takes its time, and how long it has taken."""

    def __init__(self, what: str) -> None:
        """Not yet.

        Args:
            what: is done, for the log.
        """
        self.what = what
        self.phase = ""
        self._done = threading.Event()

    def __enter__(self) -> Telling:
        self._began = time.monotonic()
        self._thread = threading.Thread(target=self._tell, daemon=True)
        _log.warning("%s; this is done once, and may take minutes", self.what)
        self._thread.start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._done.set()
        self._thread.join()
        ended = "failed" if failure[0] else "done"
        _log.warning("%s: %s after %.0f s", self.what, ended, time.monotonic() - self._began)

    def _tell(self) -> None:
        while not self._done.wait(TELL_EVERY_S):
            phase = f", {self.phase}" if self.phase else ""
            _log.warning("%s: %.0f s%s", self.what, time.monotonic() - self._began, phase)
