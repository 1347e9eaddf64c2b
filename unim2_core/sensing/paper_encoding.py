"""Three uint8 channels as the published method makes them: preset ``paper``.

Its rules are kept to the letter, the odd ones too: the range of a float image is stretched to
uint8 image by image and truncated, and every image is resized with the nearest rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import DecodeError
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.depth import hha
from unim2_core.sensing.frames import Frame

Pixels = NDArray[np.uint8]


def stretch(image: NDArray[Any]) -> Pixels:
    """Minimum to 0 and maximum to 255, fractions cut; a constant image becomes zeros."""
    low, high = image.min(), image.max()
    if low == high:
        return np.zeros(image.shape, np.uint8)
    stretched: Pixels = ((image - low) / (high - low) * 255).astype(np.uint8)
    return stretched


def high_byte(image: NDArray[np.uint16]) -> Pixels:
    """16 bit to 8 bit by the high byte."""
    return (image >> 8).astype(np.uint8)


def three_times(channel: Pixels) -> Pixels:
    """(H, W) to (H, W, 3)."""
    return np.repeat(channel[..., None], 3, axis=2)


def stretched_angle(sine: NDArray[Any], cosine: NDArray[Any]) -> Pixels:
    """Sine, cosine and sine again, each stretched by itself."""
    first = stretch(sine)
    return np.stack((first, stretch(cosine), first), axis=-1)


def _rgb(frame: Frame, camera: Intrinsics | None) -> Pixels:
    rgb: Pixels = frame.data
    return rgb


def _hha(frame: Frame, camera: Intrinsics | None) -> Pixels:
    assert camera is not None  # Encoder.encode has checked
    fitting = camera.scaled((frame.height, frame.width))
    return hha(frame.data, frame.valid, fitting.fx, fitting.fy, fitting.cx, fitting.cy)


def _thermal(frame: Frame, camera: Intrinsics | None) -> Pixels:
    if frame.unit != "counts":
        raise DecodeError(
            "preset paper cannot encode radiometric thermal images",
            expected="8 bit counts (thermal conversion: relative)",
            found=f"unit {frame.unit!r}",
            remedy="use preset robot, or set the conversion to relative in the rig file",
        )
    return three_times(np.clip(frame.data, 0, 255).astype(np.uint8))


def _nir(frame: Frame, camera: Intrinsics | None) -> Pixels:
    counts = np.rint(np.clip(frame.data, 0.0, 1.0) * np.float32(65535)).astype(np.uint16)
    return three_times(high_byte(counts))


def _aolp(frame: Frame, camera: Intrinsics | None) -> Pixels:
    twice = frame.data[..., 2] * np.float32(2.0)
    return stretched_angle(np.sin(twice), np.cos(twice))


def _dolp(frame: Frame, camera: Intrinsics | None) -> Pixels:
    return three_times(stretch(frame.data[..., 1]))


PAPER_ENCODINGS: dict[str, Callable[[Frame, Intrinsics | None], Pixels]] = {
    "rgb": _rgb,
    "hha": _hha,
    "thermal": _thermal,
    "nir": _nir,
    "aolp": _aolp,
    "dolp": _dolp,
}
"""Modality -> encoding of a frame at the frame's own size, (H, W, 3) uint8."""
