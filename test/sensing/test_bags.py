"""Bags of every kind come out as the same messages, in the order of their log time."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import apsw
import numpy as np
import pytest
from bag_samples import (
    CUSTOM,
    KINDS,
    START_NS,
    TYPES,
    Sample,
    custom_bag,
    images,
    robot,
    write_kind,
    write_mcap,
    write_ros1,
    write_rosbag2,
    write_split,
)
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from unim2_core.errors import BagError, DecodeError
from unim2_core.sensing.bag_messages import stamp_ns
from unim2_core.sensing.bags import BagMessage, BagReader


def read(path: Path, **options: object) -> list[BagMessage]:
    with BagReader(path) as reader:
        found = list(reader.messages(**options))  # type: ignore[arg-type]
        assert reader.stopped is None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_say_the_same(tmp_path: Path, kind: str) -> None:
    samples = robot()
    path = write_kind(kind, tmp_path, samples)
    with BagReader(path) as reader:
        assert {name: topic.count for name, topic in reader.topics.items()} == {
            "/depth/image": 10,
            "/rgb/camera_info": 1,
            "/rgb/image": 10,
            "/tf_static": 1,
        }
        assert {topic.definition for topic in reader.topics.values()} == {"standard"}
        assert reader.topics["/rgb/image"].type == "sensor_msgs/msg/Image"
        assert reader.message_count == len(samples)
        assert (reader.start_ns, reader.end_ns) == (samples[0].log_ns, samples[-1].log_ns)
        found = list(reader.messages())
        assert reader.stopped is None
    assert [(message.topic, message.log_ns) for message in found] == [
        (sample.topic, sample.log_ns) for sample in samples
    ]
    for message, sample in zip(found, samples, strict=True):
        raw = TYPES.serialize_cdr(sample.message, sample.message.__msgtype__)
        assert bytes(message.raw) == bytes(raw)
        assert message.type == sample.message.__msgtype__
    image = next(message for message in found if message.topic == "/depth/image").decode()
    expected = images(shape=(12, 16), dtype=np.uint16, low=500, high=5000)[0].message
    assert (image.encoding, image.height, image.width, image.step) == ("16UC1", 12, 16, 32)
    assert image.header.frame_id == "depth_optical"
    assert stamp_ns(image.header) == START_NS + 3_000_000
    np.testing.assert_array_equal(image.data, expected.data)
    info = next(message for message in found if "camera_info" in message.topic).decode()
    np.testing.assert_array_equal(info.d, [0.1, -0.05, 0, 0, 0])
    assert info.k[0] == 20
    with BagReader(path) as reader:
        latched = {name for name, topic in reader.topics.items() if topic.latched}
    # The metadata of a packed file are all that is known before it is unpacked.
    plain = "file_zstd" not in kind and kind not in {"mcap_lz4", "mcap_unchunked"}
    assert latched == ({"/tf_static"} if plain else set())


@pytest.mark.parametrize("kind", KINDS)
def test_topics_and_start(tmp_path: Path, kind: str) -> None:
    path = write_kind(kind, tmp_path, robot())
    late_ns = START_NS + 450_000_000
    found = read(path, topics={"/rgb/image"}, start_ns=late_ns)
    assert [message.log_ns for message in found] == [
        START_NS + index * 100_000_000 + 5_000_000 for index in range(5, 10)
    ]
    assert {message.topic for message in found} == {"/rgb/image"}
    assert read(path, topics=[]) == []
    assert read(path, topics=["/nothing"]) == []


@pytest.mark.parametrize("kind", ["mcap", "mcap_lz4", "mcap_unchunked", "db3", "ros1"])
def test_order_is_that_of_log_times(tmp_path: Path, kind: str) -> None:
    ordered = images(count=40, shape=(40, 40, 3))
    shuffled = [ordered[index] for index in np.random.default_rng(3).permutation(40)]
    found = read(write_kind(kind, tmp_path, shuffled))
    assert [message.log_ns for message in found] == [sample.log_ns for sample in ordered]


def test_several_bags_are_one_stream(tmp_path: Path) -> None:
    rgb = write_ros1(tmp_path / "rgb.bag", images("/rgb/image", 5))
    nir = write_mcap(tmp_path / "nir.mcap", images("/nir/image", 5, offset_ns=50_000_000))
    with BagReader([rgb, nir]) as reader:
        assert [message.topic for message in reader.messages()] == ["/rgb/image", "/nir/image"] * 5
        assert reader.message_count == 10


@pytest.mark.parametrize("kind", ["mcap_split", "db3_split", "mcap_split_file_zstd"])
def test_a_directory_without_metadata_is_read_all_the_same(tmp_path: Path, kind: str) -> None:
    path = write_kind(kind, tmp_path, robot())
    (path / "metadata.yaml").unlink()
    with BagReader(path) as reader:
        assert len(list(reader.messages())) == 22
        assert reader.stopped is None
        assert "ros2 bag reindex" in reader.notes[0]


@pytest.mark.parametrize(
    "text", ["{", "[]", "rosbag2_bagfile_information: {version: 5}", "", "\x00"]
)
def test_useless_metadata_are_noted(tmp_path: Path, text: str) -> None:
    path = write_rosbag2(tmp_path / "drive", robot())
    (path / "metadata.yaml").write_text(text)
    with BagReader(path) as reader:
        assert reader.message_count == 22
        assert "metadata.yaml" in reader.notes[0]


def test_files_that_were_renamed(tmp_path: Path) -> None:
    path = write_rosbag2(tmp_path / "drive", robot())
    (path / "drive.mcap").rename(path / "monday.mcap")
    with BagReader(path) as reader:
        assert len(list(reader.messages())) == 22
        assert "names no file that is there" in reader.notes[0]


def test_a_directory_of_ros1_bags(tmp_path: Path) -> None:
    samples = robot()
    write_ros1(tmp_path / "drive_0.bag", samples[:11])
    write_ros1(tmp_path / "drive_1.bag", samples[11:])
    # As rosbag calls the part that it is writing.
    (tmp_path / "drive_1.bag").rename(tmp_path / "drive_1.bag.active")
    with BagReader(tmp_path) as reader:
        assert [message.log_ns for message in reader.messages()] == [s.log_ns for s in samples]
        assert reader.notes == []


def test_a_missing_part_of_a_split_bag_is_named(tmp_path: Path) -> None:
    path = write_split(tmp_path / "drive", robot())
    (path / "drive_0.mcap").unlink()
    with BagReader(path) as reader:
        assert reader.message_count == 11
        assert len(list(reader.messages())) == 11
        assert reader.stopped is not None
        assert "drive_0.mcap" in reader.stopped


def test_a_type_that_only_the_bag_knows(tmp_path: Path) -> None:
    with BagReader(custom_bag(tmp_path / "drive.mcap")) as reader:
        assert reader.topics["/odd"].definition == "stored"
        assert reader.topics["/json"].definition == "missing"
        odd, json, image = reader.messages()
    assert odd.decode().number == 42
    assert odd.channel is not None
    assert odd.channel.definition.data == CUSTOM
    with pytest.raises(BagError, match="serialised as json"):
        json.decode()
    assert image.decode().encoding == "rgb8"


def test_a_type_that_nobody_knows_passes_through(tmp_path: Path) -> None:
    path = custom_bag(tmp_path / "drive.mcap", definition="int32 number\nrobot_msgs/Lost lost\n")
    with BagReader(path) as reader:
        assert reader.topics["/odd"].definition == "missing"
        odd, _, image = reader.messages()
    assert len(odd.raw) > 20
    with pytest.raises(BagError, match="robot_msgs/msg/Odd cannot be decoded"):
        odd.decode()
    assert image.decode().width == 16


def test_a_definition_in_the_bag_goes_before_the_standard_one(tmp_path: Path) -> None:
    name = "geometry_msgs/msg/Point"
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg("float32 x\nfloat32 y\n", name))
    writer = Writer(tmp_path / "drive", version=8)
    with writer:
        connection = writer.add_connection("/point", name, typestore=store)
        message = store.types[name](1.5, 2.5)
        writer.write(connection, 1, store.serialize_cdr(message, name))
    (point,) = read(tmp_path / "drive")
    assert (point.decode().x, point.decode().y) == (1.5, 2.5)


def test_ros1_type_that_ros2_does_not_have(tmp_path: Path) -> None:
    from rosbags.rosbag1 import Writer as Ros1Writer

    name = "robot_msgs/msg/Odd"
    text = (
        "Header header\nint32 number\ntime when\n"
        + "=" * 80
        + ("\nMSG: std_msgs/Header\nuint32 seq\ntime stamp\nstring frame_id\n")
    )
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(text, name))
    time = store.types["builtin_interfaces/msg/Time"]
    message = store.types[name](
        store.types["std_msgs/msg/Header"](9, time(1, 2), "base"), 42, time(3, 4)
    )
    with Ros1Writer(tmp_path / "drive.bag") as writer:
        connection = writer.add_connection("/odd", name, typestore=store)
        writer.write(connection, 5, store.serialize_ros1(message, name))
    with BagReader(tmp_path / "drive.bag") as reader:
        assert reader.topics["/odd"].definition == "stored"
        (odd,) = reader.messages()
    decoded = odd.decode()
    assert (decoded.number, decoded.when.sec, decoded.header.frame_id) == (42, 3, "base")
    assert not hasattr(decoded.header, "seq")


def test_bytes_that_do_not_fit_the_type() -> None:
    message = BagMessage("/rgb/image", "sensor_msgs/msg/Image", 0, b"\0\1\0\0short")
    with pytest.raises(DecodeError, match="/rgb/image cannot be decoded"):
        message.decode()


def test_decoded_images_are_views(tmp_path: Path) -> None:
    (message,) = read(write_rosbag2(tmp_path / "drive", images(count=1)))
    assert np.shares_memory(message.decode().data, np.frombuffer(message.raw, np.uint8))


@pytest.mark.parametrize("kind", ["mcap", "mcap_lz4", "mcap_unchunked", "db3", "ros1_lz4"])
def test_memory_does_not_grow_with_the_bag(tmp_path: Path, kind: str) -> None:
    def peak(count: int) -> int:
        (tmp_path / str(count)).mkdir()
        samples = images(count=count, shape=(200, 250, 3))
        path = write_kind(kind, tmp_path / str(count), samples)
        read_bytes(path)  # caches of types are filled once
        apsw.memory_high_water(reset=True)
        before = apsw.memory_used()
        tracemalloc.start()
        assert read_bytes(path) > count * 150_000
        _, traced = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return traced + apsw.memory_high_water() - before

    def read_bytes(path: Path) -> int:
        with BagReader(path) as reader:
            return sum(len(message.raw) for message in reader.messages())

    short, long = peak(15), peak(150)
    # An index of each chunk, 1 % of what is in it, and SQLite's cache of 2 MB, which fills.
    cache = 2_048_000 if kind == "db3" else 0
    assert long - short < 0.01 * 135 * 150_000 + cache
    assert long < 4_000_000  # of 22 MB of images


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("drive.mcap", b"", "0 bytes"),
        ("drive.bag", b"", "0 bytes"),
        ("drive.db3", b"just a text file, no bag", "just a text"),
        ("drive.txt", b"just a text file, no bag", "just a text"),
        ("drive.bag", b"#ROSBAG V1.2\n", "V1.2"),
        ("drive.db3", b"SQLite format 3\0" + b"\xff" * 5000, "not a database"),
    ],
)
def test_files_that_are_no_bags(tmp_path: Path, name: str, content: bytes, found: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BagError) as caught:
        BagReader(path)
    assert found in caught.value.found
    assert caught.value.expected
    assert caught.value.remedy


def test_directories_that_are_no_bags(tmp_path: Path) -> None:
    with pytest.raises(BagError, match="nothing"):
        BagReader(tmp_path)
    (tmp_path / "readme.txt").write_text("no bag")
    with pytest.raises(BagError, match="readme"):
        BagReader(tmp_path)
    with pytest.raises(BagError, match="No such file"):
        BagReader(tmp_path / "absent")
    with pytest.raises(BagError, match="holds no message"):
        BagReader([])


@pytest.mark.parametrize("kind", ["mcap", "mcap_lz4", "mcap_unchunked", "db3", "ros1"])
def test_a_bag_without_messages(tmp_path: Path, kind: str) -> None:
    with pytest.raises(BagError, match="holds no message"):
        BagReader(write_kind(kind, tmp_path, []))


def test_an_empty_part_does_not_move_the_start(tmp_path: Path) -> None:
    empty = write_rosbag2(tmp_path / "empty", [])
    full = write_rosbag2(tmp_path / "full", [Sample(*sample) for sample in images(count=2)])
    with BagReader([empty, full]) as reader:
        assert reader.start_ns == START_NS + 5_000_000
        assert len(list(reader.messages())) == 2
