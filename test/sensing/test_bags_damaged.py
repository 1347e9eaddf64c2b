"""Damaged bags give everything before the damage, and say where it is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from bag_samples import (
    START_NS,
    Sample,
    images,
    robot,
    write_kind,
    write_mcap,
    write_ros1,
    write_rosbag2,
    write_split,
)
from mcap.writer import CompressionType
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2.enums import CompressionMode

from unim2_core.errors import BagError
from unim2_core.sensing.bags import BagReader

STREAM = sorted(
    [*images("/rgb/image", 40), *images("/nir/image", 40, offset_ns=30_000_000)],
    key=lambda sample: sample.log_ns,
)
SINGLE_FILES = {
    "mcap": "drive/drive.mcap",
    "mcap_zstd": "drive/drive.mcap",
    "mcap_lz4": "drive.mcap",
    "mcap_unchunked": "drive.mcap",
    "mcap_file_zstd": "drive/drive.mcap.zstd",
    "db3": "drive/drive.db3",
    "db3_file_zstd": "drive/drive.db3.zstd",
    "ros1": "drive.bag",
    "ros1_lz4": "drive.bag",
    "ros1_bz2": "drive.bag",
}


def readable(path: Path) -> tuple[list[tuple[str, int]], str | None]:
    with BagReader(path) as reader:
        found = [(message.topic, message.log_ns) for message in reader.messages()]
        assert reader.start_ns <= min(log_ns for _, log_ns in found)
        return found, reader.stopped


def samples_of(size: int) -> list[Sample]:
    """Images so large that a chunk of 1 MB holds four of them."""
    return images("/rgb/image", size, shape=(300, 300, 3))


@pytest.mark.parametrize("kind", sorted(SINGLE_FILES))
@pytest.mark.parametrize("share", [0.999, 0.6])
def test_truncated(tmp_path: Path, kind: str, share: float) -> None:
    # bz2 takes a second for every 10 MB.
    samples = images(count=24, shape=(60, 60, 3)) if kind == "ros1_bz2" else samples_of(24)
    path = write_kind(kind, tmp_path, samples)
    file = tmp_path / SINGLE_FILES[kind]
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    found, stopped = readable(path)
    assert found == [(sample.topic, sample.log_ns) for sample in samples[: len(found)]]
    # At most the chunk that was cut is lost.
    assert len(found) >= share * len(samples) - 5
    if len(found) < len(samples):
        assert stopped is not None
        assert file.name.removesuffix(".zstd") in stopped
        assert re.search(r"(byte|row) \d+ of ", stopped)
        assert f"at {found[-1][1] / 1e9:.3f}" in stopped


@pytest.mark.parametrize("kind", ["mcap", "mcap_zstd", "mcap_lz4", "ros1", "ros1_lz4"])
def test_every_length_is_read_or_refused(tmp_path: Path, kind: str) -> None:
    path = write_kind(kind, tmp_path, robot(5))
    file = tmp_path / SINGLE_FILES[kind]
    content = file.read_bytes()
    counts = []
    for length in range(0, len(content), max(len(content) // 60, 1)):
        file.write_bytes(content[:length])
        try:
            found, stopped = readable(path)
        except BagError as error:
            assert error.found
            counts.append(0)
        else:
            counts.append(len(found))
            assert stopped or len(found) == 12
    assert counts == sorted(counts)


def flip(file: Path, share: float, width: int = 1) -> int:
    content = bytearray(file.read_bytes())
    position = int(share * len(content))
    for index in range(position, position + width):
        content[index] ^= 0xFF
    file.write_bytes(content)
    return position


@pytest.mark.parametrize(
    "compression", [CompressionType.NONE, CompressionType.LZ4, CompressionType.ZSTD]
)
def test_a_flipped_byte_in_a_chunk_with_checksum(
    tmp_path: Path, compression: CompressionType
) -> None:
    path = write_mcap(tmp_path / "drive.mcap", STREAM, compression)
    position = flip(path, 0.5)
    with BagReader(path) as reader:
        assert reader.stopped is None  # the index is whole: it shows when it is reached
        found = [message.log_ns for message in reader.messages()]
        assert reader.stopped is not None
    expected = [sample.log_ns for sample in STREAM]
    assert found == expected[: len(found)]
    assert 30 < len(found) < 50
    match = re.search(r"damaged at byte (\d+) of (\d+)", reader.stopped)
    assert match is not None
    assert position - 2500 < int(match[1]) <= position
    assert int(match[2]) == path.stat().st_size


def test_what_is_not_asked_for_is_not_read(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "drive.mcap", STREAM, CompressionType.ZSTD)
    flip(path, 0.2)
    with BagReader(path) as reader:
        late = list(reader.messages(start_ns=START_NS + 2_000_000_000))
        assert len(late) == 40
        assert reader.stopped is None


def test_a_flipped_byte_without_index(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "drive.mcap", STREAM, CompressionType.ZSTD)
    flip(path, 0.5)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    found, stopped = readable(path)
    assert found == [(sample.topic, sample.log_ns) for sample in STREAM[: len(found)]]
    assert 30 < len(found) < 50
    assert stopped is not None


def test_only_the_index_is_damaged(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "drive.mcap", STREAM)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with BagReader(path) as reader:
        assert [message.log_ns for message in reader.messages()] == [s.log_ns for s in STREAM]
        assert reader.stopped is None
        assert "mcap recover" in reader.notes[0]


@pytest.mark.parametrize("share", [0.4, 0.8])
def test_overwritten_pages_of_sqlite(tmp_path: Path, share: float) -> None:
    samples = samples_of(24)
    path = write_rosbag2(tmp_path / "drive", samples, StoragePlugin.SQLITE3)
    file = path / "drive.db3"
    content = bytearray(file.read_bytes())
    start = int(share * len(content)) // 4096 * 4096
    content[start : start + 5 * 4096] = b"\xff" * 5 * 4096
    file.write_bytes(content)
    with BagReader(path) as reader:
        found = [message.log_ns for message in reader.messages()]
        stopped = reader.stopped
    assert found == [sample.log_ns for sample in samples[: len(found)]]
    # Pages inside one image cannot be told from its pixels.
    assert stopped is not None or len(found) == 24
    assert len(found) >= share * 24 - 2


def test_truncated_sqlite_with_compressed_messages(tmp_path: Path) -> None:
    samples = samples_of(24)
    path = write_kind("db3_message_zstd", tmp_path, samples)
    file = path / "drive.db3"
    content = bytearray(file.read_bytes()[:5_000_000])
    content[3_000_000:3_050_000] = b"\x55" * 50_000
    file.write_bytes(content)
    found, stopped = readable(path)
    assert found == [(sample.topic, sample.log_ns) for sample in samples[: len(found)]]
    assert 8 <= len(found) <= 12  # the damage lies in the eleventh
    assert stopped is not None


def test_ros1_with_a_damaged_chunk(tmp_path: Path) -> None:
    path = write_ros1(tmp_path / "drive.bag", images(count=24, shape=(60, 60, 3)), "BZ2")
    flip(path, 0.5, width=64)
    found, stopped = readable(path)
    assert 8 <= len(found) <= 12
    assert stopped is not None
    assert "drive.bag is damaged at byte" in stopped


def test_the_other_parts_of_a_split_bag_go_on(tmp_path: Path) -> None:
    path = write_split(tmp_path / "drive", samples_of(24))
    file = path / "drive_0.mcap"
    file.write_bytes(file.read_bytes()[:2_000_000])
    found, stopped = readable(path)
    late_ns = START_NS + 12 * 100_000_000
    assert sum(log_ns > late_ns for _, log_ns in found) == 12
    assert 3 <= sum(log_ns < late_ns for _, log_ns in found) < 12
    assert stopped is not None
    assert "drive_0.mcap" in stopped


def test_nothing_is_readable(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "drive.mcap", STREAM)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(BagError) as caught:
        BagReader(path)
    assert "no message before it" in caught.value.found
    assert "mcap recover" in caught.value.remedy


def test_a_packed_part_that_is_gone_wrong(tmp_path: Path) -> None:
    path = write_split(tmp_path / "drive", samples_of(24), mode=CompressionMode.FILE)
    (path / "drive_1.mcap.zstd").write_bytes(b"no zstd at all")
    found, stopped = readable(path)
    assert len(found) == 12
    assert stopped is not None
    assert "drive_1.mcap.zstd" in stopped


def test_write_ahead_log_beside_sqlite(tmp_path: Path) -> None:
    path = write_rosbag2(tmp_path / "drive", images(), StoragePlugin.SQLITE3)
    (path / "drive.db3-wal").write_bytes(b"newer rows")
    with BagReader(path) as reader:
        assert "wal_checkpoint" in reader.notes[0]
