"""Tests of the source checkout itself; beside an installed wheel there is nothing for them."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
needs_checkout = pytest.mark.skipif(
    not (ROOT / "package.xml").is_file(), reason=f"{ROOT} is no source checkout"
)
