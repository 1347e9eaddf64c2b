"""Thermal cameras: radiometric counts to kelvin, and a running range for those that are not."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.sensing.rig import ThermalDecode

_KELVIN_PER_COUNT = {"centikelvin": 0.01, "decikelvin": 0.1}
KELVIN_COUNTS = tuple(_KELVIN_PER_COUNT)
"""Conversions of counts that start at 0 K: no scene has temperatures that fit eight bits."""
_SAMPLES = 16_384


def thermal_values(counts: NDArray[Any], decode: ThermalDecode) -> tuple[NDArray[np.float32], str]:
    """Counts of a thermal camera as kelvin, or as they are where the camera is not radiometric.

    Args:
        counts: (H, W) of any integer or float dtype.
        decode: how the camera counts.

    Returns:
        (H, W) float32 and its unit, "K" or "counts". Float counts that are not finite become 0.
    """
    if decode.conversion == "relative":
        scale, offset, unit = 1.0, 0.0, "counts"
    elif decode.conversion == "scale_offset":
        scale, offset, unit = decode.scale, decode.offset, "K"
    else:
        scale, offset, unit = _KELVIN_PER_COUNT[decode.conversion], 0.0, "K"
    values = counts.astype(np.float32)
    if scale != 1.0:
        values *= np.float32(scale)
    if offset != 0.0:
        values += np.float32(offset)
    if counts.dtype.kind == "f":
        np.nan_to_num(values, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return values, unit


class RunningRange:
    """A robust range of values that follows a stream, to map it to [0, 1] without flicker.

    Each image gives its 1st and 99th percentile. The range moves towards them by
    ``1 - 2 ** (-dt / half_life_s)``, where dt is the time between the images' *stamps*: the same
    drive gives the same range at any frame rate, and in any run. The first image sets the range;
    so does the first after the clock jumped back. An image with the stamp of the last one leaves
    the range as it is, so encoding a frame twice gives the same result.

    Args:
        half_life_s: time after which an old range counts half; 0 = every image its own range,
            for images that are not a stream.
        min_span: smallest width of the range in counts, so that noise of a uniform scene is not
            stretched to full contrast.
        percentiles: of the values, in percent.
    """

    def __init__(
        self,
        half_life_s: float = 5.0,
        min_span: float = 8.0,
        percentiles: tuple[float, float] = (1.0, 99.0),
    ) -> None:
        self.half_life_s = half_life_s
        self.min_span = min_span
        self.percentiles = percentiles
        self._bounds: NDArray[np.float64] | None = None
        self._stamp_ns = 0

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Lowest and highest value of the range, counts; None before the first image."""
        return None if self._bounds is None else (float(self._bounds[0]), float(self._bounds[1]))

    def reset(self) -> None:
        """Forget the stream; the next image sets the range."""
        self._bounds = None

    def update(
        self,
        values: NDArray[np.float32],
        stamp_ns: int,
        valid: NDArray[np.bool_] | None = None,
    ) -> None:
        """Let the range follow an image.

        Args:
            values: (H, W) float32, counts.
            stamp_ns: stamp of the image, nanoseconds.
            valid: (H, W) bool; None = all. An image without any valid pixel changes nothing.
        """
        dt_s = (stamp_ns - self._stamp_ns) * 1e-9
        if self._bounds is not None and dt_s == 0.0 and self.half_life_s > 0:
            return
        stride = max(1, int((values.size / _SAMPLES) ** 0.5))
        sample = values[::stride, ::stride]
        if valid is not None:
            sample = sample[valid[::stride, ::stride]]
        if sample.size == 0:
            return
        bounds = np.percentile(sample, self.percentiles).astype(np.float64)
        if self._bounds is not None and dt_s > 0.0 and self.half_life_s > 0:
            kept = 2.0 ** (-dt_s / self.half_life_s)
            bounds += kept * (self._bounds - bounds)
        self._bounds, self._stamp_ns = bounds, stamp_ns

    def normalize(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map values to [0, 1], clipped; 0.5 everywhere before the first image.

        A range narrower than ``min_span`` is widened around its middle, so a constant image
        becomes 0.5.
        """
        if self._bounds is None:
            return np.full_like(values, 0.5)
        middle = self._bounds.mean()
        span = max(self._bounds[1] - self._bounds[0], self.min_span)
        unit = (values - np.float32(middle)) * np.float32(1.0 / span) + np.float32(0.5)
        return np.clip(unit, 0.0, 1.0, out=unit)
