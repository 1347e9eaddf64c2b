"""Reports as ``unim2 report`` writes them."""

from __future__ import annotations

import json
from pathlib import Path

from scenes import write_bag
from typer.testing import CliRunner

from unim2_core.cli.main import app
from unim2_core.model.bundle import Bundle

ROWS = 'script>alert("x")</script'
"""A class that is called like a script, without the brackets around it."""


def report(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["report", *map(str, arguments)])
    return done.exit_code, done.output


def written(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def figures(version: str, name: str = "road") -> dict:
    row = {"mean_iou": 0.5, "accuracy": 0.75, "coverage": 1.0}
    return {
        "protocol": {"name": "full"},
        "engine": {"backend": "onnxruntime", "precision": "fp32"},
        "data": {"name": "field.yaml", "split": "test", "fingerprint": "abc"},
        "modalities": {"used": ["rgb"]},
        "model": {"version": version},
        "pictures": 3,
        "labels": "Labels only report.",
        "figures": row
        | {
            "classes": [
                {"name": name, "iou": 0.25, "pixels": 30, "cluster": "cluster 1"},
                {"name": "sky", "iou": 0.75, "pixels": 10, "cluster": None},
            ],
            "confusion": {"names": [name, "sky"], "pixels": [[15, 2], [15, 8]]},
        },
        "each_missing": {"none left out": row, "without thermal": row | {"mean_iou": 0.3}},
    }


def whole_report(model: Path, folder: Path) -> Path:
    """A report of everything, where a class is called like a script."""
    version = Bundle(model).version
    write_bag(folder / "drive", 4)
    run = folder / "run"
    run.mkdir()
    curves = {"loss/own/rgb": 0.5, "loss/own": 0.5, "loss/total": 0.25, "val/miou": 0.2}
    lines = [{"step": step, "scalars": curves} for step in (1, 2)]
    (run / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    latency = {"backbone": {"p50": 12.5, "p95": 20.0}, "decode": {"p50": 1.5, "p95": 2.0}}
    segment = {"latency_ms": latency, "used": {"rgb": 4}, "frames": 4, "missing": {}}
    trials = [{"number": 0, "score": 0.5}, {"number": 1, "score": None}]
    out = folder / "report.html"
    status, output = report(
        *(model, "--run", run, "--bag", folder / "drive", "--frames", 3, "--out", out),
        *("--figures", written(folder / "e.json", figures(version, f"<{ROWS}>"))),
        *("--figures", written(folder / "s.json", segment)),
        *("--figures", written(folder / "t.json", {"trials": trials, "basis": "without labels"})),
    )
    assert status == 0, output
    return out
