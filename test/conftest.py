"""Fixtures shared by all tests: where the third-party samples and the reference numbers are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Each process of many uses one core; set before a library reads it, and known to children.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

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


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small RGB and thermal model on the simple features; not to be changed."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    from scenes import train_on, write_bag

    from unim2_core.sensing.rig import Rig

    folder = tmp_path_factory.mktemp("model")
    write_bag(folder / "drive", 6)
    rig = Rig.default(("rgb", "thermal"))
    return train_on(folder / "drive", rig, ("rgb", "thermal"), folder / "scene.unim2", clusters=4)


@pytest.fixture(scope="session")
def site_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small synthetic drives and a trained model that remembers one; not to be changed."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    from adaptation_samples import make_site

    return make_site(tmp_path_factory.mktemp("site"))
