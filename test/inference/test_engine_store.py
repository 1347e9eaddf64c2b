"""Built engines on disk: found by what decides them, whole, one builder at a time."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unim2_core.inference import engine_store
from unim2_core.inference.engine_store import ENGINE, MANIFEST, EngineStore, Telling

ROOT = Path(engine_store.__file__).parents[2]
FACTS = {"onnx": "abc", "shapes": {"images": [1, 64, 96, 3]}, "device": "GPU 1"}
BUILD = """
import sys, time
from pathlib import Path
from unim2_core.inference.engine_store import EngineStore

def build():
    print("building", flush=True)
    time.sleep(float(sys.argv[2]))
    return b"engine" * 1000

EngineStore(Path(sys.argv[1])).get({"a": 1}, build)
print("there", flush=True)
"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    path = tmp_path / "m.unim2" / "onnx" / "head.onnx"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"graph")
    return path


def never() -> bytes:
    raise AssertionError("was built again")


def started(graph: Path, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, str(graph), str(seconds)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_an_engine_is_built_once_and_found_again(graph: Path) -> None:
    assert EngineStore(graph).get(FACTS, lambda: b"engine") == b"engine"
    assert EngineStore(graph).get(dict(FACTS), never) == b"engine"
    [place] = (path for path in (graph.parents[1] / "engines").iterdir() if path.is_dir())
    manifest = json.loads((place / MANIFEST).read_text())
    assert {name: manifest[name] for name in FACTS} == FACTS
    assert sorted(path.name for path in place.iterdir()) == sorted([ENGINE, MANIFEST])


@pytest.mark.parametrize("name", list(FACTS))
def test_one_of_another_graph_size_or_device_is_not_taken(graph: Path, name: str) -> None:
    store = EngineStore(graph)
    store.get(FACTS, lambda: b"engine")
    assert store.get({**FACTS, name: "another"}, lambda: b"other") == b"other"
    assert store.get(FACTS, never) == b"engine"


@pytest.mark.parametrize("file", [ENGINE, MANIFEST])
@pytest.mark.parametrize("content", [None, b"", b"{}", b"engine of somebody else"])
def test_a_damaged_one_is_built_again(
    graph: Path, file: str, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    store = EngineStore(graph)
    store.get(FACTS, lambda: b"engine")
    [damaged] = store.folder.glob(f"*/{file}")
    if content is None:
        damaged.unlink()
    else:
        damaged.write_bytes(content)
    assert store.get(FACTS, lambda: b"fresh") == b"fresh"
    assert caplog.text.count("is damaged") == 1
    assert store.get(FACTS, never) == b"fresh"


def test_the_manifest_of_another_engine_does_not_pass(graph: Path) -> None:
    store = EngineStore(graph)
    store.get(FACTS, lambda: b"engine")
    [manifest] = store.folder.glob(f"*/{MANIFEST}")
    foreign = {**json.loads(manifest.read_text()), "device": "GPU 2"}
    manifest.write_text(json.dumps(foreign))
    assert store.get(FACTS, lambda: b"fresh") == b"fresh"


def test_a_build_that_fails_leaves_nothing(graph: Path) -> None:
    def fail() -> bytes:
        raise ValueError("no")

    store = EngineStore(graph)
    with pytest.raises(ValueError, match="no"):
        store.get(FACTS, fail)
    assert not [path for path in store.folder.iterdir() if not path.name.endswith(".lock")]


def test_an_engine_that_cannot_be_kept_is_used(
    graph: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    store = EngineStore(graph)
    with monkeypatch.context() as patch:
        patch.setattr(engine_store.os, "fsync", full)
        assert store.get(FACTS, lambda: b"engine") == b"engine"
    assert "cannot be kept" in caplog.text and "No space left" in caplog.text
    assert not [path for path in store.folder.iterdir() if not path.name.endswith(".lock")]
    assert store.get(FACTS, lambda: b"again") == b"again"


def test_two_processes_build_one_engine(graph: Path) -> None:
    processes = [started(graph, 1.0) for _ in range(2)]
    told = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    said = "".join(out for out, _ in told)
    assert said.count("building") == 1
    assert said.count("there") == 2
    assert "waiting for another process" in "".join(err for _, err in told)


def test_a_builder_that_is_killed_is_in_nobodys_way(graph: Path) -> None:
    process = started(graph, 60)
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    store = EngineStore(graph)
    key = next(store.folder.glob(".*.lock")).name.split(".")[1]
    (store.folder / f".{key}.half").mkdir()  # as where it was killed while it wrote
    began = time.monotonic()
    assert store.get({"a": 1}, lambda: b"fresh") == b"fresh"
    assert time.monotonic() - began < 10
    assert [path.name for path in store.folder.iterdir() if path.is_dir()] == [key]


def test_a_model_that_may_not_be_written_to_has_its_engines_in_the_cache(
    graph: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(engine_store.os, "access", lambda *_: False)  # root may write everywhere
    store = EngineStore(graph)
    assert store.folder == tmp_path / "cache" / "unim2" / "engines"
    assert store.get(FACTS, lambda: b"engine") == b"engine"
    assert not (graph.parents[1] / "engines").exists()


def test_a_long_build_says_what_it_is_at(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(engine_store, "TELL_EVERY_S", 0.05)
    with caplog.at_level(logging.WARNING), Telling("building it") as telling:
        telling.phase = "timing 3 of 9"
        deadline = time.monotonic() + 10
        while "timing 3 of 9" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.02)
    assert "building it; this is done once" in caplog.text
    assert "timing 3 of 9" in caplog.text
    assert "done after" in caplog.text
    with pytest.raises(ValueError, match="no"), Telling("building it"):
        raise ValueError("no")
    assert "failed after" in caplog.text
