"""``sensor_msgs/Image`` to arrays: colour as uint8 RGB, one channel in its own type."""

from __future__ import annotations

import operator
from array import array
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import DecodeError
from unim2_core.sensing.encodings import ENCODINGS, Encoding, to_rgb
from unim2_core.sensing.frames import Array

Bytes: TypeAlias = "bytes | bytearray | memoryview | array[int] | NDArray[np.uint8]"


class ImageMessage(Protocol):
    """The fields of ``sensor_msgs/Image`` that are read, from rclpy, rosbags or made by hand."""

    @property
    def height(self) -> int:
        """Rows, pixels."""

    @property
    def width(self) -> int:
        """Columns, pixels."""

    @property
    def encoding(self) -> str:
        """A name of ``sensor_msgs/image_encodings.hpp``."""

    @property
    def is_bigendian(self) -> int:
        """Whether samples of more than a byte have their high byte first."""

    @property
    def step(self) -> int:
        """Length of a row with its padding, bytes."""

    @property
    def data(self) -> Bytes:
        """The rows, ``step * height`` bytes."""


def decode_image(message: ImageMessage) -> Array:
    """Turn an image message into an array, without a copy where the bytes allow.

    rgb8 and single-channel images in native byte order share memory with the message.

    Returns:
        (H, W, 3) uint8 RGB for colour, Bayer and YUV encodings, 16 bit cut to the high byte;
        (H, W) uint8, uint16, int16 or float32 for single-channel encodings.

    Raises:
        DecodeError: a field has the wrong type, the encoding is not known, or size, step and
            data contradict each other.
    """
    encoding = _encoding(message)
    pixels = _pixels(message, encoding)
    return pixels if encoding.kind == "mono" else to_rgb(pixels, encoding)


def decode_raw(message: ImageMessage) -> Array:
    """Turn a single-channel message into an array of what each photosite measured.

    A Bayer encoding is taken as its mosaic, which is how polarization cameras need it.

    Returns:
        (H, W) uint8, uint16, int16 or float32, shared with the message in native byte order.

    Raises:
        DecodeError: as ``decode_image``, or the encoding has more than one channel.
    """
    encoding = _encoding(message)
    if encoding.kind not in ("mono", "bayer"):
        raise DecodeError(
            "a sensor mosaic has one channel",
            expected="mono8, mono16, 8UC1, 16UC1 or a bayer encoding",
            found=message.encoding,
            remedy="set the driver's pixel format to the raw sensor",
        )
    return _pixels(message, encoding)


def byte_view(message: object) -> memoryview:
    """See the field ``data`` of a message as flat bytes, without a copy.

    Raises:
        DecodeError: it is not a contiguous buffer of bytes.
    """
    data = getattr(message, "data", None)
    try:
        view = memoryview(data)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise _wrong_data(type(data).__name__) from error
    if view.itemsize != 1 or not view.c_contiguous:
        layout = "contiguous" if view.c_contiguous else "strided"
        raise _wrong_data(f"{layout} {type(data).__name__} with items of {view.itemsize} bytes")
    return view.cast("B") if view.nbytes else memoryview(b"")


def _wrong_data(found: str) -> DecodeError:
    return DecodeError(
        "the message's data are not bytes",
        expected="contiguous bytes: bytes, array('B') or a NumPy array of uint8",
        found=found,
        remedy="mend the camera's driver, or leave the sensor out of the rig",
    )


def _encoding(message: ImageMessage) -> Encoding:
    name = getattr(message, "encoding", None)
    encoding = ENCODINGS.get(name) if isinstance(name, str) else None
    if encoding is None:
        raise DecodeError(
            "unknown image encoding",
            expected=", ".join(ENCODINGS),
            found=repr(name),
            remedy="set the camera driver's encoding to one of these",
        )
    return encoding


def _integer(message: object, field: str) -> int:
    value: Any = getattr(message, field, None)
    try:
        return operator.index(value)
    except TypeError as error:
        raise DecodeError(
            f"the image message's field {field} is not an integer",
            expected="an integer",
            found=f"{value!r} ({type(value).__name__})",
            remedy="mend the camera's driver, or leave the sensor out of the rig",
        ) from error


def _pixels(message: ImageMessage, encoding: Encoding) -> Array:
    """View the samples as (rows, W) or (rows, W, samples), native byte order."""
    height, width, step, big_endian = (
        _integer(message, field) for field in ("height", "width", "step", "is_bigendian")
    )
    if height < 1 or width < 1:
        raise DecodeError(
            "the image is empty",
            expected="a height and width of at least one pixel",
            found=f"height {height}, width {width}",
            remedy="mend the camera's driver, or leave the sensor out of the rig",
        )
    if problem := encoding.size_problem(height, width):
        raise DecodeError(
            f"the size does not fit the encoding {message.encoding}",
            expected=problem,
            found=f"height {height}, width {width}",
            remedy="mend the camera's driver, or leave the sensor out of the rig",
        )
    if step < width * encoding.pixel_bytes or step % encoding.sample.itemsize:
        raise DecodeError(
            "the step is not the length of a row",
            expected=f"at least {width * encoding.pixel_bytes} bytes in whole samples of "
            f"{encoding.sample.itemsize} for {width} pixels of {message.encoding}",
            found=f"step {step}",
            remedy="mend the driver: step is the length of a row in bytes, with its padding",
        )
    data = byte_view(message)
    rows = encoding.rows(height)
    # The message's definition leaves no room for excess, and cv_bridge refuses it too: a longer
    # buffer most often means that the height or the encoding is wrong.
    if data.nbytes != rows * step:
        raise DecodeError(
            "the message's data have another length than its size says",
            expected=f"{rows} rows x step {step} = {rows * step} bytes",
            found=f"{data.nbytes} bytes",
            remedy="mend the driver: data hold exactly height rows of step bytes",
        )
    shape = (rows, width) if encoding.samples == 1 else (rows, width, encoding.samples)
    strides = (step, encoding.pixel_bytes, encoding.sample.itemsize)[: len(shape)]
    stored = encoding.sample.newbyteorder(">" if big_endian else "<")
    pixels: Array = np.ndarray(shape, stored, buffer=data, strides=strides)
    return pixels.astype(encoding.sample, copy=False)
