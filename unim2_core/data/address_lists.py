"""Text files that list paths and addresses, here or behind an address themselves."""

from __future__ import annotations

import os
from pathlib import Path

from unim2_core.data.addresses import answered, file_system, is_remote
from unim2_core.errors import DataError

LISTS = (".txt", ".list")
"""Names of such files end so."""


def listed(place: str, what: str) -> list[str]:
    """What a list names, one on each line; blank lines and those that begin with ``#`` do not.

    Args:
        place: path or address of the list. What is relative in it lies beside it.
        what: is listed, for the message.

    Raises:
        DataError: it cannot be read.
    """
    base, found = place.rpartition("/")[0], []
    for line in _text(place, what).splitlines():
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        entry = os.path.expanduser(entry)
        alone = is_remote(entry) or os.path.isabs(entry) or not base
        found.append(entry if alone else f"{base}/{entry}")
    return found


def _text(place: str, what: str) -> str:
    try:
        if not is_remote(place):
            return Path(place).expanduser().read_text(encoding="utf-8")
        system, path = file_system(place)
        return str(answered(place, lambda: system.cat_file(path)).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"cannot read the list of {what} {place}",
            expected="a text file with one path or address on each line",
            found=str(error),
            remedy="check its name",
        ) from error
