"""The figures of a bag are those that it was made with."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_samples import (
    START_NS,
    TYPES,
    Sample,
    custom_bag,
    images,
    robot,
    write_kind,
    write_mcap,
    write_rosbag2,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from unim2_core.errors import DecodeError
from unim2_core.sensing.bag_headers import read_header
from unim2_core.sensing.bag_messages import (
    compressed_image_message,
    header_message,
    image_message,
    stamp_ns,
)
from unim2_core.sensing.bag_pairing import findings, pair
from unim2_core.sensing.bag_summary import BagSummary, summarize
from unim2_core.sensing.bags import BagReader

MS = 1_000_000


def summary_of(path: Path, samples: list[Sample]) -> BagSummary:
    samples = sorted(samples, key=lambda sample: sample.log_ns)
    with BagReader(write_mcap(path / "drive.mcap", samples)) as reader:
        return summarize(reader)


def findings_of(summary: BagSummary, reference: str = "/rgb/image") -> list[str]:
    first = summary.topics[reference]
    pairings = [pair(first, topic) for topic in summary.images if topic is not first]
    return findings(summary, pairings)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 2**31 * 10**9 - 1),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
    st.booleans(),
)
def test_header_without_deserialising(stamp: int, frame_id: str, little: bool) -> None:
    pixels = np.zeros((2, 3), np.uint8)
    message = image_message(pixels, "mono8", stamp, frame_id)
    raw = TYPES.serialize_cdr(message, message.__msgtype__, little_endian=little)
    full = TYPES.deserialize_cdr(raw, message.__msgtype__).header
    quick = read_header(raw)
    assert (quick.stamp_ns, quick.frame_id) == (stamp_ns(full), full.frame_id) == (stamp, frame_id)


@pytest.mark.parametrize("length", range(0, 24, 3))
def test_header_that_is_cut(length: int) -> None:
    header = header_message(START_NS, "camera")
    raw = bytes(TYPES.serialize_cdr(header, header.__msgtype__))
    with pytest.raises(DecodeError, match="no readable header"):
        read_header(raw[:length])


def test_rate_jitter_gaps_and_delay(tmp_path: Path) -> None:
    samples = images(count=200, period_ns=50 * MS, delay_ns=8 * MS)
    shifts = np.random.default_rng(0).uniform(-2 * MS, 2 * MS, 200).astype(int)
    moved = []
    for sample, shift in zip(samples, shifts, strict=True):
        stamp = stamp_ns(sample.message.header) + int(shift)
        message = image_message(np.zeros((12, 16, 3), np.uint8), "rgb8", stamp, "rgb_optical")
        moved.append(Sample(sample.topic, message, stamp + 8 * MS))
    del moved[100:104], moved[50:53]
    topic = summary_of(tmp_path, moved).topics["/rgb/image"]
    assert topic.rate_hz == pytest.approx(20, rel=0.01)
    assert topic.jitter_s is not None
    assert 0.002 < topic.jitter_s < 0.004
    assert topic.gaps == 2
    assert topic.longest_gap_s == pytest.approx(0.25, abs=0.005)
    assert topic.delay_s == pytest.approx([0.008, 0.008])
    assert topic.log_ns.size == 193
    assert (topic.zero_stamps, topic.backward_steps) == (0, 0)
    assert topic.frame_id == "rgb_optical"


@pytest.mark.parametrize("kind", ["mcap_zstd", "db3", "ros1"])
def test_topics_of_every_format(tmp_path: Path, kind: str) -> None:
    done: list[int] = []
    with BagReader(write_kind(kind, tmp_path, robot())) as reader:
        summary = summarize(reader, done.append)
    assert done[-1] == 22
    assert [topic.info.name for topic in summary.images] == ["/depth/image", "/rgb/image"]
    depth = summary.topics["/depth/image"].image
    assert depth is not None
    assert (depth.encoding, depth.width, depth.height) == ("16UC1", 16, 12)
    assert (depth.dtype, depth.channels) == ("uint16", 1)
    assert depth.low == pytest.approx(545, abs=60)
    assert depth.high == pytest.approx(4955, abs=100)
    tf = summary.topics["/tf_static"]
    assert tf.stamp_ns is None
    assert (tf.rate_hz, tf.jitter_s, tf.gaps, tf.longest_gap_s) == (None, None, 0, None)
    assert summary.duration_s == pytest.approx(0.908)
    assert findings_of(summary) == []


def test_compressed_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(27_000, 32_000, (20, 30), dtype=np.uint16)
    png = cv2.imencode(".png", pixels)[1].tobytes()
    message = compressed_image_message(png, "mono16; png compressed ", START_NS, "thermal")
    sample = Sample("/thermal/compressed", message, START_NS)
    topic = summary_of(tmp_path, [sample]).topics["/thermal/compressed"]
    assert topic.image is not None
    assert topic.image.dtype == "uint16"
    assert (topic.image.width, topic.image.height) == (30, 20)
    assert topic.is_image


def test_image_that_cannot_be_decoded(tmp_path: Path) -> None:
    broken = images(count=3)
    for sample in broken:
        sample.message.encoding = "rgb9"
    summary = summary_of(tmp_path, [*broken, *images("/nir/image", 3)])
    topic = summary.topics["/rgb/image"]
    assert topic.image is None
    assert topic.rate_hz == pytest.approx(10)
    assert summary.topics["/nir/image"].image is not None
    (text,) = findings_of(summary)
    assert "/rgb/image" in text
    assert "rgb9" in text


def test_stamps_that_are_zero(tmp_path: Path) -> None:
    zero = images("/nir/image")
    for sample in zero:
        sample.message.header.stamp.sec = sample.message.header.stamp.nanosec = 0
    summary = summary_of(tmp_path, [*images(), *zero])
    topic = summary.topics["/nir/image"]
    assert (topic.zero_stamps, topic.delay_s) == (10, None)
    assert topic.rate_hz == pytest.approx(10)  # from the log times
    (text,) = findings_of(summary)
    assert "10 of 10 stamps are zero" in text
    assert "stamp: arrival" in text


def test_stamps_that_run_backwards(tmp_path: Path) -> None:
    samples = images(count=20)
    for sample in samples[10:]:
        sample.message.header.stamp.sec -= 60
    summary = summary_of(tmp_path, samples)
    assert summary.topics["/rgb/image"].backward_steps == 1
    (text,) = findings_of(summary)
    assert "run backwards 1 times" in text


def test_stamps_that_stand_still(tmp_path: Path) -> None:
    samples = images(count=20)
    for sample in samples:
        sample.message.header = samples[0].message.header
    topic = summary_of(tmp_path, samples).topics["/rgb/image"]
    assert (topic.period_s, topic.rate_hz, topic.jitter_s, topic.gaps) == (None, None, None, 0)


def test_pairing_of_streams_with_offset_and_loss(tmp_path: Path) -> None:
    nir = images("/nir/image", 100, offset_ns=30 * MS)
    kept = [sample for index, sample in enumerate(nir) if index % 4]
    summary = summary_of(tmp_path, [*images(count=100), *kept])
    found = pair(summary.topics["/rgb/image"], summary.topics["/nir/image"])
    assert found.share == pytest.approx(0.75, abs=0.02)
    assert found.offset_s == pytest.approx(0.03, abs=1e-6)
    assert found.median_skew_s == pytest.approx(0.03, abs=1e-6)
    assert found.p95_skew_s == pytest.approx(0.07, abs=1e-6)
    assert found.overlap_s == pytest.approx(9.87, abs=0.1)


def test_offset_of_half_a_period(tmp_path: Path) -> None:
    """The nearest partner lies now before and now after; the offset stays half a period."""
    random = np.random.default_rng(1)
    nir = images("/nir/image", 100, offset_ns=50 * MS)
    for sample in nir:
        shift = int(random.uniform(-3 * MS, 3 * MS))
        sample.message.header = header_message(
            stamp_ns(sample.message.header) + shift, "rgb_optical"
        )
    summary = summary_of(tmp_path, [*images(count=100), *nir])
    found = pair(summary.topics["/rgb/image"], summary.topics["/nir/image"])
    assert found.share > 0.98
    assert found.offset_s is not None
    assert abs(found.offset_s) == pytest.approx(0.05, abs=0.002)


def test_cameras_that_run_freely_have_no_constant_offset(tmp_path: Path) -> None:
    slow = images("/thermal/image", 90, period_ns=111 * MS)
    summary = summary_of(tmp_path, [*images(count=100), *slow])
    found = pair(summary.topics["/rgb/image"], summary.topics["/thermal/image"])
    assert found.offset_s is None
    assert found.share > 0.97
    assert found.limit_s == pytest.approx(0.0555, abs=0.001)


def test_clocks_that_differ(tmp_path: Path) -> None:
    nir = images("/nir/image")
    for sample in nir:
        sample.message.header.stamp.sec -= 3600
    summary = summary_of(tmp_path, [*images(), *nir])
    found = pair(summary.topics["/rgb/image"], summary.topics["/nir/image"])
    assert found.overlap_s == pytest.approx(-3599.1)
    assert found.log_overlap_s == pytest.approx(0.9)
    assert found.clock_s == pytest.approx(3600)
    assert (found.share, found.median_skew_s, found.offset_s) == (0, None, None)
    (text,) = findings_of(summary)
    assert "do not overlap" in text
    assert "offset_s: 3600.000" in text


def test_recorded_one_after_the_other(tmp_path: Path) -> None:
    nir = images("/nir/image", offset_ns=100_000 * MS)
    summary = summary_of(tmp_path, [*images(), *nir])
    (text,) = findings_of(summary)
    assert "recorded 99.100 s apart" in text
    assert "leave this sensor out" in text


def test_a_single_image_beside_a_stream(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, [*images(), *images("/nir/image", 1, offset_ns=200 * MS)])
    found = pair(summary.topics["/rgb/image"], summary.topics["/nir/image"])
    assert found.overlap_s == 0
    assert found.offset_s is None
    assert found.share == pytest.approx(0.1)
    assert findings_of(summary) == []


def test_unknown_types_are_only_counted(tmp_path: Path) -> None:
    with BagReader(custom_bag(tmp_path / "drive.mcap", "int32 a\nx_msgs/Lost b\n")) as reader:
        summary = summarize(reader)
    assert summary.topics["/odd"].log_ns.tolist() == [1]
    assert summary.topics["/odd"].stamp_ns is None
    assert summary.topics["/odd"].info.definition == "missing"


def test_a_damaged_bag_is_summed_up_as_far_as_it_goes(tmp_path: Path) -> None:
    path = write_rosbag2(tmp_path / "drive", images(count=30, shape=(300, 300, 3)))
    file = path / "drive.mcap"
    file.write_bytes(file.read_bytes()[:5_000_000])
    with BagReader(path) as reader:
        summary = summarize(reader)
    assert 12 <= summary.topics["/rgb/image"].log_ns.size < 20
    assert summary.stopped is not None
