"""The first fields of serialised messages, read without deserialising the rest."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from unim2_core.errors import DecodeError
from unim2_core.sensing.bag_storage import NANOSECONDS

IMAGE = "sensor_msgs/msg/Image"
COMPRESSED_IMAGE = "sensor_msgs/msg/CompressedImage"
IMAGE_TYPES = frozenset({IMAGE, COMPRESSED_IMAGE})

_ENCAPSULATION = 4
"""Bytes that say how the rest is serialised; alignment counts from behind them."""


@dataclass(frozen=True)
class RawHeader:
    """A std_msgs/Header at the start of a message.

    Attributes:
        stamp_ns: nanoseconds.
        frame_id: coordinate frame.
    """

    stamp_ns: int
    frame_id: str


def read_header(raw: bytes | memoryview) -> RawHeader:
    """Read the header of a message whose first field it is.

    Args:
        raw: the whole message in CDR, of either byte order.

    Raises:
        DecodeError: the bytes end too early, or are no plain CDR.
    """
    try:
        representation, options = raw[0], raw[1]
        if representation or options > 1:
            raise _malformed(f"representation {bytes(raw[:2]).hex()}")
        order = "<" if options else ">"
        seconds, nanoseconds, length = struct.unpack_from(f"{order}iII", raw, _ENCAPSULATION)
        start = _ENCAPSULATION + 12
        text = bytes(raw[start : start + length])
        if len(text) != length:
            raise _malformed(f"{len(raw)} bytes, with a string of {length}")
        # The length of a CDR string counts its terminating zero.
        return RawHeader(seconds * NANOSECONDS + nanoseconds, text.rstrip(b"\0").decode())
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise _malformed(f"{len(raw)} bytes: {error}") from error


def _malformed(found: str) -> DecodeError:
    return DecodeError(
        "a message has no readable header",
        expected="plain CDR that starts with a std_msgs/Header",
        found=found,
        remedy="the publisher or the recorder wrote it wrongly; leave this topic out",
    )
