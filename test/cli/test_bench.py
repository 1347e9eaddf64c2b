"""``unim2 bench``: every engine in one table, each held against the model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import write_bag
from typer.testing import CliRunner

from unim2_core.cli.main import app
from unim2_core.errors import ModelError
from unim2_core.inference import timing, work
from unim2_core.inference.backends import LIBRARIES
from unim2_core.inference.engine import Engine
from unim2_core.inference.fastest import FILE
from unim2_core.model.bundle import NETWORK, Bundle
from unim2_core.showing import bars


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
        if (engine["backend"], engine["precision"]) == ("onnxruntime", "fp32"):
            assert min(engine["backbone_ms"], engine["head_ms"], engine["start_s"]) > 0
            assert engine["parity"]["agreement"] > 0.99
        assert "refused" in engine or engine["parity"]["token_cosine"] > 0.999
        assert engine["backend"] in out
    assert "a float32 matrix product beside it" in out


def test_the_fastest_is_chosen_where_that_is_asked_for(model_path: Path, tmp_path: Path) -> None:
    copy, file = tmp_path / "model.unim2", tmp_path / "bench.json"
    shutil.copytree(model_path, copy)
    assert bench(copy, "--rounds", 1, "--threads", 1)[0] == 0
    assert not (copy / "engines" / FILE).exists()
    status, out, errors = bench(copy, *("--rounds", 2, "--threads", 1, "--choose", "--json", file))
    assert status == 0, errors
    rows = [e for e in json.loads(file.read_text())["engines"] if "refused" not in e]
    exact = [row for row in rows if row["precision"] == "fp32"]
    best = min(exact, key=lambda row: row["backbone_ms"] + row["head_ms"])["backend"]
    assert f"{best} in fp32" in " ".join(out.partition("auto begins with")[2].split())
    assert Engine(Bundle(copy), threads=1).backend == best


def test_the_stages_of_a_bags_frames_and_a_plot(model_path: Path, tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 4)
    file, plot = tmp_path / "bench.json", tmp_path / "bench.png"
    status, out, errors = bench(
        *(model_path, "--rounds", 3, "--threads", 1, "--bag", tmp_path / "drive"),
        *("--json", file, "--plot", plot),
    )
    assert status == 0, errors
    stages = json.loads(file.read_text())["stages_ms"]
    wanted = ["backbone", "decode", "encode", "head", "publish", "register", "sync"]
    assert sorted(stages) == wanted
    assert all(milliseconds > 0 for milliseconds in stages.values())
    assert "publish" in out
    picture = cv2.imread(str(plot))
    assert picture.shape[1] > 500 and picture.std() > 10


def test_two_bars_are_as_long_as_what_they_stand_for() -> None:
    rows = {"one": {"a": 10.0, "b": 0.0}, "other": {"a": 10.0, "b": 10.0}}
    picture = bars.bars_picture(rows, "title", "ms")
    lines = [picture[bars.MARGIN + bars.ROW * (2 + row) + 1] for row in range(2)]
    counts = [[int((line == color).all(1).sum()) for color in bars._COLORS[:2]] for line in lines]
    assert counts == [[bars.LENGTH // 2, 0], [bars.LENGTH // 2, bars.LENGTH // 2]]


def test_the_work_of_a_model_is_that_of_its_matrices(model_path: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from unim2_core.model.backbone import BackboneConfig, DinoV3

    copy = Path(shutil.copytree(model_path, tmp_path / "copy.unim2"))
    bundle = Bundle(copy)
    config = BackboneConfig("small", 64, depth=2, num_heads=2, ffn_dim=128, patch_size=8)
    network = DinoV3(config)
    save_file(network.state_dict(), copy / NETWORK)
    height, width = bundle.manifest.infer_size
    count = len(bundle.manifest.modalities)
    # Written out, as the counter knows no fused attention of the CPU.
    written_out = sdpa_kernel(SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, torch.no_grad(), written_out:
        network(torch.zeros(count, 3, height, width))
    assert work.work_of(bundle).backbone == pytest.approx(1e-9 * counter.get_total_flops())
    (copy / NETWORK).unlink()
    assert work.work_of(bundle).backbone is None


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
        (["absent.unim2", "--rig", "rig.yaml"], 2, "are for --bag"),
        (["absent.unim2", "--plot", "bench.jpg"], 2, ".png"),
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
