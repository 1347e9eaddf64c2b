"""Small bags of every kind, made while the tests run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from unim2_core.sensing.bag_messages import (
    Transform,
    camera_info_message,
    image_message,
    transform_message,
)
from unim2_core.sensing.bag_storage import LATCHED

START_NS = 1_700_000_000_000_000_000
TYPES = get_typestore(Stores.ROS2_HUMBLE)
ROS1_TYPES = get_typestore(Stores.ROS1_NOETIC)
ROS1_TYPES.register(
    get_types_from_msg("geometry_msgs/TransformStamped[] transforms", "tf2_msgs/msg/TFMessage")
)


class Sample(NamedTuple):
    topic: str
    message: Any
    log_ns: int


def images(
    topic: str = "/rgb/image",
    count: int = 10,
    period_ns: int = 100_000_000,
    *,
    shape: tuple[int, ...] = (12, 16, 3),
    encoding: str = "rgb8",
    dtype: Any = np.uint8,
    frame_id: str = "rgb_optical",
    offset_ns: int = 0,
    delay_ns: int = 5_000_000,
    low: int = 0,
    high: int = 256,
) -> list[Sample]:
    """Images whose stamps start at ``START_NS + offset_ns``, logged ``delay_ns`` later."""
    random = np.random.default_rng(7)
    samples = []
    for index in range(count):
        stamp_ns = START_NS + offset_ns + index * period_ns
        pixels = random.integers(low, high, shape).astype(dtype)
        message = image_message(pixels, encoding, stamp_ns, frame_id)
        samples.append(Sample(topic, message, stamp_ns + delay_ns))
    return samples


def robot(count: int = 10) -> list[Sample]:
    """Rgb and depth images, camera_info and a static transform, in order of time."""
    k = [[20.0, 0, 8], [0, 20, 6], [0, 0, 1]]
    info = camera_info_message(16, 12, k, [0.1, -0.05], START_NS, "rgb_optical")
    transform = Transform("rgb_optical", "depth_optical", (0.05, 0.0, 0.0))
    return sorted(
        [
            Sample("/tf_static", transform_message([transform], START_NS), START_NS),
            Sample("/rgb/camera_info", info, START_NS + 5_000_000),
            *images("/rgb/image", count),
            *images(
                "/depth/image",
                count,
                shape=(12, 16),
                encoding="16UC1",
                dtype=np.uint16,
                frame_id="depth_optical",
                offset_ns=3_000_000,
                low=500,
                high=5000,
            ),
        ],
        key=lambda sample: sample.log_ns,
    )


def write_rosbag2(
    path: Path,
    samples: Iterable[Sample],
    storage: StoragePlugin = StoragePlugin.MCAP,
    mode: CompressionMode = CompressionMode.NONE,
) -> Path:
    writer = Writer(path, version=8, storage_plugin=storage)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    connections: dict[str, Any] = {}
    with writer:
        for topic, message, log_ns in samples:
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic,
                    message.__msgtype__,
                    typestore=TYPES,
                    offered_qos_profiles=[LATCHED] if topic == "/tf_static" else [],
                )
            raw = TYPES.serialize_cdr(message, message.__msgtype__)
            writer.write(connections[topic], log_ns, raw)
    return path


def write_mcap(
    path: Path,
    samples: Iterable[Sample],
    compression: CompressionType = CompressionType.LZ4,
    *,
    chunk_size: int = 1024,
    **options: Any,
) -> Path:
    """A single file from the mcap library, with checksums and many small chunks."""
    writer = McapWriter(str(path), compression=compression, chunk_size=chunk_size, **options)
    writer.start(profile="ros2")
    channels: dict[str, int] = {}
    for topic, message, log_ns in samples:
        name = message.__msgtype__
        if topic not in channels:
            text, _ = TYPES.generate_msgdef(name, ros_version=2)
            schema = writer.register_schema(name, "ros2msg", text.encode())
            channels[topic] = writer.register_channel(topic, "cdr", schema)
        raw = bytes(TYPES.serialize_cdr(message, name))
        writer.add_message(channels[topic], log_ns, raw, log_ns)
    writer.finish()
    return path


def write_ros1(path: Path, samples: Iterable[Sample], compression: str = "") -> Path:
    writer = Ros1Writer(path)
    writer.chunk_threshold = 20_000
    if compression:
        writer.set_compression(Ros1Writer.CompressionFormat[compression])
    connections: dict[str, Any] = {}
    with writer:
        for topic, message, log_ns in samples:
            name = message.__msgtype__
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, name, typestore=ROS1_TYPES, latching=int(topic == "/tf_static")
                )
            raw = TYPES.cdr_to_ros1(TYPES.serialize_cdr(message, name), name)
            writer.write(connections[topic], log_ns, raw)
    return path


def write_split(path: Path, samples: Sequence[Sample], **options: Any) -> Path:
    """A directory of two files, as ``ros2 bag record --max-bag-size`` leaves it."""
    half = len(samples) // 2
    parts = (samples[:half], samples[half:])
    bags = [
        write_rosbag2(path.with_name(f"{path.name}_{index}"), part, **options)
        for index, part in enumerate(parts)
    ]
    path.mkdir()
    metadata: Any = None
    counts: dict[str, int] = {}
    for bag in bags:
        content = yaml.safe_load((bag / "metadata.yaml").read_text())
        part = content["rosbag2_bagfile_information"]
        for entry in part["topics_with_message_count"]:
            name = entry["topic_metadata"]["name"]
            counts[name] = counts.get(name, 0) + entry["message_count"]
        if metadata is None:
            metadata = content
        else:
            whole = metadata["rosbag2_bagfile_information"]
            whole["relative_file_paths"] += part["relative_file_paths"]
            whole["files"] += part["files"]
            whole["message_count"] += part["message_count"]
        for file in part["relative_file_paths"]:
            (bag / file).rename(path / file)
    for entry in metadata["rosbag2_bagfile_information"]["topics_with_message_count"]:
        entry["message_count"] = counts[entry["topic_metadata"]["name"]]
    (path / "metadata.yaml").write_text(yaml.safe_dump(metadata))
    return path


KINDS = (
    "mcap",
    "mcap_zstd",
    "mcap_lz4",
    "mcap_unchunked",
    "mcap_file_zstd",
    "mcap_message_zstd",
    "mcap_split",
    "mcap_split_file_zstd",
    "db3",
    "db3_file_zstd",
    "db3_message_zstd",
    "db3_split",
    "ros1",
    "ros1_bz2",
    "ros1_lz4",
)


def write_kind(kind: str, folder: Path, samples: Sequence[Sample]) -> Path:
    """Write a bag of one of ``KINDS``."""
    mode = (
        CompressionMode.FILE
        if kind.endswith("file_zstd")
        else CompressionMode.MESSAGE
        if kind.endswith("message_zstd")
        else CompressionMode.STORAGE
        if kind == "mcap_zstd"
        else CompressionMode.NONE
    )
    if kind == "mcap_lz4":
        return write_mcap(folder / "drive.mcap", samples)
    if kind == "mcap_unchunked":
        return write_mcap(folder / "drive.mcap", samples, use_chunking=False)
    if kind.startswith("ros1"):
        return write_ros1(folder / "drive.bag", samples, kind[5:].upper())
    storage = StoragePlugin.SQLITE3 if kind.startswith("db3") else StoragePlugin.MCAP
    if "split" in kind:
        return write_split(folder / "drive", samples, storage=storage, mode=mode)
    return write_rosbag2(folder / "drive", samples, storage, mode)


CUSTOM = (
    "int32 number\nstd_msgs/Header header\n"
    + "=" * 80
    + ("\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n")
)


def custom_bag(path: Path, definition: str = CUSTOM) -> Path:
    """A bag with images, and with messages of a type that only this bag knows."""
    store = get_typestore(Stores.EMPTY)
    store.register(get_types_from_msg(CUSTOM, "robot_msgs/msg/Odd"))
    message = store.types["robot_msgs/msg/Odd"](
        42,
        store.types["std_msgs/msg/Header"](
            store.types["builtin_interfaces/msg/Time"](1, 2), "base"
        ),
    )
    raw = bytes(store.serialize_cdr(message, "robot_msgs/msg/Odd"))
    writer = McapWriter(str(path))
    writer.start(profile="ros2")
    schema = writer.register_schema("robot_msgs/msg/Odd", "ros2msg", definition.encode())
    odd = writer.register_channel("/odd", "cdr", schema)
    json = writer.register_channel(
        "/json", "json", writer.register_schema("Thing", "jsonschema", b"{}")
    )
    text, _ = TYPES.generate_msgdef("sensor_msgs/msg/Image", ros_version=2)
    schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", text.encode())
    image = writer.register_channel("/rgb/image", "cdr", schema)
    sample = images(count=1)[0]
    image_raw = bytes(TYPES.serialize_cdr(sample.message, "sensor_msgs/msg/Image"))
    writer.add_message(odd, 1, raw, 1)
    writer.add_message(json, 2, b"{}", 2)
    writer.add_message(image, 3, image_raw, 3)
    writer.finish()
    return path
