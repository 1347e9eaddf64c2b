"""Three uint8 channels that mean the same on every frame: preset ``robot``.

Every function takes a frame and the size wanted, averages what the sensor measured over the area
of each output pixel, and only then rounds to 8 bits. It returns (h, w, 3) uint8 and the validity
(h, w), None where all of it is valid.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.depth import hha
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.polarization import polarized, to_stokes
from unim2_core.sensing.resampling import Size, resize, resize_valid
from unim2_core.sensing.thermal import RunningRange

Encoded = tuple[NDArray[np.uint8], NDArray[np.bool_] | None]

# Below this share of full scale an intensity is read as darkness: nothing is divided by it.
_DARK = np.float32(1e-6)
_SMALLEST = np.float32(1e-3)  # depth, metres, or inverse depth, 1/m


def encode_rgb(frame: Frame, size: Size) -> Encoded:
    """Red, green, blue."""
    if frame.valid is None:
        return resize(frame.data, size), None
    values, valid = resize_valid(frame.data.astype(np.float32), frame.valid, size)
    return np.rint(values).astype(np.uint8), valid


def encode_depth(frame: Frame, size: Size, range_m: tuple[float, float]) -> Encoded:
    """Logarithm of the distance, near white and far black, three times.

    255 * ln(far / z) / ln(far / near): one level is the same *relative* step everywhere (2.1 % for
    0.3 to 60 m), as errors of a depth camera grow with distance. What is averaged is the inverse
    depth, which is linear in the image on every plane.
    """
    inverse, valid = _mean_inverse_depth(frame, size)
    near_m, far_m = range_m
    # Cut to the range first: also where nothing was measured, there is then no log of zero.
    octaves = np.log2(np.clip(inverse * np.float32(far_m), 1.0, far_m / near_m))
    return _grey(octaves, white=float(np.log2(far_m / near_m))), valid


def encode_hha(frame: Frame, size: Size, camera: Intrinsics) -> Encoded:
    """Disparity, height above ground and angle with gravity, scaled as in ``depth.hha``."""
    inverse, valid = _mean_inverse_depth(frame, size)
    depth_m = _inverse(inverse, inverse > 0)
    fitting = camera.scaled(size)
    pixels = hha(depth_m, valid, fitting.fx, fitting.fy, fitting.cx, fitting.cy)
    fitted = pixels[..., 2] > 0  # an angle is 38 or more: 0 is where no plane was found
    return pixels, None if fitted.all() else fitted


def encode_thermal(
    frame: Frame, size: Size, window_k: tuple[float, float], running: RunningRange
) -> Encoded:
    """Temperature over a fixed window, or counts over the stream's running range, three times."""
    values, valid = resize_valid(frame.data, frame.valid, size)
    if frame.unit == "K":
        low, high = window_k
        return _grey(np.maximum(values - np.float32(low), 0.0), white=high - low), valid
    running.update(frame.data, frame.stamp_ns, frame.valid)
    return _grey(running.normalize(values)), valid


def encode_nir(frame: Frame, size: Size) -> Encoded:
    """Share of full scale, three times."""
    values, valid = resize_valid(frame.data, frame.valid, size)
    return _grey(values), valid


def encode_intensity(frame: Frame, size: Size) -> Encoded:
    """S0 of a polarization camera, three times."""
    values, valid = resize_valid(np.ascontiguousarray(frame.data[..., 0]), frame.valid, size)
    return _grey(values), valid


def encode_dolp(frame: Frame, size: Size) -> Encoded:
    """Degree of linear polarization as it is, three times."""
    (s0, s1, s2), valid = _mean_stokes(frame, size)
    dolp = polarized(s1, s2)
    dolp /= np.maximum(s0, _DARK, out=s0)
    return _grey(dolp), valid


def encode_aolp(frame: Frame, size: Size) -> Encoded:
    """Angle of linear polarization a as sin 2a, cos 2a (each -1..1 to 0..255) and the DoLP.

    Without polarization there is no angle: both are then in the middle, and the DoLP is 0.
    """
    (s0, s1, s2), valid = _mean_stokes(frame, size)
    length = polarized(s1, s2)
    np.maximum(s0, _DARK, out=s0)
    dolp = length / s0
    np.maximum(length, _DARK, out=length)
    half = np.float32(0.5) / length
    for part in (s1, s2):  # -1..1 to 0..1
        part *= half
        part += np.float32(0.5)
    pixels: NDArray[np.uint8] = cv2.merge([_to_uint8(channel) for channel in (s2, s1, dolp)])
    return pixels, valid


def _mean_stokes(
    frame: Frame, size: Size
) -> tuple[list[NDArray[np.float32]], NDArray[np.bool_] | None]:
    """Mean S0, S1, S2 of the valid pixels, each (h, w); and the validity."""
    resized = [resize_valid(channel, frame.valid, size) for channel in to_stokes(frame.data)]
    return [channel for channel, _ in resized], resized[0][1]


def _mean_inverse_depth(
    frame: Frame, size: Size
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Mean of 1/z over the valid pixels, 1/m, 0 where not valid; and the validity."""
    depth_m: NDArray[np.float32] = frame.data
    measured = depth_m > 0 if frame.valid is None else frame.valid
    inverse = _inverse(depth_m, measured)
    return resize_valid(inverse, None if measured.all() else measured, size)


def _inverse(values: NDArray[np.float32], where: NDArray[np.bool_]) -> NDArray[np.float32]:
    """1 / values, 0 elsewhere."""
    divisor: NDArray[np.float32] = np.maximum(values, _SMALLEST)
    return where.astype(np.float32) / divisor


def _to_uint8(values: NDArray[np.float32], white: float = 1.0) -> NDArray[np.uint8]:
    """Values >= 0 to 0..255, rounded; ``white`` and above is 255. One pass, as OpenCV does it."""
    levels: NDArray[np.uint8] = cv2.convertScaleAbs(values, alpha=255.0 / white)
    return levels


def _grey(values: NDArray[np.float32], white: float = 1.0) -> NDArray[np.uint8]:
    """Values >= 0, (h, w), to three equal channels."""
    pixels: NDArray[np.uint8] = cv2.cvtColor(_to_uint8(values, white), cv2.COLOR_GRAY2RGB)
    return pixels
