"""Pictures of a source that stay in memory, to be looked at again and again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from unim2_core.data.labels import Classes
from unim2_core.data.pictures import Picture, PictureSource


class KeptPictures:
    """Some pictures of a source, decoded once; a ``PictureSource``.

    Args:
        source: the pictures.
        rows: which of them, counted from 0 in the order of the source; None = all.
    """

    def __init__(self, source: PictureSource, rows: range | None = None) -> None:
        self._source, self._rows = source, rows
        self._pictures = [
            picture for row, picture in enumerate(source) if rows is None or row in rows
        ]

    @property
    def modalities(self) -> tuple[str, ...]:
        """As of the source."""
        return self._source.modalities

    @property
    def encodings(self) -> Mapping[str, Mapping[str, Any]]:
        """As of the source."""
        return self._source.encodings

    @property
    def size(self) -> tuple[int, int]:
        """As of the source."""
        return self._source.size

    @property
    def label_size(self) -> tuple[int, int] | None:
        """As of the source."""
        return self._source.label_size

    @property
    def classes(self) -> Classes | None:
        """As of the source."""
        return self._source.classes

    @property
    def limit(self) -> int:
        """How many there are."""
        return len(self._pictures)

    def fingerprint(self) -> str:
        """Hex digest of everything that decides the pictures."""
        rules = f"{self._rows} of {self._source.fingerprint()}"
        return hashlib.sha256(rules.encode()).hexdigest()

    def __iter__(self) -> Iterator[Picture]:
        """Give them, in the order of the source."""
        return iter(self._pictures)
