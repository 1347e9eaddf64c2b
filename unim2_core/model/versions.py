"""The versions of a model: a bundle that has been adapted keeps what it was and can go back.

The manifest of a bundle is the pointer to the version that is served: it is replaced in one go,
and last, so a process that is killed at any moment leaves the old version served or the new one.
Each version has a folder with its weights and a copy of its manifest; the graphs are shared.
``history.json`` keeps what was tried, served or not, with every figure. No torch.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError

from unim2_core.errors import ModelError
from unim2_core.files import cannot_write, sha256, synchronise, write_atomically
from unim2_core.model.bundle import MANIFEST, NETWORK, UNLABELLED, Bundle, Label, Manifest
from unim2_core.model.given import VERSIONS, tables_given

HISTORY = "history.json"
LOCK = ".lock"
DRAFT = ".draft-"
KEPT = 8
"""Versions whose weights are kept, beside the one that was trained."""
ENTRIES = 500
"""Entries of a history; older ones are dropped."""

Event = Literal["accepted", "rejected", "review", "rollback", "approved"]


class Entry(BaseModel):
    """One event in the life of a model.

    Attributes:
        event: the verdict on an adaptation, or what a person did.
        number: of the version that it is about.
        parent: number of the version that was served before.
        sha256: of the version's manifest; None where nothing was kept.
        when: seconds since 1970.
        details: figures, reasons, drives; JSON types only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: Event
    number: int = Field(ge=0)
    parent: int = Field(ge=0)
    sha256: str | None = None
    when: float
    details: dict[str, Any] = Field(default_factory=dict)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    entries: list[Entry] = Field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Served:
    """What a running node needs to serve another version of the model that it has loaded.

    Attributes:
        sha256: tells the version apart, as ``Bundle.sha256``.
        number: of the version.
        weights: as ``Bundle.weights``, for ``ServedHeads.replace``.
        labels: what the ids mean.
        labels_version: raised whenever the labels change.
        table: (256,) uint8, the class that each cluster is served as.
    """

    sha256: str
    number: int
    weights: Mapping[str, NDArray[np.float32]]
    labels: tuple[Label, ...]
    labels_version: int
    table: NDArray[np.uint8]


def served(path: Path) -> Served:
    """The accepted version of a model that is served now; every file is checked.

    Raises:
        ModelError: there is no bundle, or it is damaged.
    """
    bundle = Bundle(path)
    manifest = bundle.manifest
    return Served(
        bundle.sha256,
        manifest.number,
        bundle.weights(),
        manifest.labels,
        manifest.labels_version,
        manifest.served,
    )


def read_history(path: Path) -> list[Entry]:
    """What happened to a model since it was trained, the oldest first.

    Raises:
        ModelError: the file is damaged.
    """
    file = path / HISTORY
    if not file.exists():
        return []
    try:
        return _File.model_validate(json.loads(file.read_text(encoding="utf-8"))).entries
    except (OSError, ValueError, ValidationError) as error:
        raise ModelError(
            f"cannot read the history of {path}",
            expected=f"{HISTORY} as unim2 adapt writes it",
            found=str(error).splitlines()[0],
            remedy="copy the bundle again; what is served does not depend on this file",
        ) from error


def version_folder(path: Path, number: int) -> Path:
    """Where the weights of an adapted version are, and the manifests of all."""
    return path / VERSIONS / f"{number:04d}"


def stored(path: Path, number: int) -> bool:
    """Whether one can go back to a version."""
    return (version_folder(path, number) / MANIFEST).is_file()


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Be the only process that changes a bundle; what a killed one left behind is removed.

    Raises:
        ModelError: there is no bundle, or another process is changing it.
        Unim2Error: it cannot be written to.
    """
    Bundle(path)  # says what is wrong
    try:
        file = (path / LOCK).open("ab")
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ModelError(
                f"{path} is being changed by another process",
                expected="one adaptation of a model at a time",
                found="another one that has not ended",
                remedy="wait for it, or adapt into another bundle with --out",
            ) from error
        _tidy(path)
        yield


def _tidy(path: Path) -> None:
    known = {entry.number for entry in read_history(path) if entry.sha256}
    known |= {0, Bundle(path).manifest.number}
    for folder in (path / VERSIONS).glob("*"):
        unknown = folder.name.isdigit() and int(folder.name) not in known
        if folder.name.startswith(DRAFT) or unknown:
            shutil.rmtree(folder, ignore_errors=True)


def add_version(
    bundle: Bundle,
    event: Literal["accepted", "review"],
    manifest: Manifest,
    fill: Callable[[Path], None],
    details: Mapping[str, Any],
    kept: int = KEPT,
) -> Bundle:
    """Add a version and, where it is accepted, serve it from now on. Within ``changing``.

    Args:
        bundle: the model as it is served.
        event: the verdict.
        manifest: of the new version; number, folder, parent and files are filled in.
        fill: called with the folder under construction to put the version's files there.
        details: for the history.
        kept: versions whose weights are kept.

    Returns:
        The model as it is served now.

    Raises:
        Unim2Error: the disk is full or may not be written to; what was served is still served.
    """
    path, number = bundle.path, next_number(bundle.path)
    try:
        _keep_first(bundle)
        draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=path / VERSIONS))
    except OSError as error:
        raise cannot_write(path, error) from error
    folder = version_folder(path, number)
    try:
        fill(draft)
        shared = {
            name: digest
            for name, digest in bundle.manifest.files.items()
            if "onnx/" in name or name == NETWORK
        }
        own = {
            f"{VERSIONS}/{folder.name}/{file.name}": sha256(file)
            for file in sorted(draft.iterdir())
        }
        manifest = manifest.replaced(
            number=number,
            folder=f"{VERSIONS}/{folder.name}",
            parent=bundle.sha256,
            files={**shared, **own},
        )
        content = (manifest.model_dump_json(indent=2) + "\n").encode()
        (draft / MANIFEST).write_bytes(content)
        synchronise(draft)
        draft.chmod(0o755)
        os.rename(draft, folder)
        record(path, event, number, bundle.manifest.number, sha256(folder / MANIFEST), details)
    except SafetensorError as error:  # how it says that the disk is full
        raise cannot_write(path, OSError(str(error))) from error
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    if event == "accepted":
        write_atomically(path / MANIFEST, content)
    now = Bundle(path)
    prune(now, kept)
    return now


def record(
    path: Path,
    event: Event,
    number: int,
    parent: int,
    digest: str | None,
    details: Mapping[str, Any],
) -> None:
    """Add an entry to the history of a model. Within ``changing``."""
    entry = Entry(
        event=event,
        number=number,
        parent=parent,
        sha256=digest,
        when=round(time.time(), 1),
        details=dict(details),
    )
    entries = [*read_history(path), entry][-ENTRIES:]
    write_atomically(path / HISTORY, (_File(entries=entries).model_dump_json() + "\n").encode())


def next_number(path: Path) -> int:
    """Of the next version; a number is never used twice."""
    numbers = [entry.number for entry in read_history(path)]
    return 1 + max([Bundle(path).manifest.number, *numbers])


def go_back(path: Path, *, steps: int = 1, to: int | None = None) -> Bundle:
    """Serve an earlier version again. Within ``changing``.

    Args:
        path: the bundle.
        steps: along the parents.
        to: number of the version instead; only one that was accepted can be served.

    Raises:
        ModelError: there is no such version, or its weights are not kept.
    """
    bundle = Bundle(path)
    present, entries = bundle.manifest.number, read_history(path)
    parents = {e.number: e.parent for e in entries if e.event in ("accepted", "review")}
    accepted = {e.number for e in entries if e.event in ("accepted", "approved")} | {0}
    wanted = to
    if wanted is None:
        wanted = present
        for _ in range(steps):
            if wanted not in parents:
                many = "version" if steps == 1 else f"{steps} versions"
                raise _no_version(path, f"{many} before {present}", accepted)
            wanted = parents[wanted]
    if wanted == present:
        return bundle
    if wanted not in accepted or not stored(path, wanted):
        raise _no_version(path, f"version {wanted}", accepted)
    return _serve(bundle, wanted, "rollback")


def approve(path: Path, number: int) -> Bundle:
    """Serve a version that was kept for review: a person has looked at it. Within ``changing``.

    Raises:
        ModelError: there is none of that number that waits for review.
    """
    waiting = {e.number for e in read_history(path) if e.event == "review"}
    if number not in waiting or not stored(path, number):
        raise _no_version(path, f"version {number}, waiting for review", waiting)
    return _serve(Bundle(path), number, "approved")


def _serve(bundle: Bundle, number: int, event: Literal["rollback", "approved"]) -> Bundle:
    content = (version_folder(bundle.path, number) / MANIFEST).read_bytes()
    manifest = Manifest.model_validate(json.loads(content))
    for name, expected in manifest.files.items():
        file = bundle.path / name
        if not file.is_file() or sha256(file) != expected:
            raise ModelError(
                f"version {number} of {bundle.path} is damaged",
                expected=f"{name} with sha256 {expected[:12]}",
                found="another file" if file.is_file() else "no such file",
                remedy="go back to another version, see unim2 history",
            )
    before = bundle.manifest.number
    named = _as_named_now(manifest, bundle.manifest, tables_given(bundle.path))
    if named != manifest:
        content = (named.model_dump_json(indent=2) + "\n").encode()
    digest = sha256(version_folder(bundle.path, number) / MANIFEST)
    record(bundle.path, event, number, before, digest, {})
    write_atomically(bundle.path / MANIFEST, content)
    return Bundle(bundle.path)


def _as_named_now(manifest: Manifest, now: Manifest, given: int) -> Manifest:
    """A version with the classes as they are called and merged now: names are not learnt."""
    clusters = range(manifest.clusters)
    known = {label.id: label for label in (*manifest.labels, *now.labels)}
    served_as = {
        cluster: into
        for cluster, into in now.served_as.items()
        if cluster in clusters and into in (*clusters, UNLABELLED)
    }
    labels = tuple(known[c] for c in clusters if c in known and c not in served_as)
    if (labels, served_as) == (manifest.labels, manifest.served_as):
        return manifest
    changed = (labels, served_as) != (now.labels, now.served_as)
    table = 1 + max(given, now.labels_version) if changed else now.labels_version
    return manifest.replaced(labels=labels, served_as=served_as, labels_version=table)


def prune(bundle: Bundle, kept: int) -> None:
    """Remove the weights of all but the newest versions, the first and the one that is served."""
    folders = sorted(f for f in (bundle.path / VERSIONS).glob("*") if f.name.isdigit())
    spared = {0, bundle.manifest.number}
    old = [folder for folder in folders if int(folder.name) not in spared]
    for folder in old[: max(0, len(old) - max(0, kept - (bundle.manifest.number > 0)))]:
        shutil.rmtree(folder, ignore_errors=True)


def _keep_first(bundle: Bundle) -> None:
    """Put the manifest of what was trained where one can go back to it."""
    folder = version_folder(bundle.path, bundle.manifest.number)
    if not (folder / MANIFEST).exists():
        write_atomically(folder / MANIFEST, (bundle.path / MANIFEST).read_bytes())


def _no_version(path: Path, wanted: str, there: set[int]) -> ModelError:
    kept = sorted(number for number in there if stored(path, number))
    return ModelError(
        f"{path} has no {wanted}",
        expected=f"one of {', '.join(map(str, kept))}" if kept else "a version that was kept",
        found=f"version {Bundle(path).manifest.number} served",
        remedy="look at them with: unim2 history MODEL",
    )
