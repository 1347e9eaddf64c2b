from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from scenes import HEIGHT, PERIOD_NS, START_NS, WIDTH, rgb_image, write_bag

from unim2_core.errors import BagError, DecodeError, RigError
from unim2_core.inference.bag_segmenter import BagSegmenter, SegmentReport
from unim2_core.inference.earlier_run import OUTPUTS
from unim2_core.inference.pipeline import Pipeline
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.bag_messages import image_message, stamp_ns
from unim2_core.sensing.bag_writer import BagWriter, partial_bag
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.rig import Rig

RIG = Rig.parse(
    {
        "sensors": {
            "rgb": {"topic": "/rgb/image"},
            "thermal": {"topic": "/thermal/image", "thermal": {"conversion": "centikelvin"}},
        }
    }
)


@pytest.fixture(scope="module")
def pipeline(model_path: Path) -> Pipeline:
    return Pipeline(Bundle(model_path), RIG, "onnxruntime")


def _segment(
    pipeline: Pipeline,
    bag: Path,
    out: Path,
    *,
    keep: bool = False,
    interrupt_at: int = 0,
    half: bool = False,
) -> SegmentReport:
    def progress(done: int) -> None:
        if done == interrupt_at:
            raise KeyboardInterrupt

    fresh = Pipeline(pipeline.bundle, RIG, "onnxruntime", half_auxiliaries=half)
    with BagReader(bag) as reader:
        return BagSegmenter(fresh, keep=keep).run(reader, out, progress)


def _read(path: Path) -> dict[str, list[tuple[int, object]]]:
    """Topic -> (log time, message), by a reader that is not ours."""
    files = sorted(path.glob("*.mcap")) if path.is_dir() else [path]
    found = defaultdict(list)
    for file in files:
        with file.open("rb") as stream:
            reader = make_reader(stream, decoder_factories=[DecoderFactory()])
            for _, channel, record, message in reader.iter_decoded_messages():
                found[channel.topic].append((record.log_time, message))
    return found


@pytest.mark.parametrize("name", ["out.mcap", "out"])
def test_one_output_for_each_reference_image_with_its_header(
    pipeline: Pipeline, tmp_path: Path, name: str
) -> None:
    stamps = write_bag(tmp_path / "drive", 8)
    report = _segment(pipeline, tmp_path / "drive", tmp_path / name)
    assert report.frames == 8
    assert report.used == {"rgb": 8, "thermal": 8}
    found = _read(tmp_path / name)
    assert set(found) == set(OUTPUTS)
    for topic in OUTPUTS:
        assert [stamp_ns(message.header) for _, message in found[topic]] == stamps
        assert {message.header.frame_id for _, message in found[topic]} == {"rgb_optical_frame"}
    first = found["/segment/segmentation"][0][1]
    assert (first.height, first.width, first.encoding) == (HEIGHT, WIDTH, "mono8")
    assert set(np.unique(np.frombuffer(first.data, np.uint8))) <= set(range(4))


def test_kept_messages_are_the_input(pipeline: Pipeline, tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 4)
    _segment(pipeline, tmp_path / "drive", tmp_path / "out.mcap", keep=True)
    found = _read(tmp_path / "out.mcap")
    original = _read(tmp_path / "drive")
    for topic in original:
        assert [time for time, _ in found[topic]] == [time for time, _ in original[topic]]
        assert [m.data for _, m in found[topic]] == [m.data for _, m in original[topic]]
    assert len(found["/segment/overlay"]) == 4


def test_a_sensor_that_stops_is_missing_not_fatal(pipeline: Pipeline, tmp_path: Path) -> None:
    with BagWriter(tmp_path / "drive") as writer:
        for index in range(6):
            stamp = START_NS + index * PERIOD_NS
            writer.write("/rgb/image", image_message(rgb_image(index), "rgb8", stamp, "c"), stamp)
    report = _segment(pipeline, tmp_path / "drive", tmp_path / "out.mcap")
    assert report.frames == 6
    assert report.used == {"rgb": 6}
    assert sum(report.missing.values()) == 6


@pytest.mark.parametrize("interrupt_at", [1, 7, 13])
def test_a_resumed_run_equals_an_unbroken_one(
    pipeline: Pipeline, tmp_path: Path, interrupt_at: int
) -> None:
    write_bag(tmp_path / "drive", 8)
    _segment(pipeline, tmp_path / "drive", tmp_path / "whole.mcap")
    out = tmp_path / "out.mcap"
    with pytest.raises(KeyboardInterrupt):
        _segment(pipeline, tmp_path / "drive", out, interrupt_at=interrupt_at)
    assert not out.exists()
    report = _segment(pipeline, tmp_path / "drive", out)
    assert report.frames == 8
    assert report.resumed == max(0, (interrupt_at - 1) // 2)
    whole, resumed = _read(tmp_path / "whole.mcap"), _read(out)
    for topic in OUTPUTS:
        assert [(t, m.data) for t, m in whole[topic]] == [(t, m.data) for t, m in resumed[topic]]
    assert {path.name for path in tmp_path.iterdir()} == {"drive", "whole.mcap", "out.mcap"}


def test_a_run_with_other_settings_takes_nothing_over(pipeline: Pipeline, tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 8)
    out = tmp_path / "out.mcap"
    with pytest.raises(KeyboardInterrupt):
        _segment(pipeline, tmp_path / "drive", out, interrupt_at=9)
    assert _segment(pipeline, tmp_path / "drive", out, half=True).resumed == 0


def test_a_run_interrupted_twice_keeps_what_the_longer_one_had(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    write_bag(tmp_path / "drive", 8)
    out = tmp_path / "out.mcap"
    for moment in (13, 5):
        with pytest.raises(KeyboardInterrupt):
            _segment(pipeline, tmp_path / "drive", out, interrupt_at=moment)
    assert _segment(pipeline, tmp_path / "drive", out).resumed == 6


def test_what_another_model_left_is_not_taken_over(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bag(tmp_path / "drive", 6)
    out = tmp_path / "out.mcap"
    monkeypatch.setattr(pipeline.bundle, "sha256", "another")
    with pytest.raises(KeyboardInterrupt):
        _segment(pipeline, tmp_path / "drive", out, interrupt_at=9)
    monkeypatch.undo()
    assert _segment(pipeline, tmp_path / "drive", out).resumed == 0


def test_what_another_drive_left_is_not_taken_over(pipeline: Pipeline, tmp_path: Path) -> None:
    for name, first in (("one", 0), ("other", 1)):
        with BagWriter(tmp_path / name) as writer:
            for index in range(6):
                stamp = START_NS + index * PERIOD_NS
                message = image_message(rgb_image(first + index), "rgb8", stamp, "c")
                writer.write("/rgb/image", message, stamp)
    out = tmp_path / "out.mcap"
    with pytest.raises(KeyboardInterrupt):
        _segment(pipeline, tmp_path / "one", out, interrupt_at=5)
    assert _segment(pipeline, tmp_path / "other", out).resumed == 0


def test_a_damaged_bag_is_segmented_up_to_the_damage(pipeline: Pipeline, tmp_path: Path) -> None:
    stamps = write_bag(tmp_path / "drive.mcap", 200)
    content = (tmp_path / "drive.mcap").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(content[: int(len(content) * 0.6)])
    report = _segment(pipeline, tmp_path / "cut.mcap", tmp_path / "out.mcap")
    assert report.stopped
    assert 0 < report.frames < 200
    written = [stamp_ns(m.header) for _, m in _read(tmp_path / "out.mcap")[OUTPUTS[0]]]
    assert written == stamps[: report.frames]


def test_images_without_stamps_name_the_way_out(pipeline: Pipeline, tmp_path: Path) -> None:
    with BagWriter(tmp_path / "drive") as writer:
        for index in range(3):
            message = image_message(rgb_image(index), "rgb8", 0, "c")
            writer.write("/rgb/image", message, START_NS + index * PERIOD_NS)
    with pytest.raises(RigError, match=r"3 images with stamp zero.*\n.*stamp: arrival"):
        _segment(pipeline, tmp_path / "drive", tmp_path / "out.mcap")
    assert not (tmp_path / "out.mcap").exists()


def test_reference_images_that_cannot_be_decoded_are_counted(
    pipeline: Pipeline, tmp_path: Path
) -> None:
    def write(path: Path, broken: set[int]) -> None:
        with BagWriter(path) as writer:
            for index in range(4):
                stamp = START_NS + index * PERIOD_NS
                message = image_message(rgb_image(index), "rgb8", stamp, "c")
                if index in broken:
                    message.encoding = "rgb9"
                writer.write("/rgb/image", message, stamp)

    write(tmp_path / "some", {1})
    report = _segment(pipeline, tmp_path / "some", tmp_path / "out.mcap")
    assert report.frames == 3
    assert list(report.undecodable.values()) == [1]
    write(tmp_path / "all", {0, 1, 2, 3})
    with pytest.raises(DecodeError, match="rgb9"):
        _segment(pipeline, tmp_path / "all", tmp_path / "none.mcap")
    assert not (tmp_path / "none.mcap").exists()


def test_an_output_is_never_overwritten(pipeline: Pipeline, tmp_path: Path) -> None:
    write_bag(tmp_path / "drive", 2)
    (tmp_path / "out.mcap").write_bytes(b"precious")
    with pytest.raises(BagError, match="exists"):
        _segment(pipeline, tmp_path / "drive", tmp_path / "out.mcap")
    assert (tmp_path / "out.mcap").read_bytes() == b"precious"
    assert not partial_bag(tmp_path / "out.mcap").exists()
