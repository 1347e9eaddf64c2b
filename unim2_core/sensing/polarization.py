"""Polarization cameras: whatever layout they send, to S0, DoLP and AoLP.

Every function returns float32 (h, w, 3) with

- S0, the intensity, in [0, 1] of the sensor's full scale,
- DoLP, the degree of linear polarization, in [0, 1],
- AoLP, the angle of linear polarization, in radians [0, pi), 0 where DoLP is 0.

An angle is never averaged: it is cyclic with period pi, and meaningless where the light is not
polarized. What is averaged are the Stokes parameters, S1 = S0 DoLP cos 2a and S2 = S0 DoLP sin 2a,
which weighs every angle by the polarized light that carries it.
"""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import DecodeError
from unim2_core.sensing.resampling import Size, resize

Image = NDArray[Any]
Channel = NDArray[np.float32]  # (h, w)
Polarization = NDArray[np.float32]  # (h, w, 3)
Angles = tuple[int, int, int, int]
Bayer = Literal["rggb", "bggr", "grbg", "gbrg"]

_LUMA = {"r": 0.299, "g": 0.587 / 2, "b": 0.114}  # ITU-R BT.601; two greens in each cell
_ARCTANGENT = (
    *(0.0028662257, -0.0161657367, 0.0429096138, -0.0752896400),
    *(0.1065626393, -0.1420889944, 0.1999355085, -0.3333314528),
)
"""Of x to the 17th, 15th, ... third; that of x is 1."""
_LARGEST = np.float32(1e18)
"""Of counts: sums of squares of Stokes parameters stay finite in float32."""


def from_angles(i0: Image, i45: Image, i90: Image, i135: Image, full_scale: float) -> Polarization:
    """Four images behind a polarizer at 0, 45, 90 and 135 degrees.

    S0 = (I0 + I45 + I90 + I135) / 2, S1 = I0 - I90, S2 = I45 - I135. A polarizer passes half of
    unpolarized light, so S0 reaches 2 full scales; it is returned over that.

    Args:
        i0: (h, w) of any dtype; the others alike.
        i45: see ``i0``.
        i90: see ``i0``.
        i135: see ``i0``.
        full_scale: count of white, > 0.

    Raises:
        DecodeError: the images differ in shape.
    """
    shapes = {image.shape for image in (i0, i45, i90, i135)}
    if len(shapes) != 1 or i0.ndim != 2:
        raise DecodeError(
            "the four polarizer angles do not fit together",
            expected="four one-channel images of one size",
            found=", ".join(str(image.shape) for image in (i0, i45, i90, i135)),
            remedy="publish all four angles at the same resolution",
        )
    # In place, on the copies that _finite made: fresh memory costs more than the sums.
    s1, s2, i90, i135 = (_finite(image) for image in (i0, i45, i90, i135))
    s0 = s1 + s2
    s0 += i90
    s0 += i135
    s0 *= np.float32(0.5)
    s1 -= i90
    s2 -= i135
    return _combine(s0, s1, s2, 2.0 * full_scale)


def from_stokes(s0: Image, s1: Image, s2: Image, full_scale: float) -> Polarization:
    """Stokes parameters, in counts of one scale.

    Args:
        s0: (h, w) intensity.
        s1: (h, w) horizontal minus vertical.
        s2: (h, w) diagonal minus antidiagonal.
        full_scale: value of ``s0`` that becomes 1, > 0.

    Raises:
        DecodeError: the images differ in shape.
    """
    if not s0.shape == s1.shape == s2.shape or s0.ndim != 2:
        raise DecodeError(
            "the Stokes images do not fit together",
            expected="three one-channel images of one size",
            found=f"{s0.shape}, {s1.shape}, {s2.shape}",
            remedy="publish s0, s1 and s2 at the same resolution",
        )
    return _combine(_finite(s0), _finite(s1), _finite(s2), full_scale)


def from_mosaic_2x2(mosaic: Image, angles_deg: Angles, full_scale: float) -> Polarization:
    """A monochrome sensor with four polarizers on every 2x2 pixels.

    Args:
        mosaic: (H, W) of any dtype; an odd last row or column is cut.
        angles_deg: polarizer angle at (0,0), (0,1), (1,0), (1,1) of a block: 0, 45, 90, 135 in
            any order.
        full_scale: count of white, > 0.

    Returns:
        (H // 2, W // 2, 3): one pixel for each block. The four samples of a block see slightly
        different points, so DoLP is too high on the sharpest edges.

    Raises:
        DecodeError: the mosaic is smaller than a block.
    """
    mosaic = _whole_blocks(mosaic, 2)
    samples = (mosaic[0::2, 0::2], mosaic[0::2, 1::2], mosaic[1::2, 0::2], mosaic[1::2, 1::2])
    by_angle = dict(zip(angles_deg, samples, strict=True))
    return from_angles(by_angle[0], by_angle[45], by_angle[90], by_angle[135], full_scale)


def from_mosaic_bayer_4x4(
    mosaic: Image, angles_deg: Angles, bayer: Bayer, full_scale: float
) -> Polarization:
    """A colour sensor: 2x2 polarizers on every pixel of a Bayer cell, 4x4 pixels in all.

    The result is of luminance (ITU-R BT.601 weights of the four colour blocks, white balance
    left as the camera sends it): no colour interpolation can then pose as polarization.

    Args:
        mosaic: (H, W) of any dtype; rows and columns beyond whole cells are cut.
        angles_deg: as in ``from_mosaic_2x2``, the same in the four blocks of a cell.
        bayer: colour of the blocks at (0,0), (0,1), (1,0), (1,1) of a cell.
        full_scale: count of white, > 0.

    Returns:
        (H // 4, W // 4, 3).

    Raises:
        DecodeError: the mosaic is smaller than a cell.
    """
    mosaic = _whole_blocks(mosaic, 4)
    luma = np.zeros((2, 2, mosaic.shape[0] // 4, mosaic.shape[1] // 4), np.float32)
    for block, colour in enumerate(bayer):
        row, column = 2 * (block // 2), 2 * (block % 2)
        for y in range(2):
            for x in range(2):
                luma[y, x] += np.float32(_LUMA[colour]) * mosaic[row + y :: 4, column + x :: 4]
    by_angle = dict(zip(angles_deg, luma.reshape(4, *luma.shape[2:]), strict=True))
    return from_angles(by_angle[0], by_angle[45], by_angle[90], by_angle[135], full_scale)


def from_dolp_aolp(
    s0: Image | None,
    dolp: Image,
    aolp: Image,
    aolp_unit: Literal["rad", "deg"],
    full_scale: float,
) -> Polarization:
    """Degree and angle that the camera's driver computed.

    Args:
        s0: (h, w) intensity in counts; None = not sent, S0 is then 1 everywhere.
        dolp: (h, w); a float is taken as [0, 1], an integer as a share of its dtype's maximum.
        aolp: (h, w) in ``aolp_unit``, any multiple of pi added.
        aolp_unit: unit of ``aolp``.
        full_scale: value of ``s0`` that becomes 1, > 0.

    Returns:
        (h, w, 3); what is not finite (drivers divide by a dark S0) becomes unpolarized.

    Raises:
        DecodeError: the images differ in shape.
    """
    if dolp.shape != aolp.shape or dolp.ndim != 2 or (s0 is not None and s0.shape != dolp.shape):
        raise DecodeError(
            "DoLP and AoLP do not fit together",
            expected="one-channel images of one size",
            found=f"s0 {None if s0 is None else s0.shape}, {dolp.shape}, {aolp.shape}",
            remedy="publish s0, dolp and aolp at the same resolution",
        )
    intensity = np.ones(dolp.shape, np.float32)
    if s0 is not None:
        intensity = np.clip(_finite(s0) * np.float32(1.0 / full_scale), 0.0, 1.0)
    white = np.iinfo(dolp.dtype).max if dolp.dtype.kind in "iu" else 1.0
    degree = dolp.astype(np.float32) * np.float32(1.0 / white)
    angle = aolp.astype(np.float32)
    if aolp_unit == "deg":
        angle *= np.float32(np.pi / 180.0)
    known = np.isfinite(degree) & np.isfinite(angle) & (degree > 0)
    degree = np.where(known, np.minimum(degree, 1.0), np.float32(0.0))
    angle = np.where(known, angle, np.float32(0.0))
    _wrap(angle)
    return _merged(intensity, degree, angle)


def to_stokes(polarization: Polarization) -> tuple[Channel, Channel, Channel]:
    """S0, S1 and S2, each (h, w), of (h, w, 3) S0, DoLP, AoLP, on the scale of S0."""
    s0, dolp, aolp = cv2.split(polarization)
    dolp *= s0
    aolp *= np.float32(2.0)
    s1, s2 = cv2.polarToCart(dolp, aolp)
    return s0, s1, s2


def polarized(s1: Channel, s2: Channel) -> Channel:
    """Polarized intensity sqrt(S1^2 + S2^2), (h, w)."""
    length: Channel = s1 * s1
    length += s2 * s2  # cv2.magnitude is as fast, but its last bit changes from run to run
    np.sqrt(length, out=length)
    return length


def resize_polarization(polarization: Polarization, size: Size) -> Polarization:
    """Resize (h, w, 3) S0, DoLP, AoLP by averaging the Stokes parameters."""
    s0, s1, s2 = (resize(channel, size) for channel in to_stokes(polarization))
    return _combine(s0, s1, s2, 1.0)


def _combine(s0: Channel, s1: Channel, s2: Channel, full_scale: float) -> Polarization:
    """Finite Stokes parameters, which are overwritten, to S0, DoLP, AoLP."""
    dolp = polarized(s1, s2)
    dolp *= s0 > 0
    dolp /= np.maximum(s0, np.float32(1e-12))
    np.minimum(dolp, 1.0, out=dolp)
    aolp = _half_angle(s1, s2)
    aolp *= dolp > 0
    s0 *= np.float32(1.0 / full_scale)
    return _merged(np.clip(s0, 0.0, 1.0, out=s0), dolp, aolp)


def _half_angle(s1: Channel, s2: Channel) -> Channel:
    """Half of the angle of (S1, S2), radians in [0, pi), within 3e-7; 0 where both are 0.

    The arctangent on [0, 1] is formula 4.4.49 of Abramowitz and Stegun, Handbook of Mathematical
    Functions. ``np.arctan2`` takes five times as long where NumPy has no vector code for it, and
    its last bit depends on the processor; sums and products do not.
    """
    quarter, half = np.float32(np.pi / 2), np.float32(np.pi)
    along, across = np.abs(s1), np.abs(s2)
    tangent = np.minimum(along, across)
    tangent /= np.maximum(np.maximum(along, across), np.float32(1e-37))
    square = tangent * tangent
    angle = square * np.float32(_ARCTANGENT[0])
    for coefficient in _ARCTANGENT[1:]:
        angle += np.float32(coefficient)
        angle *= square
    angle += np.float32(1.0)
    angle *= tangent
    # |a - b| mirrors an angle of [0, b]: at 45 degrees, then at S1 = 0; halved, at S2 = 0.
    np.abs(angle - (across > along) * quarter, out=angle)
    np.abs(angle - (s1 < 0) * half, out=angle)
    angle *= np.float32(0.5)
    np.abs(angle - (s2 < 0) * half, out=angle)
    angle *= angle < half
    return angle


def _merged(*channels: Channel) -> NDArray[np.float32]:
    """(h, w, 3) of three (h, w)."""
    merged: NDArray[np.float32] = cv2.merge(channels)
    return merged


def _finite(image: Image) -> Channel:
    """As float32; what is not finite, or so large that its square would not be, as 0."""
    values: Channel = image.astype(np.float32)
    if image.dtype.kind == "f":
        np.copyto(values, np.float32(0.0), where=~(np.abs(values) < _LARGEST))
    return values


def _wrap(angle_rad: Channel) -> None:
    """Bring angles to [0, pi), in place."""
    pi = np.float32(np.pi)
    turns = angle_rad / pi  # np.mod is ten times slower
    np.floor(turns, out=turns)
    turns *= pi
    angle_rad -= turns
    angle_rad *= (angle_rad > 0) & (angle_rad < pi)  # a tiny negative angle rounds to pi itself


def _whole_blocks(mosaic: Image, side: int) -> Image:
    height, width = (length - length % side for length in mosaic.shape[:2])
    if mosaic.ndim != 2 or height == 0 or width == 0:
        raise DecodeError(
            "a polarization mosaic has the wrong shape",
            expected=f"one channel, at least {side}x{side} pixels",
            found=f"shape {mosaic.shape}",
            remedy="check the layout of the polarization sensor in the rig file",
        )
    return mosaic[:height, :width]
