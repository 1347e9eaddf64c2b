from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unim2_core.errors import DecodeError
from unim2_core.sensing.rvl import decode_rvl


def encode_rvl(image: np.ndarray) -> bytes:
    """The paper's encoder, one nibble at a time."""
    nibbles: list[int] = []

    def put(number: int) -> None:
        while True:
            group, number = number & 7, number >> 3
            nibbles.append(group | (8 if number else 0))
            if not number:
                return

    pixels = image.ravel().tolist()
    previous = position = 0
    while position < len(pixels):
        zeros = position
        while position < len(pixels) and pixels[position] == 0:
            position += 1
        put(position - zeros)
        start = position
        while position < len(pixels) and pixels[position] != 0:
            position += 1
        put(position - start)
        for depth in pixels[start:position]:
            difference = depth - previous
            put(2 * difference if difference >= 0 else -2 * difference - 1)
            previous = depth
    nibbles += [0] * (-len(nibbles) % 8)
    words = [
        sum(nibble << 28 - 4 * place for place, nibble in enumerate(nibbles[start : start + 8]))
        for start in range(0, len(nibbles), 8)
    ]
    return struct.pack(f"<II{len(words)}I", image.shape[1], image.shape[0], *words)


def decode(stream: bytes) -> np.ndarray:
    return decode_rvl(memoryview(stream), max_pixels=10_000)


@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    largest=st.sampled_from([1, 7, 300, 65535]),
    holes=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=200, deadline=None)
def test_round_trip(height, width, largest, holes, seed):
    random = np.random.default_rng(seed)
    image = random.integers(0, largest + 1, (height, width), dtype=np.uint16)
    image[random.random((height, width)) < holes] = 0
    decoded = decode(encode_rvl(image))
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, image)


def test_published_layout():
    """5 zeros, then 2 depths 3 and 1: the numbers 5 2 6 3, then the end of the word."""
    stream = struct.pack("<III", 7, 1, 0x52630000)
    np.testing.assert_array_equal(decode(stream), [[0, 0, 0, 0, 0, 3, 1]])


IMAGE = np.arange(48, dtype=np.uint16).reshape(6, 8) * 700
STREAM = encode_rvl(IMAGE)


@pytest.mark.parametrize("length", range(0, len(STREAM) - 3))
def test_cut_off(length):
    with pytest.raises(DecodeError, match="RVL"):
        decode(STREAM[:length])


@pytest.mark.parametrize(
    ("stream", "words"),
    [
        (struct.pack("<III", 0, 6, 0), "0x6"),
        (struct.pack("<III", 2**31, 2**31, 0), "2147483648x2147483648"),
        (struct.pack("<III", 7, 1, 0x62630000), "runs for 8"),  # one zero more than pixels
        (struct.pack("<IIII", 7, 1, 0x52630000, 0), "more data"),
        (struct.pack("<III", 7, 1, 0xFFFFFFFF), "the end after 0"),  # a number without an end
        (struct.pack("<IIII", 7, 1, 0xFFFFFFFF, 0xFFFFFF00), "15"),
    ],
)
def test_contradictions_are_named(stream, words):
    with pytest.raises(DecodeError, match=words):
        decode(stream)


@given(flips=st.lists(st.integers(0, len(STREAM) * 8 - 1), min_size=1, max_size=4))
@settings(max_examples=300, deadline=None)
def test_mutations_raise_only_decode_errors(flips):
    stream = bytearray(STREAM)
    for bit in flips:
        stream[bit // 8] ^= 1 << bit % 8
    try:
        image = decode(bytes(stream))
    except DecodeError:
        return
    assert image.shape == struct.unpack_from("<II", stream)[::-1]
