from __future__ import annotations

import numpy as np
import pytest

from unim2_core.sensing.bag_messages import image_message
from unim2_core.sensing.bag_types import standard_types
from unim2_ros.cdr import read_stamp, with_stamp

STAMP_NS = 1_700_000_123_456_789_012


@pytest.mark.parametrize("little_endian", [True, False])
def test_stamp_is_read_and_replaced_and_nothing_else(little_endian: bool) -> None:
    store = standard_types()
    message = image_message(np.arange(12, dtype=np.uint8).reshape(3, 4), "mono8", STAMP_NS, "cam")
    raw = bytes(store.serialize_cdr(message, "sensor_msgs/msg/Image", little_endian=little_endian))
    assert read_stamp(raw) == STAMP_NS
    moved = with_stamp(raw, STAMP_NS + 5_000_000_001)
    decoded = store.deserialize_cdr(moved, "sensor_msgs/msg/Image")
    assert (decoded.header.stamp.sec, decoded.header.stamp.nanosec) == (1_700_000_128, 456_789_013)
    assert decoded.header.frame_id == "cam"
    np.testing.assert_array_equal(decoded.data, message.data)
    assert len(moved) == len(raw)
