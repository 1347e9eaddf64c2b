"""What is noted of one sensor's messages, and what is wrong with them, for diagnostics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from unim2_core.sensing.matching import LATE, LOST, TOO_OLD
from unim2_core.sensing.rig import Sensor

NANOSECONDS = 1_000_000_000
FUTURE_S = 0.5
"""Stamps this far ahead of the node's clock are wrong, whatever the clocks' accuracy."""
_NO_PARTNER = (LATE, LOST, TOO_OLD)


class SensorFacts:
    """The facts of one sensor since the last report.

    Args:
        sensor: how the rig describes it.

    Attributes:
        unusable: why an image of it could not be decoded; set by whoever decodes.
    """

    def __init__(self, sensor: Sensor) -> None:
        self.unusable = ""
        self._sensor = sensor
        self._stamp_ns = 0
        self._ahead_s = 0.0
        self._size = ""
        self._was = ""  # size before it changed
        self._sets = 0
        self._missing: Counter[str] = Counter()

    @property
    def newest_ns(self) -> int:
        """Its newest stamp with the rig's offset, nanoseconds; 0: none yet."""
        return self._stamp_ns + round(self._sensor.offset_s * NANOSECONDS) if self._stamp_ns else 0

    def note(self, message: Any, now_ns: int) -> None:
        """Take note of a message.

        Args:
            message: an Image or CompressedImage.
            now_ns: the node's clock, nanoseconds.
        """
        stamp = message.header.stamp
        arrival = self._sensor.stamp == "arrival"
        self._stamp_ns = now_ns if arrival else stamp.sec * NANOSECONDS + stamp.nanosec
        if now_ns:
            self._ahead_s = (self._stamp_ns - now_ns) / NANOSECONDS
        size = f"{message.width}x{message.height}" if hasattr(message, "width") else ""
        if size != self._size:
            self._was, self._size = self._size, size

    def note_set(self, missing: Mapping[str, str], name: str) -> None:
        """Take note of whether it is in a set.

        Args:
            missing: of the set.
            name: of this sensor.
        """
        self._sets += 1
        if name in missing:
            self._missing[missing[name]] += 1

    def take(self, reference_ns: int) -> tuple[str, dict[str, object]]:
        """What is wrong, in words, and the facts; counting begins anew.

        Args:
            reference_ns: newest stamp of the reference sensor; 0: none, or this is it.

        Returns:
            A sentence, empty where nothing is wrong; and key -> value.
        """
        sets, missing, was = self._sets, self._missing, self._was
        self._sets, self._missing, self._was = 0, Counter(), ""
        unusable, self.unusable = self.unusable, ""
        values: dict[str, object] = {"size": self._size}
        skew_s = None
        if reference_ns and self.newest_ns:
            skew_s = (self.newest_ns - reference_ns) / NANOSECONDS
            values["newest stamp minus the reference's s"] = f"{skew_s:.3f}"
        if sets:
            reasons = f": {dict(missing)}" if missing else ""
            values["images without it"] = f"{missing.total()} of {sets}{reasons}"
        if self._ahead_s > FUTURE_S:
            return (
                f"its stamps are {self._ahead_s:.1f} s in the future: synchronise the clocks "
                "(NTP, PTP), or set stamp: arrival for it in the rig"
            ), values
        unmatched = sum(missing[reason] for reason in _NO_PARTNER)
        if skew_s is not None and sets and unmatched == sets:
            return (
                f"not synchronisable: its newest stamp is {abs(skew_s):.3f} s "
                f"{'behind' if skew_s < 0 else 'ahead of'} the reference's, and max_age_s is "
                f"{self._sensor.max_age_s:g}: set its offset_s or max_age_s, or stamp: arrival"
            ), values
        changed = f"its images changed from {was} to {self._size}" if was else ""
        left_out = f"left out: {unusable}" if unusable else ""
        return "; ".join(filter(None, (changed, left_out))), values
