"""Written bags are opened by independent readers, and are whole or not there."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bag_samples import (
    CUSTOM,
    KINDS,
    START_NS,
    custom_bag,
    images,
    robot,
    write_kind,
    write_rosbag2,
)
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from unim2_core.errors import BagError
from unim2_core.sensing.bag_messages import (
    Transform,
    camera_info_message,
    compressed_image_message,
    header_message,
    image_message,
    stamp_ns,
    transform_message,
)
from unim2_core.sensing.bag_writer import BagWriter, partial_bag
from unim2_core.sensing.bags import BagMessage, BagReader


def decoded(path: Path) -> list[tuple[str, int, Any]]:
    """Messages as the mcap library and its own ROS 2 decoder see them."""
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        return [
            (found.channel.topic, found.message.log_time, found.decoded_message)
            for found in reader.iter_decoded_messages()
        ]


def write(path: Path, count: int = 5, **options: Any) -> None:
    with BagWriter(path, **options) as writer:
        for topic, message, log_ns in robot(count):
            writer.write(topic, message, log_ns)


@pytest.mark.parametrize("compression", ["zstd", "none"])
def test_single_file_for_the_mcap_library(tmp_path: Path, compression: str) -> None:
    path = tmp_path / "new" / "out.mcap"
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    k = np.array([[300.0, 0, 160], [0, 301, 120], [0, 0, 1]])
    pose = Transform("base", "camera", (1.0, 2.0, 3.0), (0.0, 0.0, 0.6, 0.8))
    with BagWriter(path, compression=compression) as writer:  # type: ignore[arg-type]
        writer.write("/tf_static", transform_message([pose, pose], START_NS), START_NS)
        writer.write("/image", image_message(pixels, "rgb8", START_NS + 7, "camera"), START_NS + 1)
        info = camera_info_message(320, 240, k, [0.1], START_NS + 7, "camera")
        writer.write("/camera_info", info, START_NS + 2)
        jpeg = compressed_image_message(b"\xff\xd8jpeg", "jpeg", START_NS + 7, "camera")
        writer.write("/image/compressed", jpeg, START_NS + 3)
    assert [entry.name for entry in path.parent.iterdir()] == ["out.mcap"]
    (_, _, tf), (_, log_ns, image), (_, _, info), (_, _, jpeg) = decoded(path)
    assert [transform.child_frame_id for transform in tf.transforms] == ["camera", "camera"]
    assert tf.transforms[0].header.frame_id == "base"
    assert tf.transforms[0].transform.translation.z == 3.0
    assert tf.transforms[0].transform.rotation.w == 0.8
    assert log_ns == START_NS + 1
    assert (image.height, image.width, image.encoding, image.step) == (2, 3, "rgb8", 9)
    assert image.header.stamp.sec == START_NS // 10**9
    assert image.header.stamp.nanosec == 7
    assert image.header.frame_id == "camera"
    assert bytes(image.data) == pixels.tobytes()
    assert list(info.k) == k.reshape(-1).tolist()
    assert list(info.p) == [300, 0, 160, 0, 0, 301, 120, 0, 0, 0, 1, 0]
    assert list(info.d) == [0.1, 0, 0, 0, 0]
    assert (info.width, info.height, info.distortion_model) == (320, 240, "plumb_bob")
    assert bytes(jpeg.data) == b"\xff\xd8jpeg"


def test_directory_for_rosbags_and_humble(tmp_path: Path) -> None:
    path = tmp_path / "out"
    write(path)
    assert sorted(entry.name for entry in path.iterdir()) == ["metadata.yaml", "out.mcap"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]
    metadata = yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert metadata["version"] == 8
    assert metadata["relative_file_paths"] == ["out.mcap"]
    qos = {
        entry["topic_metadata"]["name"]: entry["topic_metadata"]["offered_qos_profiles"]
        for entry in metadata["topics_with_message_count"]
    }
    assert all(isinstance(text, str) for text in qos.values())  # a list from version 9 on
    assert yaml.safe_load(qos["/tf_static"])[0]["durability"] == 1
    assert qos["/rgb/image"] == ""
    with AnyReader([path]) as reader:
        assert reader.message_count == 12
        found = [
            (connection.topic, log_ns, reader.deserialize(raw, connection.msgtype))
            for connection, log_ns, raw in reader.messages()
        ]
    assert [(topic, log_ns) for topic, log_ns, _ in found] == [
        (sample.topic, sample.log_ns) for sample in robot(5)
    ]


@pytest.mark.parametrize(
    ("dtype", "encoding"), [(">u2", "16UC1"), ("<u2", "mono16"), (">f4", "32FC1"), ("u1", "mono8")]
)
def test_image_of_any_byte_order_and_stride(dtype: str, encoding: str) -> None:
    array = np.arange(6 * 8).reshape(6, 8).astype(dtype)[::2, ::2]
    message = image_message(array, encoding, 5, "camera")
    assert message.is_bigendian == 0
    little = np.dtype(dtype).newbyteorder("<")
    restored = message.data.view(little).reshape(3, 4)
    np.testing.assert_array_equal(restored, array)
    assert message.step == 4 * array.itemsize


@pytest.mark.parametrize("stamp", [0, 1, 999_999_999, START_NS + 1])
def test_stamps_keep_their_nanoseconds(stamp: int) -> None:
    assert stamp_ns(header_message(stamp, "")) == stamp


@pytest.mark.parametrize("kind", KINDS)
def test_pass_through_keeps_every_byte(tmp_path: Path, kind: str) -> None:
    source = write_kind(kind, tmp_path, robot())
    copy = tmp_path / "copy.mcap"
    with BagReader(source) as reader, BagWriter(copy) as writer:
        for message in reader.messages():
            writer.write_raw(message)
    with BagReader(source) as before, BagReader(copy) as after:
        for one, other in zip(before.messages(), after.messages(), strict=True):
            assert (one.topic, one.type, one.log_ns) == (other.topic, other.type, other.log_ns)
            assert bytes(one.raw) == bytes(other.raw)
        assert after.topics["/rgb/image"].latched is False
        if kind not in {"mcap_lz4", "mcap_unchunked"}:
            assert after.topics["/tf_static"].latched
    assert len(decoded(copy)) == 22


def test_pass_through_of_types_that_nobody_knows(tmp_path: Path) -> None:
    source = custom_bag(tmp_path / "in.mcap")
    copy = tmp_path / "out.mcap"
    with BagReader(source) as reader, BagWriter(copy) as writer:
        for message in reader.messages():
            writer.write_raw(message)
    with BagReader(copy) as reader:
        odd, json, _ = reader.messages()
        assert reader.topics["/odd"].definition == "stored"
    assert odd.channel is not None
    assert json.channel is not None
    assert odd.channel.definition.data == CUSTOM
    assert odd.decode().number == 42
    assert (json.raw, json.channel.encoding) == (b"{}", "json")


def test_raw_message_of_a_standard_type_needs_no_channel(tmp_path: Path) -> None:
    with BagReader(write_rosbag2(tmp_path / "in", images(count=1))) as reader:
        (message,) = reader.messages()
    with BagWriter(tmp_path / "out.mcap") as writer:
        writer.write_raw(BagMessage("/copy", message.type, 5, message.raw))
    ((topic, log_ns, image),) = decoded(tmp_path / "out.mcap")
    assert (topic, log_ns, image.width) == ("/copy", 5, 16)


@pytest.mark.parametrize("name", ["out.mcap", "out"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_bag_has_no_final_name(
    tmp_path: Path, name: str, error: type[BaseException]
) -> None:
    path = tmp_path / name
    with pytest.raises(error), BagWriter(path) as writer:
        for topic, message, log_ns in images(count=30, shape=(300, 400, 3)):
            writer.write(topic, message, log_ns)
        raise error
    assert not path.exists()
    assert [entry.name for entry in tmp_path.iterdir()] == [f"{name}.partial"]
    with BagReader(partial_bag(path)) as reader:
        assert len(list(reader.messages())) == 30
        assert reader.stopped is None
    write(path)
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_what_exists_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "out.mcap"
    path.write_bytes(b"precious")
    with pytest.raises(BagError, match="exists already"):
        BagWriter(path)
    assert path.read_bytes() == b"precious"
    with pytest.raises(BagError, match="a directory"):
        BagWriter(tmp_path)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file may grow past ``size`` bytes: writes fail as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("name", ["out.mcap", "out"])
@pytest.mark.parametrize("size", [0, 100, 2_500_000])
def test_a_full_disk_leaves_nothing(tmp_path: Path, name: str, size: int) -> None:
    path = tmp_path / name
    samples = images(count=30, shape=(300, 400, 3))
    with pytest.raises(BagError) as caught, full_disk(size), BagWriter(path) as writer:
        for topic, message, log_ns in samples:
            writer.write(topic, message, log_ns)
    assert str(path) in caught.value.what
    assert caught.value.found == "File too large"
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_at_the_very_end(tmp_path: Path) -> None:
    path = tmp_path / "out.mcap"
    with pytest.raises(BagError, match="cannot write"), full_disk(2_000):
        write(path)  # all of it fits into one chunk, which is written when the bag is closed
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(BagError, match="cannot write"):
        BagWriter(tmp_path / "file" / "out.mcap")


def test_a_bag_that_rosbags_reads_by_file(tmp_path: Path) -> None:
    write(tmp_path / "out.mcap")
    with Reader(tmp_path / "out.mcap") as reader:
        assert reader.message_count == 12
        assert {connection.topic for connection in reader.connections} == {
            sample.topic for sample in robot(1)
        }
