"""Other names and merged classes for a bundle: only its manifest changes, and the old one is kept.

A version of a model is its manifest, which holds the sha256 of every other file. So naming writes
one file, at once, and going back is writing the earlier one again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from unim2_core.errors import ModelError
from unim2_core.files import sha256, write_atomically
from unim2_core.model.bundle import MANIFEST, Bundle, Label, Manifest
from unim2_core.model.given import NAMINGS, tables_given
from unim2_core.model.versions import changing


def relabelled(bundle: Bundle, labels: Sequence[Label], served_as: Mapping[int, int]) -> Bundle:
    """Write another version of a bundle with other classes; the network stays what it is.

    Args:
        bundle: the version to begin from; where nothing differs it stays the newest.
        labels: of the classes that are served.
        served_as: cluster -> one of these, or 255 for none; clusters that are left out have a
            label of their own.

    Raises:
        ModelError: the bundle has another version meanwhile, or the classes are not possible.
        Unim2Error: the bundle may not be written to, or the disk is full.
    """
    own = bundle.manifest
    if tuple(labels) == own.labels and dict(served_as) == own.served_as:
        return bundle
    manifest = own.replaced(
        labels=tuple(labels),
        served_as={cluster: served_as[cluster] for cluster in sorted(served_as)},
        parent=bundle.sha256,
        labels_version=1 + max(own.labels_version, tables_given(bundle.path)),
    )
    with changing(bundle.path):
        return _replaced(bundle, (manifest.model_dump_json(indent=2) + "\n").encode())


def put_back(bundle: Bundle) -> Bundle:
    """Make the version before this one the newest again; this one stays in the history.

    Raises:
        ModelError: there is none, or it is damaged.
        Unim2Error: the bundle may not be written to, or the disk is full.
    """
    parent = bundle.manifest.parent
    earlier = _kept(bundle.path, parent) if parent else None
    if earlier is None or not earlier.is_file() or sha256(earlier) != parent:
        raise ModelError(
            f"{bundle.path} has no earlier names to go back to",
            expected=f"the version that {bundle.version} was made from, in {NAMINGS}/",
            found=f"no whole manifest of {parent[:12]}" if parent else "a version without one",
            remedy="name the classes again: unim2 name --help",
        )
    content = earlier.read_bytes()
    number = Manifest.model_validate(json.loads(content)).number
    if number != bundle.manifest.number:
        raise ModelError(
            f"{bundle.path} has no earlier names to go back to",
            expected=f"other names of version {bundle.manifest.number}",
            found=f"version {number}, which it was adapted from, before it",
            remedy="unim2 rollback MODEL goes back to another version; names stay as they are",
        )
    with changing(bundle.path):
        return _replaced(bundle, content)


def _kept(path: Path, version: str) -> Path:
    return path / NAMINGS / f"{version}.json"


def _replaced(bundle: Bundle, content: bytes) -> Bundle:
    """Keep the manifest that is there, then put another one in its place."""
    manifest = bundle.path / MANIFEST
    try:
        unchanged = sha256(manifest) == bundle.sha256
    except OSError:
        unchanged = False
    if not unchanged:
        raise ModelError(
            f"{bundle.path} was changed by somebody else meanwhile",
            expected=f"version {bundle.version}",
            found="another one",
            remedy="open it again; nothing was written",
        )
    write_atomically(_kept(bundle.path, bundle.sha256), manifest.read_bytes())
    write_atomically(manifest, content)
    return Bundle(bundle.path)
