"""RVL, the run-length code for depth images that ``compressedDepth rvl`` carries.

A. D. Wilson, "Fast Lossless Depth Image Compression", ISS 2017. The stream is a sequence of
numbers in groups of three bits, least significant group first, each in a nibble whose high bit
says that more follow; eight nibbles fill a 32-bit word from its high end. The numbers are: how
many zeros, how many non-zeros, then for each of these its difference to the last non-zero depth,
folded to be positive (0, -1, 1, -2, ... -> 0, 1, 2, 3, ...); and so on to the end of the image.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import DecodeError

_SIZE = struct.Struct("<II")
_LONGEST = 10  # nibbles of a number, 30 bits: more than any image's run or difference needs


def decode_rvl(data: memoryview, max_pixels: int) -> NDArray[np.uint16]:
    """Decompress an image: width and height as little-endian uint32, then the stream.

    Args:
        data: the bytes after the header of ``compressedDepth``.
        max_pixels: a larger image is taken as corrupt.

    Returns:
        (H, W) uint16.

    Raises:
        DecodeError: the stream is cut off, or its runs do not fill the image exactly.
    """
    if data.nbytes < _SIZE.size:
        raise _corrupt(f"width and height in {_SIZE.size} bytes", f"{data.nbytes} bytes")
    width, height = _SIZE.unpack_from(data)
    if not 0 < width * height <= max_pixels:
        raise _corrupt(f"a size of 1 to {max_pixels} pixels", f"{width}x{height}")

    numbers = _numbers(data[_SIZE.size :])
    heads, runs = _runs(numbers, width * height)
    is_difference = np.ones(heads[-1] + 2 + runs[-1], np.bool_)
    if numbers.size - is_difference.size > 7:  # what the padding of a word can hold
        raise _corrupt(f"runs for {width}x{height} pixels", "more data after the last one")
    is_difference[heads] = False
    is_difference[np.add(heads, 1)] = False
    folded = numbers[: is_difference.size][is_difference]
    depth = np.cumsum((folded >> 1) ^ -(folded & 1), dtype=np.int32)  # wraps, as the code does

    image = np.zeros(width * height, np.uint16)
    is_depth = np.repeat(np.arange(len(runs)) % 2 == 1, runs)  # zeros, non-zeros, zeros, ...
    image[is_depth] = depth.astype(np.uint16)
    return image.reshape(height, width)


def _numbers(stream: memoryview) -> NDArray[np.int32]:
    """Read all numbers of the stream; zeros may follow, from the padding of the last word."""
    words = np.frombuffer(stream, "<u4", stream.nbytes // 4)
    pairs = words.astype(">u4").view(np.uint8)  # two nibbles a byte, the first one high
    nibbles = np.stack((pairs >> 4, pairs & 15), axis=-1).ravel()

    last = np.flatnonzero(nibbles < 8)  # (N,) where each number ends
    first = np.concatenate(([0], last[:-1] + 1))[: last.size]
    length = last - first
    if last.size and length.max() >= _LONGEST:
        raise _corrupt(f"numbers of up to {_LONGEST} nibbles", f"one of {length.max() + 1}")
    numbers = (nibbles[first] & 7).astype(np.int32)
    place = 0
    while (longer := np.flatnonzero(length > place)).size:
        place += 1
        numbers[longer] |= (nibbles[first[longer] + place] & 7).astype(np.int32) << 3 * place
    return numbers


def _runs(numbers: NDArray[np.int32], pixels: int) -> tuple[list[int], list[int]]:
    """Follow the runs through the numbers until the image is full.

    Returns:
        The positions in ``numbers`` where a pair of run lengths stands, and the lengths: zeros,
        non-zeros, zeros, ...
    """
    heads: list[int] = []
    runs: list[int] = []
    view = numbers.data  # a third of the time of indexing the array
    head, filled = 0, 0
    while filled < pixels:
        if head + 1 >= len(view):
            raise _corrupt(f"runs for {pixels} pixels", f"the end after {filled}")
        zeros, others = view[head], view[head + 1]
        heads.append(head)
        runs += (zeros, others)
        filled += zeros + others
        head += 2 + others
    if filled > pixels or head > len(view):
        raise _corrupt(f"runs for {pixels} pixels", f"runs for {filled}, {len(view)} numbers")
    return heads, runs


def _corrupt(expected: str, found: str) -> DecodeError:
    return DecodeError(
        "the RVL depth image is corrupt",
        expected=expected,
        found=found,
        remedy="record it again, or publish depth as PNG",
    )
