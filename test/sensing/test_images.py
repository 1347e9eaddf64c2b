from __future__ import annotations

import re
from array import array
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from image_messages import LAYOUTS, image_message
from rosbags.typesys import Stores, get_typestore

from unim2_core.errors import DecodeError
from unim2_core.sensing.encodings import ENCODINGS
from unim2_core.sensing.images import decode_image, decode_raw

DTYPES = {"B": np.uint8, "H": np.uint16, "h": np.int16, "f": np.float32}
MONO = [name for name in LAYOUTS if re.match("mono|.*C1$", name)]
COLOR_ORDER = {
    "rgb8": "rgb",
    "rgb16": "rgb",
    "rgba8": "rgba",
    "rgba16": "rgba",
    "bgr8": "bgr",
    "8UC3": "bgr",
    "bgr16": "bgr",
    "bgra8": "bgra",
    "8UC4": "bgra",
    "bgra16": "bgra",
}
BAYER = [name for name in LAYOUTS if name.startswith("bayer")]
YUV422 = {"uyvy": "uyvy", "yuv422": "uyvy", "yuyv": "yuyv", "yuv422_yuy2": "yuyv"}
BUFFERS = {
    "bytes": bytes,
    "bytearray": bytearray,
    "memoryview": memoryview,
    "array.array": lambda data: array("B", data),
    "numpy": lambda data: np.frombuffer(data, np.uint8).copy(),
    "numpy read-only": lambda data: np.frombuffer(data, np.uint8),
}


def random_samples(encoding: str, height: int, width: int, seed: int) -> np.ndarray:
    code, channels = LAYOUTS[encoding]
    shape = (height, width) if channels == 1 else (height, width, channels)
    size = int(np.prod(shape)) * np.dtype(DTYPES[code]).itemsize
    random = np.random.default_rng(seed)
    if code == "f":
        return random.normal(0, 100, shape).astype(np.float32)
    return np.frombuffer(random.bytes(size), DTYPES[code]).reshape(shape)


def rgb_of_yuv(y: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """ITU-R BT.601, black at luma 16 and below, float."""
    luma, blue, red = 1.164 * np.maximum(y - 16.0, 0), u - 128.0, v - 128.0
    rgb = (luma + 1.596 * red, luma - 0.813 * red - 0.391 * blue, luma + 2.018 * blue)
    return np.clip(np.stack(rgb, -1), 0, 255)


def test_table_is_covered():
    assert set(ENCODINGS) == {*LAYOUTS, "nv12", "nv21"}
    assert {*MONO, *COLOR_ORDER, *BAYER, *YUV422} == set(LAYOUTS)


@given(
    encoding=st.sampled_from([*MONO, *COLOR_ORDER]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    padding=st.integers(0, 3),
    big_endian=st.booleans(),
    buffer=st.sampled_from(sorted(BUFFERS)),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=400, deadline=None)
def test_round_trip(encoding, height, width, padding, big_endian, buffer, seed):
    assume((height, width) != (1, 1))  # OpenCV 4.5 takes no single pixel of several channels
    samples = random_samples(encoding, height, width, seed)
    message = image_message(
        samples, encoding, padding=padding * samples.itemsize, big_endian=big_endian
    )
    message.data = BUFFERS[buffer](message.data)
    image = decode_image(message)
    if encoding in MONO:
        expected = samples
    else:
        planes = [samples[..., COLOR_ORDER[encoding].index(color)] for color in "rgb"]
        expected = np.stack(planes, -1)
        if expected.dtype == np.uint16:
            expected = (expected // 256).astype(np.uint8)
    assert image.dtype == expected.dtype
    assert image.dtype.isnative
    np.testing.assert_array_equal(image, expected)


@given(
    encoding=st.sampled_from(BAYER),
    height=st.integers(3, 9),
    width=st.integers(3, 9),
    padding=st.integers(0, 2),
    big_endian=st.booleans(),
    color=st.tuples(*[st.integers(0, 255)] * 3),
)
@settings(max_examples=200, deadline=None)
def test_bayer_gives_back_the_color_that_was_mosaiced(
    encoding, height, width, padding, big_endian, color
):
    pattern = encoding[6:10]
    scale = 256 if encoding.endswith("16") else 1
    samples = np.empty((height, width), np.uint16 if scale > 1 else np.uint8)
    for place, letter in enumerate(pattern):
        samples[place // 2 :: 2, place % 2 :: 2] = color["rgb".index(letter)] * scale
    message = image_message(samples, encoding, padding=2 * padding, big_endian=big_endian)
    image = decode_image(message)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.broadcast_to(color, (height, width, 3)))
    raw = decode_raw(message)
    assert raw.dtype == samples.dtype
    np.testing.assert_array_equal(raw, samples)


@pytest.mark.parametrize("encoding", BAYER)
def test_bayer_keeps_what_each_photosite_measured(encoding):
    samples = random_samples(encoding, 12, 14, seed=3)
    image = decode_image(image_message(samples, encoding))
    measured = samples if samples.dtype == np.uint8 else samples // 256
    for y in range(1, 11):
        for x in range(1, 13):
            channel = "rgb".index(encoding[6 + 2 * (y % 2) + x % 2])
            assert image[y, x, channel] == measured[y, x]


@given(
    encoding=st.sampled_from(sorted(YUV422)),
    height=st.integers(1, 6),
    pairs=st.integers(1, 5),
    padding=st.integers(0, 5),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=100, deadline=None)
def test_yuv422(encoding, height, pairs, padding, seed):
    random = np.random.default_rng(seed)
    y0, u, y1, v = random.integers(0, 256, (4, height, pairs), dtype=np.uint8)
    order = (u, y0, v, y1) if YUV422[encoding] == "uyvy" else (y0, u, y1, v)
    samples = np.stack(order, -1).reshape(height, 2 * pairs, 2)
    image = decode_image(image_message(samples, encoding, padding=padding))
    luma = np.stack((y0, y1), -1).reshape(height, 2 * pairs)
    expected = rgb_of_yuv(luma, np.repeat(u, 2, axis=1), np.repeat(v, 2, axis=1))
    assert image.dtype == np.uint8
    assert np.abs(image - expected).max() <= 1.5


@pytest.mark.parametrize(("encoding", "order"), [("nv12", "uv"), ("nv21", "vu")])
def test_yuv420(encoding, order):
    random = np.random.default_rng(5)
    luma = random.integers(0, 256, (4, 6), dtype=np.uint8)
    planes = dict(zip("uv", random.integers(0, 256, (2, 2, 3), dtype=np.uint8), strict=True))
    chroma = np.stack([planes[name] for name in order], -1).reshape(2, 6)
    rows = np.pad(np.concatenate((luma, chroma)), ((0, 0), (0, 2)))
    message = SimpleNamespace(
        height=4, width=6, encoding=encoding, is_bigendian=0, step=8, data=rows.tobytes()
    )
    wide = {name: plane.repeat(2, axis=0).repeat(2, axis=1) for name, plane in planes.items()}
    assert np.abs(decode_image(message) - rgb_of_yuv(luma, wide["u"], wide["v"])).max() <= 1.5


@pytest.mark.parametrize("padding", [0, 8])
@pytest.mark.parametrize("encoding", ["rgb8", "mono8", "mono16", "16UC1", "32FC1"])
def test_shares_memory(encoding, padding):
    message = image_message(random_samples(encoding, 5, 7, 1), encoding, padding=padding)
    message.data = np.frombuffer(message.data, np.uint8).copy()
    image = decode_image(message)
    assert np.shares_memory(image, message.data)
    assert image.flags.c_contiguous == (padding == 0)


def test_raw_bayer_shares_memory():
    message = image_message(random_samples("bayer_rggb16", 5, 7, 1), "bayer_rggb16")
    message.data = array("B", message.data)
    assert np.shares_memory(decode_raw(message), np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize("encoding", ["bgr8", "mono16", "bayer_gbrg8", "uyvy", "32FC1"])
def test_message_of_rosbags(encoding):
    store = get_typestore(Stores.ROS2_HUMBLE)
    plain = image_message(random_samples(encoding, 6, 8, 2), encoding, padding=4)
    header = store.types["std_msgs/msg/Header"](
        store.types["builtin_interfaces/msg/Time"](1, 2), "camera"
    )
    message = store.types["sensor_msgs/msg/Image"](
        header, 6, 8, encoding, 0, plain.step, np.frombuffer(plain.data, np.uint8)
    )
    stored = store.serialize_cdr(message, "sensor_msgs/msg/Image")
    read = store.deserialize_cdr(stored, "sensor_msgs/msg/Image")
    np.testing.assert_array_equal(decode_image(read), decode_image(plain))


@pytest.mark.ros
@pytest.mark.parametrize("encoding", ["rgb8", "mono16", "bayer_grbg16", "yuyv", "32FC1"])
def test_message_of_rclpy(encoding):
    messages = pytest.importorskip("sensor_msgs.msg")
    serialization = pytest.importorskip("rclpy.serialization")
    plain = image_message(random_samples(encoding, 6, 8, 2), encoding, padding=4)
    message = messages.Image(
        height=6, width=8, encoding=encoding, step=plain.step, data=array("B", plain.data)
    )
    stored = serialization.serialize_message(message)
    read = serialization.deserialize_message(stored, messages.Image)
    image = decode_image(read)
    np.testing.assert_array_equal(image, decode_image(plain))
    if encoding in ("rgb8", "mono16", "32FC1"):
        assert np.shares_memory(image, np.frombuffer(read.data, np.uint8))


GOOD = image_message(random_samples("mono16", 4, 6, 7), "mono16")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"encoding": "rgb9"}, ["unknown image encoding", "bayer_rggb8", "'rgb9'"]),
        ({"encoding": None}, ["unknown image encoding", "None"]),
        ({"encoding": "RGB8"}, ["unknown image encoding"]),
        ({"height": 0, "data": b""}, ["empty", "height 0"]),
        ({"width": 0}, ["empty", "width 0"]),
        ({"height": -4}, ["empty", "height -4"]),
        ({"height": 4.0}, ["height is not an integer", "4.0 (float)"]),
        ({"width": "6"}, ["width is not an integer", "'6' (str)"]),
        ({"step": None}, ["step is not an integer"]),
        ({"step": 0}, ["step", "12 bytes", "step 0"]),
        ({"step": 11, "data": bytes(44)}, ["at least 12", "step 11"]),
        ({"step": 13, "data": bytes(52)}, ["whole samples of 2", "step 13"]),
        ({"step": 14}, ["4 rows x step 14 = 56", "48 bytes"]),
        ({"data": bytes(47)}, ["48 bytes", "47 bytes"]),
        ({"data": bytes(60)}, ["48 bytes", "60 bytes"]),
        ({"data": b""}, ["48 bytes", "0 bytes"]),
        ({"data": array("B")}, ["48 bytes", "0 bytes"]),
        ({"height": 2**32 - 1, "width": 2**32 - 1, "step": 2**34}, ["48 bytes"]),
        ({"data": [0] * 48}, ["not bytes", "list"]),
        ({"data": "0" * 48}, ["not bytes", "str"]),
        ({"data": None}, ["not bytes", "NoneType"]),
        ({"data": np.zeros(24, np.uint16)}, ["not bytes", "items of 2 bytes"]),
        ({"data": np.zeros(96, np.uint8)[::2]}, ["not bytes", "strided"]),
        ({"data": np.zeros(48, "M8[s]")}, ["not bytes"]),
        ({"encoding": "bayer_rggb8", "width": 2, "step": 12}, ["3x3", "width 2"]),
        ({"encoding": "uyvy", "width": 5, "step": 12}, ["even width", "width 5"]),
        ({"encoding": "nv12", "height": 3, "step": 12}, ["even width and height", "height 3"]),
        ({"encoding": "nv12", "step": 12}, ["6 rows x step 12 = 72", "48 bytes"]),
    ],
)
def test_contradictions_are_named(change, words):
    message = SimpleNamespace(**{**vars(GOOD), **change})
    with pytest.raises(DecodeError) as error:
        decode_image(message)
    for word in words:
        assert word in str(error.value)


def test_missing_field():
    message = SimpleNamespace(**vars(GOOD))
    del message.step
    with pytest.raises(DecodeError, match="step is not an integer"):
        decode_image(message)


@pytest.mark.parametrize("encoding", ["rgb8", "uyvy"])
def test_raw_needs_one_channel(encoding):
    message = image_message(random_samples(encoding, 4, 4, 1), encoding)
    with pytest.raises(DecodeError, match="one channel"):
        decode_raw(message)


ANYTHING = st.one_of(
    st.integers(-5, 80),
    st.integers(),
    st.floats(),
    st.none(),
    st.sampled_from([*ENCODINGS, "rgb", ""]),
    st.binary(max_size=200),
)


@given(
    encoding=st.sampled_from([*LAYOUTS]),
    changes=st.dictionaries(
        st.sampled_from(["height", "width", "step", "encoding", "data", "is_bigendian"]),
        ANYTHING,
        min_size=1,
    ),
)
@settings(max_examples=500, deadline=None)
def test_mutations_raise_only_decode_errors(encoding, changes):
    message = image_message(random_samples(encoding, 4, 6, 0), encoding)
    vars(message).update(changes)
    for decode in (decode_image, decode_raw):
        try:
            image = decode(message)
        except DecodeError:
            continue
        assert image.shape[:2] == (message.height, message.width)
