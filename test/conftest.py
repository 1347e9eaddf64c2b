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


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small RGB and thermal model on the baseline backbone; not to be changed."""
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    from scenes import frame_sets

    from unim2_core.inference.bundling import train_on
    from unim2_core.learning.training_free import KMeansConfig
    from unim2_core.sensing.rig import Rig

    out = tmp_path_factory.mktemp("model") / "scene.unim2"
    config = KMeansConfig(modalities=("rgb", "thermal"), clusters=4)
    return train_on(frame_sets(6), Rig.default(("rgb", "thermal")), out, config).path
