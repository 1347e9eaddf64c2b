"""The drives of a fleet: found by patterns or listed in a file, here or behind an address."""

from __future__ import annotations

import glob
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from unim2_core.data.address_lists import LISTS, listed
from unim2_core.data.addresses import answered, file_system, is_remote, protocol_of, unreadable
from unim2_core.errors import DataError

FILES = (".mcap", ".db3", ".bag")
MAGIC = "*?["
LISTERS = 16
"""Folders that are looked into at once where each is a request over the network."""

Warn = Callable[[str], object]


@dataclass(frozen=True, order=True)
class Drive:
    """A recorded drive, wherever it is.

    Attributes:
        address: absolute path, or URL.
        name: of its outputs; no two drives of a fleet share one.
        mark: changes when the drive is recorded again: sizes, times or tags of its files.
        size: bytes.
    """

    address: str
    name: str
    mark: str
    size: int


@dataclass(frozen=True)
class _File:
    """A file of a drive: path within it, bytes, and what changes when it is written again."""

    path: str
    size: int
    tag: str


def list_drives(patterns: Sequence[str], warn: Warn = print) -> list[Drive]:
    """Find the drives that patterns and manifests name, in the order of their addresses.

    Args:
        patterns: each a path, a URL, either with ``*``, ``?``, ``[]`` or ``**``, or a manifest:
            a text file (``.txt``, ``.list``) with one of these on each line.
        warn: called with what is left out.

    Raises:
        DataError: nothing is found, or an address cannot be read.
    """
    found: dict[str, list[_File]] = {}
    others: list[str] = []
    for pattern in _lines(patterns):
        for address, files in (_remote if is_remote(pattern) else _local)(pattern):
            if files is None:
                others.append(address)
            else:
                found[address] = files
    # A pattern such as ** finds the folder of a bag and what is in it.
    inner = {address for address in found if any(up in found for up in _parents(address))}
    if others:
        warn(f"{len(others)} paths are no bags and are left out, the first of them {others[0]}")
    drives = [
        Drive(address, "", _mark(found[address]), sum(file.size for file in found[address]))
        for address in sorted(set(found) - inner)
    ]
    if not drives:
        raise DataError(
            "there are no drives",
            expected=f"rosbag2 folders or files ending in {', '.join(FILES)}",
            found=f"none that fit {', '.join(patterns)}",
            remedy="quote the pattern so that the shell leaves it alone, and check its spelling",
        )
    return named(drives, {})


def _lines(patterns: Iterable[str]) -> Iterator[str]:
    """Patterns, with those of manifests in the place of these."""
    for pattern in patterns:
        yield from listed(pattern, "drives") if pattern.endswith(LISTS) else (pattern,)


def _local(pattern: str) -> Iterator[tuple[str, list[_File] | None]]:
    for name in glob.glob(os.path.expanduser(pattern), recursive=True):
        path = Path(name).absolute()
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if file.is_file()]
            files = [_stat(file, str(file.relative_to(path))) for file in inside]
            if _is_bag(path.name, files):
                yield str(path), files
            elif not any(part.is_dir() for part in path.iterdir()):
                yield str(path), None
        else:
            yield str(path), [_stat(path, path.name)] if path.suffix in FILES else None


def _stat(path: Path, name: str) -> _File:
    found = path.stat()
    return _File(name, found.st_size, str(found.st_mtime_ns))


def _remote(pattern: str) -> Iterator[tuple[str, list[_File] | None]]:
    system, path = file_system(pattern)
    try:
        # A short question first: a long list may take its time, a dead address may not.
        answered(pattern, lambda: system.info(_root(path)))
        matches = system.glob(path, detail=True)
    except FileNotFoundError:
        return
    except DataError:
        raise
    except Exception as error:
        raise unreadable(pattern, error) from error

    def look(item: tuple[str, Mapping[str, Any]]) -> tuple[str, list[_File] | None]:
        name, info = item
        address = _address(pattern, name)
        if info["type"] != "directory":
            bag = PurePosixPath(name).suffix in FILES
            return address, [_info(PurePosixPath(name).name, info)] if bag else None
        inside = system.find(name, detail=True)
        start = len(name.rstrip("/")) + 1
        files = [_info(key[start:], value) for key, value in sorted(inside.items())]
        return address, files if _is_bag(PurePosixPath(name).name, files) else None

    with ThreadPoolExecutor(LISTERS) as pool:
        yield from pool.map(look, matches.items())


def _root(path: str) -> str:
    """The part of a pattern before the first folder that is not spelt out."""
    parts = path.split("/")
    whole = next((i for i, part in enumerate(parts) if set(part) & set(MAGIC)), len(parts))
    return "/".join(parts[:whole])


def _address(pattern: str, name: str) -> str:
    return name if is_remote(name) else f"{protocol_of(pattern)}://{name.rstrip('/')}"


def _info(name: str, info: Mapping[str, Any]) -> _File:
    tag = info.get("ETag") or info.get("etag") or info.get("mtime") or info.get("LastModified")
    return _File(name, int(info.get("size") or 0), str(tag or ""))


def _is_bag(folder: str, files: Iterable[_File]) -> bool:
    """Whether a folder is one bag: one with metadata, or with parts that are called like it."""
    names = [file.path for file in files if "/" not in file.path]
    parts = [name for name in names if name.endswith((".mcap", ".db3"))]
    return "metadata.yaml" in names or (
        bool(parts) and all(name.startswith(f"{folder}_") for name in parts)
    )


def _parents(address: str) -> Iterator[str]:
    parent = address.rpartition("/")[0]
    while parent and not parent.endswith(":/"):
        yield parent
        parent = parent.rpartition("/")[0]


def _mark(files: Sequence[_File]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.path}\0{file.size}\0{file.tag}\0".encode())
    return digest.hexdigest()[:16]


def named(drives: Sequence[Drive], known: Mapping[str, str]) -> list[Drive]:
    """Name drives by what they are called, told apart by a digest where two are called alike.

    Args:
        drives: the drives.
        known: address -> name that a drive was given before, and keeps.
    """
    taken = set(known.values())
    made = []
    for drive in drives:
        name = known.get(drive.address)
        if name is None:
            last = PurePosixPath(drive.address)
            name = last.stem if last.suffix in FILES else last.name
            if name in taken:
                name = f"{name}-{hashlib.sha256(drive.address.encode()).hexdigest()[:8]}"
            taken.add(name)
        made.append(replace(drive, name=name))
    return made
