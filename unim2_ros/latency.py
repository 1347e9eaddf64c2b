"""Latencies of the last outputs, for diagnostics."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np

WINDOW = 300
"""Outputs that the percentiles are taken over: half a minute at 10 Hz."""

PERCENTILES = (50, 95, 99)


class LatencyWindow:
    """Stage -> milliseconds of the last ``WINDOW`` outputs."""

    def __init__(self) -> None:
        self._stages: dict[str, deque[float]] = {}

    def add(self, stages_ms: Mapping[str, float]) -> None:
        """Note the latencies of one output."""
        for stage, milliseconds in stages_ms.items():
            self._stages.setdefault(stage, deque(maxlen=WINDOW)).append(milliseconds)

    def percentiles(self) -> dict[str, tuple[float, ...]]:
        """Stage -> 50th, 95th and 99th percentile, milliseconds."""
        return {
            stage: tuple(float(value) for value in np.percentile(list(values), PERCENTILES))
            for stage, values in list(self._stages.items())
        }
