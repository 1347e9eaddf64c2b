"""What the log books hold afterwards, also of a training that went on."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")
pytest.importorskip("lightning_fabric", reason="not installed: pip install 'unim2[train]'")

import numpy as np
from training_samples import TRAINING, batches, objective

from unim2_core.errors import Unim2Error
from unim2_core.learning.observers import History, open_observers, read_history
from unim2_core.learning.trainer import train

torch.set_num_threads(1)


def picture(_model: object) -> dict[str, np.ndarray]:
    return {"labels/first": np.full((6, 8, 3), 77, np.uint8)}


def train_with(run: Path, **options: object) -> None:
    """A training that stops before its eighth step, and goes on."""

    def stopping(step: int):
        if step == 7:
            raise KeyboardInterrupt
        return batches(step)

    for given in (stopping, batches):
        try:
            train(
                objective(),
                given,
                TRAINING,
                run,
                observers=open_observers(run, **options),
                pictures=picture,
                validate=lambda model: {"val/miou": 0.5},
            )
        except KeyboardInterrupt:
            continue


def test_history_is_that_of_one_training(tmp_path: Path) -> None:
    train_with(tmp_path)
    lines = read_history(tmp_path / "history.jsonl")
    scalars = {line["step"]: line["scalars"] for line in lines if "scalars" in line}
    assert list(scalars) == [2, 4, 6, 8, 10, 12]
    assert scalars[12]["val/miou"] == 0.5 and "loss/own/thermal" in scalars[2]
    histograms = {line["histogram"]: line for line in lines if "histogram" in line}
    clusters = histograms["clusters/assigned"]
    assert sum(clusters["counts"]) == 4 * 16 and len(clusters["edges"]) == 21


def test_history_survives_a_half_line_and_numbers_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1, "scalars": {}}\n{"step": 5, "scalars": {}}\n{"step": 6, "sc')
    history = History(path)
    history.start({}, 3)
    history.scalars(4, {"a": float("nan"), "b": 1.5})
    history.histogram(4, "nothing", np.full(3, np.nan, np.float32))
    history.close("failed")
    history.close("failed")
    assert [line["step"] for line in read_history(path)] == [1, 4, 4]
    assert json.loads(path.read_text().splitlines()[1])["scalars"] == {"a": None, "b": 1.5}


@pytest.mark.parametrize("content", ["hello\n", "[]\n", '{"scalars": {}}\n', "1\n"])
def test_a_file_that_is_no_history_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text(content)
    with pytest.raises(Unim2Error, match="line 1"):
        History(path).start({}, 0)
    assert path.read_text() == content


def test_tensorboard_shows_each_step_once(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train_with(tmp_path, tensorboard=True)
    found = events.EventAccumulator(str(tmp_path / "tensorboard"), {"images": 0, "histograms": 0})
    found.Reload()
    assert [event.step for event in found.Scalars("loss/random/thermal")] == [2, 4, 6, 8, 10, 12]
    assert [event.value for event in found.Scalars("val/miou")] == [0.5]
    (image,) = found.Images("labels/first")
    assert (image.step, image.width, image.height) == (12, 8, 6)
    assert "correspondence/knn/code/rgb" in found.Tags()["histograms"]
    (settings,) = found.Tensors("settings/text_summary")
    assert b"trainer.rate | 0.01" in settings.tensor_proto.string_val[0]


def payload(path: Path) -> bytes:
    """What a W&B file holds, put together again: it is cut into blocks wherever they end.

    The format is LevelDB's log: after 7 bytes of the file's own, blocks of 32 KiB of records, each
    with a checksum (4 bytes), its length (2, little endian) and its type (1).
    """
    content, place, found = path.read_bytes(), 7, b""
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:  # no room for another record in this block
            place += left
            continue
        length = int.from_bytes(content[place + 4 : place + 6], "little")
        found += content[place + 7 : place + 7 + length]
        place += 7 + length
    return found


def test_weights_and_biases_offline_is_one_run(tmp_path: Path, monkeypatch) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    train_with(tmp_path, wandb="offline")
    wandb.teardown()  # W&B's own process writes a run's last blocks after the run has finished
    identity = (tmp_path / "wandb-id").read_text()
    runs = sorted((tmp_path / "wandb").glob("offline-run-*"))
    assert runs and all(identity in run.name for run in runs)
    content = b"".join(payload(path) for run in runs for path in run.glob("*.wandb"))
    for name in (b"loss/random/thermal", b"val/miou", b"clusters/assigned", b"trainer.rate"):
        assert name in content
    assert list(tmp_path.rglob("labels/first*.png")) or list(tmp_path.rglob("first*.png"))


def test_nobody_logged_in_is_said(tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("NETRC", str(tmp_path / "nothing"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    with pytest.raises(Unim2Error, match=r"wandb login(.|\n)*offline"):
        train(
            objective(),
            batches,
            TRAINING,
            tmp_path / "run",
            observers=open_observers(tmp_path / "run", wandb="online"),
        )
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left <= {"history.jsonl", "wandb-id", "wandb"}, os.listdir(tmp_path / "run")


def test_a_log_book_that_is_not_installed_is_named(tmp_path: Path, monkeypatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "unim2_core.learning.observers_wandb", None)
    with pytest.raises(Unim2Error, match=r"pip install 'unim2\[train\]'"):
        open_observers(tmp_path, wandb="offline")
    assert len(open_observers(tmp_path)) == 1 and not list(tmp_path.iterdir())
