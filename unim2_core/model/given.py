"""What versions of a model have given out, and never mean again: class ids, tables of labels."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from unim2_core.model.bundle import MANIFEST, Manifest

VERSIONS = "versions"
"""Folder of a bundle with a folder for each adapted version, its manifest among the rest."""
NAMINGS = "history"
"""Folder with the manifests from before each naming, named after their sha256."""


def ids_given(path: Path, details: Sequence[Mapping[str, Any]]) -> int:
    """How many class ids there have ever been in a bundle; the next is the first that is free.

    Args:
        path: of the bundle.
        details: of the entries of its history, which tell of versions that are not kept any more.
    """
    told = [int(entry["identity"].get("ids", 0)) for entry in details if "identity" in entry]
    return max([0, *told, *(manifest.clusters for manifest in _manifests(path))])


def tables_given(path: Path) -> int:
    """The highest number of a table of labels in what is kept of a bundle."""
    return max([0, *(manifest.labels_version for manifest in _manifests(path))])


def _manifests(path: Path) -> Iterator[Manifest]:
    """Of all versions that are kept; a damaged one can never be served, and is left out."""
    kept = [path.glob(f"{VERSIONS}/*/{MANIFEST}"), path.glob(f"{NAMINGS}/*.json")]
    for file in [path / MANIFEST, *(file for files in kept for file in files)]:
        try:
            yield Manifest.model_validate(json.loads(file.read_bytes()))
        except (OSError, ValueError, ValidationError):
            continue
