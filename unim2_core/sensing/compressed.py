"""``sensor_msgs/CompressedImage`` to arrays: JPEG, PNG and compressedDepth.

What ``format`` means follows image_transport_plugins: "ENCODING; CODEC compressed TARGET", where
ENCODING is what the camera sent and TARGET what the codec was given; or only "jpeg" or "png".
"""

from __future__ import annotations

import struct
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import DecodeError
from unim2_core.sensing.encodings import ENCODINGS, high_bytes, to_rgb
from unim2_core.sensing.frames import Array
from unim2_core.sensing.images import Bytes, byte_view
from unim2_core.sensing.rvl import decode_rvl

MAX_PIXELS = 1 << 26  # a few corrupt bytes must not make us allocate gigabytes

_JPEG = b"\xff\xd8\xff"
_JPEG_END = b"\xff\xd9"
_JPEG_SIZED = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a frame header
_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_DEPTH_HEADER = struct.Struct("<iff")  # kind (always 0), quantization A and B


@runtime_checkable
class CompressedImageMessage(Protocol):
    """The fields of ``sensor_msgs/CompressedImage`` that are read."""

    @property
    def format(self) -> str:
        """What was compressed, and how."""

    @property
    def data(self) -> Bytes:
        """The compressed stream."""


def decode_compressed(message: CompressedImageMessage) -> Array:
    """Decompress a colour, single-channel or depth image.

    Returns:
        (H, W, 3) uint8 RGB for colour, also from a compressed Bayer mosaic; (H, W) uint8 or
        uint16 for one channel; (H, W) float32 metres with NaN for a ``32FC1`` compressedDepth.

    Raises:
        DecodeError: the format or codec is not known, or the stream is cut off or corrupt.
    """
    image, source, target = _decompress(message)
    if image.ndim == 3:
        return _rgb(image, source, target)
    encoding = ENCODINGS.get(source)
    if encoding is not None and encoding.kind == "bayer" and "mono" not in target:
        if problem := encoding.size_problem(*image.shape):
            raise DecodeError(
                f"the size does not fit the encoding {source}",
                expected=problem,
                found=f"height {image.shape[0]}, width {image.shape[1]}",
                remedy="mend the camera's driver, or leave the sensor out of the rig",
            )
        return to_rgb(image, encoding)
    return image


def decode_compressed_raw(message: CompressedImageMessage) -> Array:
    """Decompress a single-channel image as it is; a Bayer encoding stays a mosaic.

    Returns:
        (H, W) uint8, uint16 or float32.

    Raises:
        DecodeError: as ``decode_compressed``, or the image has more than one channel.
    """
    image, _, _ = _decompress(message)
    if image.ndim == 3:
        raise DecodeError(
            "a sensor mosaic has one channel",
            expected="a compressed mono or bayer encoding",
            found=f"{image.shape[2]} channels in {message.format!r}",
            remedy="set the driver's pixel format to the raw sensor",
        )
    return image


def _decompress(message: CompressedImageMessage) -> tuple[Array, str, str]:
    """Decompress to what OpenCV gives, with the parts of ``format``: source and target."""
    name = getattr(message, "format", None)
    if not isinstance(name, str):
        raise DecodeError(
            "the compressed image's field format is not a text",
            expected="text such as 'bgr8; jpeg compressed bgr8'",
            found=repr(name),
            remedy="mend the camera's driver, or leave the sensor out of the rig",
        )
    data = byte_view(message)
    head, separator, tail = name.partition(";")
    source, codec = (head.strip(), tail) if separator else ("", head)
    if "compressedDepth" in codec:
        return _decode_depth(data, source, codec), source, ""
    image = _decode_stream(data)
    if source in ("mono16", "16UC1") and image.dtype == np.uint8 and image.ndim == 2:
        # JPEG holds the high byte of a 16-bit image; scales and units are of the 16 bits.
        image = image.astype(np.uint16) << 8
    return image, source, codec.partition("compressed")[2].strip()


def _rgb(image: Array, source: str, target: str) -> Array:
    """Turn (H, W, 3 or 4) from OpenCV into RGB."""
    # Without "compressed bgr" the codec was given RGB as if it were BGR, so what OpenCV calls
    # blue is red: image_transport's subscriber reads it the same way.
    is_swapped = source.startswith(("rgb", "bgr")) and not target.startswith("bgr")
    image = high_bytes(image)
    if image.shape[2] == 4:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2BGR if is_swapped else cv2.COLOR_BGRA2RGB)
    elif not is_swapped:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return image


def _decode_stream(data: memoryview) -> Array:
    """Decode a JPEG or PNG after a look at its size and end.

    Left alone, OpenCV 4 returns a JPEG that was cut off with its lower part grey, and OpenCV 5
    allocates what the length of a PNG chunk says, which one wrong bit makes gigabytes.

    Returns:
        (H, W), (H, W, 3) BGR or (H, W, 4) BGRA, uint8 or uint16.
    """
    start = bytes(data[: len(_PNG)])
    if start.startswith(_JPEG):
        height, width = _jpeg_size(data)
    elif start == _PNG:
        height, width = _png_size(data)
    else:
        raise DecodeError(
            "the compressed image is neither JPEG nor PNG",
            expected="a stream that starts as JPEG (ff d8 ff) or PNG (89 50 4e 47)",
            found=f"{data.nbytes} bytes: {start.hex(' ')}" if start else "no data",
            remedy="set the image_transport plugin's format to jpeg or png",
        )
    if not 0 < width * height <= MAX_PIXELS:
        raise _corrupt(f"a size of 1 to {MAX_PIXELS} pixels", f"{width}x{height}")
    try:
        image: Array | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _corrupt("a whole JPEG or PNG", str(error).strip()) from error
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise _corrupt("a whole JPEG or PNG", f"{data.nbytes} bytes that do not decode")
    return image


def _jpeg_size(data: memoryview) -> tuple[int, int]:
    """Find height and width in a JPEG's frame header, and that the stream has its end.

    The end marker cannot occur inside the image data; it can before the frame header, in a
    thumbnail. Some cameras pad after it.
    """
    position = 2
    while position + 9 <= data.nbytes and data[position] == 0xFF:
        marker, length = struct.unpack_from(">BH", data, position + 1)
        if marker in _JPEG_SIZED:
            if bytes(data[position:]).rfind(_JPEG_END) < 0:
                raise _corrupt("the end marker ff d9", f"none in {data.nbytes} bytes")
            height, width = struct.unpack_from(">HH", data, position + 5)
            return int(height), int(width)
        position += 1 if marker == 0xFF else 2 + int(length)  # ff ff: filling
    raise _corrupt("a JPEG frame header", f"none in {data.nbytes} bytes")


def _png_size(data: memoryview) -> tuple[int, int]:
    """Find height and width in a PNG, and that its chunks lead to the end chunk."""
    position = len(_PNG) + 17  # width, height, 5 bytes more and a checksum
    while position + 12 <= data.nbytes:
        length, kind = struct.unpack_from(">I4s", data, position)
        if kind == b"IEND" and length == 0:
            width, height = struct.unpack_from(">II", data, len(_PNG))
            return int(height), int(width)
        position += 12 + int(length)
    raise _corrupt("the end chunk IEND", f"none in {data.nbytes} bytes")


def _decode_depth(data: memoryview, source: str, codec: str) -> Array:
    """Decode compressedDepth: a header, then uint16 depth, or inverse depth for ``32FC1``.

    Returns:
        (H, W) uint16 counts, or float32 metres with NaN where there is no depth.
    """
    if source not in ("16UC1", "mono16", "32FC1"):
        raise DecodeError(
            "unknown encoding of a compressed depth image",
            expected="16UC1, mono16 or 32FC1",
            found=repr(source),
            remedy="mend the camera's driver, or leave the sensor out of the rig",
        )
    if data.nbytes <= _DEPTH_HEADER.size:
        raise _corrupt(f"a header of {_DEPTH_HEADER.size} bytes", f"{data.nbytes} bytes")
    _, scale, shift = _DEPTH_HEADER.unpack_from(data)
    stream = data[_DEPTH_HEADER.size :]
    counts: Array
    if codec.split()[-1] == "rvl":
        counts = decode_rvl(stream, MAX_PIXELS)
    else:  # "compressedDepth png", or without a codec from before there was a choice
        counts = _decode_stream(stream)
    if counts.dtype != np.uint16 or counts.ndim != 2:
        raise _corrupt("one channel of 16 bit", f"{counts.dtype} of shape {counts.shape}")
    return _inverse_depth(counts, scale, shift) if source == "32FC1" else counts


def _inverse_depth(counts: NDArray[np.uint16], scale: float, shift: float) -> NDArray[np.float32]:
    """Depth = scale / (count - shift) in metres, NaN where the count is zero."""
    if not (np.isfinite(scale) and np.isfinite(shift) and scale > 0):
        raise _corrupt("finite quantization parameters", f"A = {scale}, B = {shift}")
    depth = counts.astype(np.float32)
    depth -= np.float32(shift)
    with np.errstate(divide="ignore"):  # infinite where the count is the shift: out of range
        np.divide(np.float32(scale), depth, out=depth)
    depth[counts == 0] = np.nan
    return depth


def _corrupt(expected: str, found: str) -> DecodeError:
    return DecodeError(
        "the compressed image is cut off or corrupt",
        expected=expected,
        found=found,
        remedy="look for a bag or link that loses data",
    )
