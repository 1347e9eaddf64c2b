"""At most so many images a second of one sensor, by their stamps."""

from __future__ import annotations

NANOSECONDS = 1_000_000_000


class RateLimit:
    """Takes images up to a rate and no more, on average too.

    An image is taken when one is due; what is due next counts from when this one was due, not
    from when it came, else jitter would cost images: of 30 Hz, 10 Hz would become 7.5. So two
    images may come closer than the period, but never more of them than the rate allows.

    Args:
        max_rate_hz: images a second; 0: all.
    """

    def __init__(self, max_rate_hz: float) -> None:
        self._period_ns = round(NANOSECONDS / max_rate_hz) if max_rate_hz else 0
        self._due_ns: int | None = None

    def takes(self, stamp_ns: int) -> bool:
        """Whether an image with this stamp, nanoseconds, is used.

        One whose stamp went back by more than a period begins anew: the clock was set.
        """
        if not self._period_ns:
            return True
        due_ns = self._due_ns
        if due_ns is not None and due_ns - self._period_ns <= stamp_ns < due_ns:
            return False
        on_time = due_ns is not None and due_ns <= stamp_ns < due_ns + self._period_ns
        self._due_ns = (due_ns if on_time and due_ns is not None else stamp_ns) + self._period_ns
        return True
