from __future__ import annotations

import struct
import zlib
from array import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from image_messages import compressed_message
from test_rvl import encode_rvl

from unim2_core.errors import DecodeError
from unim2_core.sensing.compressed import decode_compressed, decode_compressed_raw

RANDOM = np.random.default_rng(0)


def smooth(channels: int) -> np.ndarray:
    """A (48, 64, channels) uint8 image that survives JPEG, a different ramp in each channel."""
    rows, columns = np.mgrid[0:1:48j, 0:1:64j]
    planes = (rows, columns, 1 - rows, np.ones_like(rows))[:channels]
    return np.rint(np.stack(planes, -1) * 255).astype(np.uint8)


def jpeg(image: np.ndarray, *options: int) -> bytes:
    """JPEG of a grey or RGB image."""
    bgr = image[..., ::-1] if image.ndim == 3 else image
    return cv2.imencode(".jpg", np.ascontiguousarray(bgr), options)[1].tobytes()


def png(image: np.ndarray) -> bytes:
    """PNG, written without OpenCV: grey, RGB or RGBA of 8 or 16 bit."""
    height, width = image.shape[:2]
    kind = {1: 0, 3: 2, 4: 6}[1 if image.ndim == 2 else image.shape[2]]
    rows = image.astype(image.dtype.newbyteorder(">")).reshape(height, -1)
    lines = b"".join(b"\0" + row.tobytes() for row in rows)

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8 * image.itemsize, kind, 0, 0, 0)
    chunks = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def depth_message(stream: bytes, format_: str, a: float = 0.0, b: float = 0.0) -> SimpleNamespace:
    return compressed_message(struct.pack("<iff", 0, a, b) + stream, format_)


@pytest.mark.parametrize(
    "format_",
    [
        "jpeg",
        "jpg",
        "rgb8; jpeg compressed bgr8",
        "bgr8; jpeg compressed bgr8",
        "rgba8; jpeg compressed bgr8",
        "rgb16; jpeg compressed bgr8",
        "bayer_rggb8; jpeg compressed bgr8",
        "yuv422_yuy2; jpeg compressed bgr8",
        "8UC3; jpeg compressed ",
    ],
)
def test_color_jpeg(format_):
    image = decode_compressed(compressed_message(jpeg(smooth(3)), format_))
    assert image.dtype == np.uint8
    assert np.abs(image.astype(int) - smooth(3)).max() < 12


@pytest.mark.parametrize("format_", ["rgb8; jpeg compressed ", "bgr8; jpeg compressed rgb8"])
def test_color_jpeg_without_bgr_has_red_and_blue_swapped(format_):
    stream = jpeg(smooth(3)[..., ::-1])
    image = decode_compressed(compressed_message(stream, format_))
    assert np.abs(image.astype(int) - smooth(3)).max() < 12


def test_gray_jpeg():
    grey = smooth(3)[..., 1]
    for format_ in ("jpeg", "mono8; jpeg compressed ", "mono8; jpeg compressed mono8"):
        image = decode_compressed(compressed_message(jpeg(grey), format_))
        assert image.dtype == np.uint8
        assert np.abs(image.astype(int) - grey).max() < 6


def test_gray_jpeg_of_16_bit_is_on_the_scale_of_16_bit():
    grey = smooth(3)[..., 1]
    image = decode_compressed(compressed_message(jpeg(grey), "mono16; jpeg compressed mono8"))
    assert image.dtype == np.uint16
    assert np.abs(image.astype(int) - grey.astype(int) * 256).max() < 6 * 256


@given(
    channels=st.sampled_from([1, 3, 4]),
    bits=st.sampled_from([8, 16]),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=100, deadline=None)
def test_png_is_exact(channels, bits, height, width, seed):
    assume((height, width) != (1, 1))  # OpenCV 4.5 takes no single pixel of several channels
    shape = (height, width) if channels == 1 else (height, width, channels)
    dtype = np.uint8 if bits == 8 else np.uint16
    image = np.random.default_rng(seed).integers(0, 2**bits, shape, dtype=dtype)
    expected = image
    format_ = "png"
    if channels == 1:
        format_ = f"mono{bits}; png compressed "
    else:
        expected = (image[..., :3] // (1 if bits == 8 else 256)).astype(np.uint8)
        format_ = f"{'rgb' if channels == 3 else 'bgra'}{bits}; png compressed bgr{bits}"
    for name in ("png", format_):
        decoded = decode_compressed(compressed_message(png(image), name))
        assert decoded.dtype == expected.dtype
        np.testing.assert_array_equal(decoded, expected)


@pytest.mark.parametrize("channels", [3, 4])
def test_color_png_without_bgr_has_red_and_blue_swapped(channels):
    image = smooth(channels)
    stored = image[..., [2, 1, 0, 3][:channels]]
    format_ = f"{'rgb8' if channels == 3 else 'rgba8'}; png compressed "
    decoded = decode_compressed(compressed_message(png(stored), format_))
    np.testing.assert_array_equal(decoded, image[..., :3])


def test_16_bit_depth_png():
    depth = RANDOM.integers(0, 65536, (5, 7), dtype=np.uint16)
    for name in ("16UC1; png compressed ", "16UC1; png compressed 16UC1", "png"):
        np.testing.assert_array_equal(
            decode_compressed(compressed_message(png(depth), name)), depth
        )


@pytest.mark.parametrize("bits", [8, 16])
def test_bayer_png(bits):
    scale = 1 if bits == 8 else 256
    mosaic = np.zeros((6, 8), np.uint8 if bits == 8 else np.uint16)
    mosaic[0::2, 1::2] = 200 * scale  # grbg: red
    mosaic[1::2, 0::2] = 30 * scale  # blue
    mosaic[0::2, 0::2] = mosaic[1::2, 1::2] = 100 * scale
    message = compressed_message(png(mosaic), f"bayer_grbg{bits}; png compressed ")
    np.testing.assert_array_equal(
        decode_compressed(message), np.broadcast_to((200, 100, 30), (6, 8, 3))
    )
    raw = decode_compressed_raw(message)
    assert raw.dtype == mosaic.dtype
    np.testing.assert_array_equal(raw, mosaic)


def test_bayer_jpeg_that_was_made_gray_stays_gray():
    grey = smooth(3)[..., 1]
    message = compressed_message(jpeg(grey), "bayer_rggb8; jpeg compressed mono8")
    assert decode_compressed(message).shape == grey.shape
    message.format = "bayer_rggb8; jpeg compressed bayer_rggb8"
    assert decode_compressed(message).shape == (*grey.shape, 3)
    assert decode_compressed_raw(message).shape == grey.shape


def test_raw_needs_one_channel():
    with pytest.raises(DecodeError, match="3 channels"):
        decode_compressed_raw(compressed_message(png(smooth(3)), "rgb8; png compressed bgr8"))


def test_data_of_any_buffer():
    stream = png(smooth(3))
    for data in (bytearray(stream), array("B", stream), np.frombuffer(stream, np.uint8)):
        np.testing.assert_array_equal(
            decode_compressed(compressed_message(data, "png")), smooth(3)
        )


@pytest.mark.parametrize(
    ("format_", "encode"),
    [
        ("16UC1; compressedDepth", png),
        ("16UC1; compressedDepth ", png),
        ("16UC1; compressedDepth png", png),
        ("mono16; compressedDepth png", png),
        ("16UC1; compressedDepth rvl", encode_rvl),
    ],
)
def test_compressed_depth_of_16_bit(format_, encode):
    depth = RANDOM.integers(0, 9000, (9, 11), dtype=np.uint16)
    decoded = decode_compressed(depth_message(encode(depth), format_))
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, depth)


@pytest.mark.parametrize(("codec", "encode"), [("png", png), ("rvl", encode_rvl)])
def test_compressed_depth_of_float(codec, encode):
    """Quantized as image_transport_plugins does: count = A / depth + B, towards zero."""
    depth_max, quantization = 10.0, 100.0
    a = quantization * (quantization + 1.0)
    b = 1.0 - a / depth_max
    depth = RANDOM.uniform(0.3, depth_max, (9, 11)).astype(np.float32)
    counts = (a / depth + b).astype(np.uint16)
    counts[2, 3] = 0
    message = depth_message(encode(counts), f"32FC1; compressedDepth {codec}", a, b)
    decoded = decode_compressed(message)
    assert decoded.dtype == np.float32
    assert np.isnan(decoded[2, 3])
    known = counts > 0
    assert not np.isnan(decoded[known]).any()
    np.testing.assert_allclose(decoded[known], a / (counts[known] - b), rtol=1e-5)
    step = depth[known] ** 2 / a  # metres a count
    assert np.all(np.abs(decoded[known] - depth[known]) < 1.05 * step)


def test_compressed_depth_at_its_pole_is_infinite():
    counts = np.array([[7, 8]], np.uint16)
    decoded = decode_compressed(depth_message(png(counts), "32FC1; compressedDepth png", 5.0, 7.0))
    np.testing.assert_array_equal(decoded, [[np.inf, 5.0]])


GREY16 = png(RANDOM.integers(0, 65536, (5, 7), dtype=np.uint16))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (compressed_message(b"", "jpeg"), ["neither JPEG nor PNG", "no data"]),
        (compressed_message(b"RIFF1234WEBPVP8 ", "webp"), ["neither", "52 49 46 46"]),
        (compressed_message(png(smooth(3))[:15], "png"), ["neither", "15 bytes"]),
        (compressed_message(png(smooth(3))[:20], "png"), ["IEND", "20 bytes"]),
        (compressed_message(GREY16[:33] + b"\xda" + GREY16[34:], "png"), ["IEND"]),
        (compressed_message(GREY16[:-12] + b"\xda" + GREY16[-11:], "png"), ["IEND"]),
        (compressed_message(b"\xff\xd8\xff", "jpeg"), ["frame header"]),
        (compressed_message(jpeg(smooth(3)), None), ["not a text", "None"]),
        (compressed_message(None, "jpeg"), ["not bytes", "NoneType"]),
        (compressed_message([255, 216], "jpeg"), ["not bytes", "list"]),
        (compressed_message(GREY16[:16] + bytes(8) + GREY16[24:], "png"), ["0x0"]),
        (
            compressed_message(GREY16[:16] + struct.pack(">II", 9000, 8000) + GREY16[24:], "png"),
            ["67108864 pixels", "9000x8000"],
        ),
        (compressed_message(png(smooth(3))[:2], "bgr8; png compressed bgr8"), ["neither"]),
        (
            compressed_message(png(smooth(1)[:2, :2, 0]), "bayer_rggb8; png compressed "),
            ["3x3", "height 2, width 2"],
        ),
        (depth_message(GREY16, "8UC1; compressedDepth png"), ["16UC1, mono16 or 32FC1", "'8UC1'"]),
        (depth_message(GREY16, "compressedDepth png"), ["16UC1, mono16 or 32FC1", "''"]),
        (depth_message(b"", "16UC1; compressedDepth png"), ["header of 12", "12 bytes"]),
        (compressed_message(GREY16, "16UC1; compressedDepth png"), ["neither"]),
        (depth_message(GREY16, "16UC1; compressedDepth rvl"), ["RVL"]),
        (depth_message(png(smooth(3)), "16UC1; compressedDepth png"), ["one channel", "uint8"]),
        (depth_message(GREY16, "32FC1; compressedDepth png", np.nan), ["A = nan"]),
        (depth_message(GREY16, "32FC1; compressedDepth png", 0.0), ["A = 0.0"]),
        (depth_message(GREY16, "32FC1; compressedDepth png", 1.0, np.inf), ["B = inf"]),
    ],
)
def test_contradictions_are_named(message, words):
    with pytest.raises(DecodeError) as error:
        decode_compressed(message)
    for word in words:
        assert word in str(error.value)


def with_thumbnail(stream: bytes) -> bytes:
    """Insert an EXIF segment that holds a JPEG of its own, with an end marker."""
    content = b"Exif\0\0" + jpeg(smooth(1)[..., 0])
    return (
        stream[:2] + b"\xff\xff\xe1" + struct.pack(">H", len(content) + 2) + content + stream[2:]
    )


STREAMS = {
    "baseline": jpeg(smooth(3)),
    "progressive": jpeg(smooth(3), cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": jpeg(smooth(3), cv2.IMWRITE_JPEG_RST_INTERVAL, 1),
    "grey": jpeg(smooth(3)[..., 0]),
    "thumbnail": with_thumbnail(jpeg(smooth(3))),
    "png": png(smooth(3)),
    "png 16": GREY16,
}


@pytest.mark.parametrize("name", STREAMS)
def test_cut_off(name):
    for length in range(len(STREAMS[name])):
        with pytest.raises(DecodeError):
            decode_compressed(compressed_message(STREAMS[name][:length], ""))


def test_jpeg_padded_after_its_end():
    message = compressed_message(STREAMS["baseline"] + bytes(1000), "jpeg")
    np.testing.assert_array_equal(
        decode_compressed(message),
        decode_compressed(compressed_message(STREAMS["baseline"], "jpeg")),
    )


@given(
    name=st.sampled_from(["png", "png 16"]),
    place=st.floats(0, 1, exclude_max=True),
    flip=st.integers(1, 255),
)
@settings(max_examples=200, deadline=None)
def test_corrupt_png_is_refused(name, place, flip):
    stream = bytearray(STREAMS[name])
    index = 8 + int(place * (len(stream) - 8 - 12))  # up to IEND, which holds no pixels
    stream[index] ^= flip
    with pytest.raises(DecodeError):
        decode_compressed(compressed_message(bytes(stream), ""))


FORMATS = [
    "",
    "jpeg",
    ";",
    "rgb8; jpeg compressed ",
    "bayer_rggb8; png compressed ",
    "mono16; jpeg compressed mono8",
    "16UC1; compressedDepth png",
    "32FC1; compressedDepth rvl",
]


@given(
    name=st.sampled_from(sorted(STREAMS)),
    format_=st.one_of(st.sampled_from(FORMATS), st.text(max_size=10)),
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), max_size=4),
    end=st.integers(0, 40),
    before=st.binary(max_size=12),
)
@settings(max_examples=500, deadline=None)
def test_mutations_raise_only_decode_errors(name, format_, flips, end, before):
    stream = bytearray(STREAMS[name])
    for place, flip in flips:
        stream[int(place * len(stream))] ^= flip
    message = compressed_message(before + bytes(stream[: len(stream) - end]), format_)
    for decode in (decode_compressed, decode_compressed_raw):
        try:
            image = decode(message)
        except DecodeError:
            continue
        assert image.ndim == 2 or image.shape[2:] == (3,)
        assert image.dtype in (np.uint8, np.uint16, np.float32)


@pytest.mark.ros
def test_message_of_rclpy():
    messages = pytest.importorskip("sensor_msgs.msg")
    serialization = pytest.importorskip("rclpy.serialization")
    message = messages.CompressedImage(
        format="rgb8; png compressed bgr8", data=array("B", png(smooth(3)))
    )
    stored = serialization.serialize_message(message)
    read = serialization.deserialize_message(stored, messages.CompressedImage)
    np.testing.assert_array_equal(decode_compressed(read), smooth(3))
