"""Fixtures shared by all tests: where the third-party samples and the reference numbers are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared"


def _folder(variable: str, default: Path) -> Path:
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set {variable} to run this test")
    return folder


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real sample images, third-party, not part of the project."""
    return _folder("UNIM2_TEST_DATA", SHARED / "data")


@pytest.fixture(scope="session")
def parity_dir() -> Path:
    """Folder of arrays computed by the method's reference release."""
    return _folder("UNIM2_PARITY", SHARED / "parity" / "a")
