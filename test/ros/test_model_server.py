"""The model that runs, many versions later: every one that can come back is still known."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from unim2_core.errors import ModelError, Unim2Error
from unim2_core.inference.served_heads import KEPT, ServedHeads
from unim2_core.model.bundle import Bundle
from unim2_ros.model_server import Loaded, ModelServer
from unim2_ros.parameters import SegmentParameters

pytestmark = pytest.mark.ros


class _Version(Bundle):
    """The same model by another name."""

    def __init__(self, path: Path, sha256: str) -> None:
        super().__init__(path)
        self.sha256 = sha256


def _pipeline(bundle: Bundle) -> Any:
    heads = ServedHeads(bundle.sha256, bundle.weights())
    return SimpleNamespace(bundle=bundle, engine=SimpleNamespace(heads=heads))


@pytest.fixture
def server(model_path: Path) -> ModelServer:
    settings = SegmentParameters(model=str(model_path))
    return ModelServer(_pipeline(_Version(model_path, "v0")), settings)


def _served(server: ModelServer, loaded: Loaded) -> str:
    outcome = SimpleNamespace(done=lambda: True, result=lambda: loaded)
    server.job = SimpleNamespace(outcome=outcome)

    def replace(pipeline: Any) -> None:
        server.pipeline = pipeline

    return server.poll(replace)


def test_every_version_that_can_be_put_back_is_known(
    server: ModelServer, model_path: Path
) -> None:
    whole = _Version(model_path, "w0")
    assert "loaded" in _served(server, Loaded(whole, pipeline=_pipeline(whole)))
    for number in range(1, 30):
        version = _Version(model_path, f"w{number}")
        assert "new weights" in _served(server, Loaded(version, weights=version.weights()))
    assert server.version == "w29"
    seen = []

    def replace(pipeline: Any) -> None:
        server.pipeline = pipeline

    for _ in range(KEPT + 1):
        server.roll_back(replace)
        seen.append(server.version)
        assert server.bundle(server.version).sha256 == server.version
        assert server.colors(server.version).shape == (256, 3)
    assert seen == [*(f"w{number}" for number in range(28, 28 - KEPT, -1)), "v0"]
    with pytest.raises(ModelError, match="no earlier version"):
        server.roll_back(replace)
    assert len(server._bundles) <= KEPT + 3, "what cannot come back is forgotten"


def test_only_one_load_at_a_time(server: ModelServer) -> None:
    settings = SegmentParameters(model=str(server.path))
    job = server.reload(settings)
    with pytest.raises(Unim2Error, match="under way"):
        server.reload(settings)
    deadline = time.monotonic() + 30
    while not job.outcome.done() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.job is job
    assert server.poll(lambda _: None)
    assert server.job is None
