"""``unim2 bench``: every engine in one table, each held against the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from unim2_core.cli.main import app
from unim2_core.errors import ModelError
from unim2_core.inference import timing
from unim2_core.inference.backends import LIBRARIES


def bench(*arguments: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["bench", *map(str, arguments)])
    return done.exit_code, done.stdout, done.stderr


def test_every_backend_and_precision_has_a_row(model_path: Path, tmp_path: Path) -> None:
    file = tmp_path / "bench.json"
    status, out, _ = bench(model_path, "--rounds", 2, "--threads", 1, "--json", file)
    assert status == 0
    content = json.loads(file.read_text())
    rows = [(engine["backend"], engine["precision"]) for engine in content["engines"]]
    assert rows == [(name, p) for name, library in LIBRARIES.items() for p in library.precisions]
    assert content["cores"] == 1 and content["matrix_gflops"] > 0
    for engine in content["engines"]:
        if engine["backend"] == "onnxruntime":
            assert min(engine["backbone_ms"], engine["head_ms"], engine["start_s"]) > 0
            assert engine["parity"]["agreement"] > 0.99
        assert "refused" in engine or engine["parity"]["token_cosine"] > 0.999
        assert engine["backend"] in out
    assert "a float32 matrix product beside it" in out


def test_where_nothing_can_run_it_says_why_and_fails(
    model_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise ModelError("it is broken", found="a stone")

    monkeypatch.setattr(timing, "Engine", refuse)
    file = tmp_path / "bench.json"
    status, out, errors = bench(model_path, "--json", file)
    assert status == 1
    assert "onnxruntime fp32: it is broken; found a stone" in out
    assert "no engine can run" in errors
    assert all("refused" in engine for engine in json.loads(file.read_text())["engines"])


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["absent.unim2"], 1, "cannot open the model absent.unim2"),
        (["absent.unim2", "--rounds", "0"], 2, "rounds"),
        (["absent.unim2", "--threads", "-1"], 2, "threads"),
    ],
)
def test_bad_usage_is_explained(arguments: list[str], status: int, said: str) -> None:
    found, _, errors = bench(*arguments)
    assert found == status
    assert said in errors


def test_the_measure_of_the_machine_is_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "SIDE", 64)
    ticks = iter(np.arange(0, 10, 0.5))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(ticks)))
    assert timing.matrix_gflops(3) == pytest.approx(2e-9 * 64**3 / 0.5)
