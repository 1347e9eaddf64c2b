"""Reload, roll back, pause and snapshot, by the services of a node in a process of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")
services = pytest.importorskip(
    "std_srvs.srv", reason="std_srvs is not installed: pip install 'unim2[ros]'"
)

from live_node import talking
from sensor_msgs.msg import Image

from unim2_core.model.bundle import MANIFEST, Bundle
from unim2_core.sensing.bags import BagReader

pytestmark = pytest.mark.ros
DOMAIN = 68
Trigger, SetBool = services.Trigger, services.SetBool


def _with_classes_reversed(source: Path, out: Path, *, graphs_touched: bool = False) -> str:
    """The same model whose class ids are in the opposite order; returns its version.

    With ``graphs_touched`` its manifest names another size, so that it has to be loaded whole.
    """
    bundle = Bundle(source)
    weights = bundle.weights()
    weights["prototypes"] = np.ascontiguousarray(weights["prototypes"][::-1])
    parity = bundle.parity()
    classes = parity["classes"]
    parity["classes"] = np.where(classes == 255, 255, len(weights["valid"]) - 1 - classes).astype(
        classes.dtype
    )

    def fill(folder: Path) -> tuple[Any, Any]:
        for file in bundle.manifest.files:
            if file.startswith("onnx/"):
                shutil.copy(source / file, folder / file)
        changes = {"name": "reversed", "parent": bundle.sha256, "files": {}}
        if graphs_touched:
            changes["backbone"] = bundle.manifest.backbone.model_copy(update={"sha256": "other"})
        return bundle.manifest.model_copy(update=changes), parity

    return Bundle.write(out, fill, weights, overwrite=True).version


@pytest.fixture
def model(model_path: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(model_path, tmp_path / "scene.unim2"))


def _last_mask(masks: list[Any]) -> np.ndarray:
    return np.frombuffer(masks[-1].data, np.uint8)


def _labels_of(talker: Any, masks: list[Any]) -> np.ndarray:
    """The mask of the next image, always the same one."""
    masks.clear()
    talker._sent = 0

    def send() -> None:
        talker._sent = 0
        talker.send()

    assert talker.until(lambda: len(masks) >= 3, send)
    return _last_mask(masks)


@pytest.mark.parametrize("whole", [False, True], ids=["weights", "whole"])
def test_reload_and_roll_back(model: Path, tmp_path: Path, whole: bool) -> None:
    first = Bundle(model).version
    with talking(tmp_path, DOMAIN, f"model:={model}") as talker:
        masks = talker.listen("/segment/segmentation", Image)
        before = _labels_of(talker, masks)
        answer = talker.call(Trigger, "reload_model")
        assert answer.success
        assert answer.message == f"version {first} runs already"
        assert not talker.call(Trigger, "roll_back").success

        second = _with_classes_reversed(model, model, graphs_touched=whole)
        answer = talker.call(Trigger, "reload_model")
        assert answer.success, answer.message
        assert talker.until(lambda: talker.version() == second), answer.message
        after = _labels_of(talker, masks)
        np.testing.assert_array_equal(after[before != 255], 3 - before[before != 255])

        answer = talker.call(Trigger, "roll_back")
        assert answer.success
        assert answer.message == f"back at version {first}"
        np.testing.assert_array_equal(_labels_of(talker, masks), before)


def test_a_model_that_is_damaged_or_gone_is_not_taken_and_the_old_one_goes_on(
    model: Path, tmp_path: Path
) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model}", "watch_model:=0.2") as talker:
        masks = talker.listen("/segment/segmentation", Image)
        before = _labels_of(talker, masks)
        good = (model / MANIFEST).read_text()
        (model / MANIFEST).write_text(good.replace('"format": 1', '"format": 7'))
        talker.says("the model was not replaced")
        np.testing.assert_array_equal(_labels_of(talker, masks), before)
        (model / MANIFEST).unlink()
        talker.says("there is no bundle")
        np.testing.assert_array_equal(_labels_of(talker, masks), before)
        (model / MANIFEST).write_text(good)
        talker.says("segmenting", step=talker.send)

        second = _with_classes_reversed(model, model)
        assert talker.until(lambda: talker.version() == second), (
            "a bundle that was replaced is taken without being asked"
        )


def test_another_model_by_parameter(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.unim2"
    second = _with_classes_reversed(model, other, graphs_touched=True)
    with talking(tmp_path, DOMAIN, f"model:={model}") as talker:
        masks = talker.listen("/segment/segmentation", Image)
        before = _labels_of(talker, masks)
        refused = talker.set_parameter("model", str(tmp_path / "none.unim2"))
        assert not refused.successful
        assert "no model bundle at" in refused.reason
        assert talker.set_parameter("model", str(other)).successful
        assert talker.until(lambda: talker.version() == second)
        after = _labels_of(talker, masks)
        np.testing.assert_array_equal(after[before != 255], 3 - before[before != 255])


def test_pause(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}") as talker:
        masks = talker.listen("/segment/segmentation", Image)
        assert talker.until(lambda: len(masks) >= 2, talker.send)
        assert talker.call(SetBool, "pause", data=True).message == "paused"
        entry = talker.says("paused: nothing is segmented", step=talker.send)
        assert entry.level == b"\0"
        published = talker.counts()["published"]
        assert talker.until(lambda: talker.counts().get("paused", 0) >= 3, talker.send)
        assert talker.counts()["published"] == published
        assert talker.call(SetBool, "pause", data=False).success
        assert talker.until(lambda: talker.counts()["published"] > published, talker.send)


def test_snapshot_is_a_bag_of_the_last_seconds(model_path: Path, tmp_path: Path) -> None:
    settings = (f"model:={model_path}", "snapshot_s:=60.0", f"snapshot_dir:={tmp_path / 'shots'}")
    with talking(tmp_path, DOMAIN, *settings) as talker:
        answer = talker.call(Trigger, "save_snapshot")
        assert not answer.success
        assert "no message has come in" in answer.message
        masks = talker.listen("/segment/segmentation", Image)
        assert talker.until(lambda: len(masks) >= 3, talker.send)
        answer = talker.call(Trigger, "save_snapshot")
        assert answer.success
        assert talker.until(lambda: any((tmp_path / "shots").glob("snapshot_*/*.mcap")))
    [bag] = (tmp_path / "shots").glob("snapshot_*")
    with BagReader(bag) as reader:
        counts = {name: topic.count for name, topic in reader.topics.items()}
        first = next(m for m in reader.messages(["/rgb/image"])).decode()
    assert counts["/rgb/image"] >= 3
    assert counts["/thermal/image"] >= 3
    assert counts["/segment/segmentation"] >= 2
    assert (first.encoding, first.header.frame_id) == ("rgb8", "rgb_optical_frame")


def test_snapshots_are_opt_in(model_path: Path, tmp_path: Path) -> None:
    with talking(tmp_path, DOMAIN, f"model:={model_path}") as talker:
        answer = talker.call(Trigger, "save_snapshot")
        assert not answer.success
        assert "set the parameter snapshot_s" in answer.message
