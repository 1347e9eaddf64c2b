"""The stamp of a serialised message, without deserialising it."""

from __future__ import annotations

import struct

NANOSECONDS = 1_000_000_000
LATEST_NS = 2**31 * NANOSECONDS - 1
"""The last moment that builtin_interfaces/Time can name, in the year 2038."""
_BODY = 4
"""The encapsulation header: two bytes of kind (odd = little endian), two of options."""


def read_stamp(raw: bytes) -> int:
    """Stamp of a message whose first field is a std_msgs/Header.

    Args:
        raw: the message in CDR.

    Returns:
        Nanoseconds.
    """
    seconds, nanoseconds = struct.unpack_from(_layout(raw), raw, _BODY)
    return int(seconds) * NANOSECONDS + int(nanoseconds)


def with_stamp(raw: bytes, stamp_ns: int) -> bytes:
    """The same message with another stamp: nanoseconds, 0 to ``LATEST_NS``."""
    stamp = struct.pack(_layout(raw), *divmod(stamp_ns, NANOSECONDS))
    return raw[:_BODY] + stamp + raw[_BODY + len(stamp) :]


def _layout(raw: bytes) -> str:
    return "<iI" if raw[1] & 1 else ">iI"
