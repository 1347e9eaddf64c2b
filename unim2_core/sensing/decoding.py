"""From the messages of one sensor to its frame, as the rig says how to read them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import DecodeError, RigError
from unim2_core.sensing.compressed import (
    CompressedImageMessage,
    decode_compressed,
    decode_compressed_raw,
)
from unim2_core.sensing.depth import depth_to_metres
from unim2_core.sensing.encodings import high_bytes
from unim2_core.sensing.frames import Array, Frame
from unim2_core.sensing.images import ImageMessage, decode_image, decode_raw
from unim2_core.sensing.polarization import (
    from_angles,
    from_dolp_aolp,
    from_mosaic_2x2,
    from_mosaic_bayer_4x4,
    from_stokes,
)
from unim2_core.sensing.rig import Rig, Sensor
from unim2_core.sensing.thermal import KELVIN_COUNTS, thermal_values

Message = ImageMessage | CompressedImageMessage
Parts = Mapping[str, Message]
Decoded = tuple[Array, NDArray[np.bool_] | None, str]
"""Data, validity and unit of a frame."""

IMAGE = "image"
POLARIZATION_PARTS = {
    "mosaic_2x2": (IMAGE,),
    "mosaic_bayer_4x4": (IMAGE,),
    "quad_topics": ("0", "45", "90", "135"),
    "stokes": ("s0", "s1", "s2"),
    "dolp_aolp": ("dolp", "aolp"),
}
"""Parts that each layout needs; ``dolp_aolp`` takes ``s0`` too."""


class Decoder:
    """Decodes the messages of all sensors of a rig. Holds no state, so any thread may call it.

    Args:
        rig: the sensors and how each is read.

    Raises:
        RigError: a sensor's topics do not have the parts that its layout needs.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._needs = {name: _needed_parts(name, options) for name, options in rig.sensors.items()}

    def decode(self, sensor: str, parts: Parts, stamp_ns: int) -> Frame:
        """Decode what one sensor sent at one time.

        Args:
            sensor: a key of the rig's sensors.
            parts: ``image``, or the part names of the sensor's topics, to its message; a message
                with a field ``format`` is taken as compressed.
            stamp_ns: time of exposure after the rig's offset, nanoseconds.

        Returns:
            The frame; its data may share memory with the message.

        Raises:
            DecodeError: a part is missing or a message cannot be decoded as this sensor.
        """
        options = self._rig.sensors[sensor]
        topics = options.image_topics
        topic = next(iter(topics.values()))
        try:
            for part in self._needs[sensor]:
                if part not in parts:
                    raise DecodeError(
                        f"the part {part} is missing",
                        expected=", ".join(topics.values()),
                        found=", ".join(parts) or "no message",
                        remedy="record all of its topics, or name those that there are in the rig",
                    )
            data, valid, unit = _READERS[sensor](options, parts)
        except DecodeError as error:
            raise DecodeError(
                f"{sensor} image on {topic}: {error.what}",
                expected=error.expected,
                found=error.found,
                remedy=error.remedy,
            ) from error
        header = getattr(next(iter(parts.values())), "header", None)
        frame_id = options.frame_id or str(getattr(header, "frame_id", ""))
        return Frame(sensor, stamp_ns, data, frame_id, valid, unit, topic)


def _needed_parts(name: str, options: Sensor) -> tuple[str, ...]:
    layout = options.polarization.layout if name == "polarization" else "mosaic_2x2"
    needed = POLARIZATION_PARTS[layout]
    if missing := [part for part in needed if part not in options.image_topics]:
        raise RigError(
            f"the sensor {name} lacks topics",
            expected="a topic" if needed == (IMAGE,) else f"topics for {', '.join(needed)}",
            found=f"none for {', '.join(missing)}",
            remedy=f"mend the topics or the layout of {name} in the rig file",
        )
    return needed


def _image(message: Message) -> Array:
    """Decode a message of either kind, Bayer to RGB."""
    if isinstance(message, CompressedImageMessage):
        return decode_compressed(message)
    return decode_image(message)


def _mosaic(message: Message) -> Array:
    """Decode a message of either kind, Bayer as it is."""
    if isinstance(message, CompressedImageMessage):
        return decode_compressed_raw(message)
    return decode_raw(message)


def _one_channel(message: Message) -> Array:
    """Decode a message to (H, W); a grey image sent as colour counts as one channel."""
    image = _image(message)
    if image.ndim == 2:
        return image
    red: Array
    red, green, blue = (cv2.extractChannel(image, channel) for channel in range(3))
    if not (np.array_equal(red, green) and np.array_equal(green, blue)):
        raise DecodeError(
            "one channel is needed, and this image is in colour",
            expected="a single-channel encoding, or three equal channels",
            found="channels that differ: false colours or a colour camera",
            remedy="turn the driver's colour map off, or mend the topic in the rig file",
        )
    return red


def _full_scale(options: Sensor, counts: Array) -> float:
    """Count of white: of the rig, or else the largest of an integer type and 1 of a float."""
    if options.full_scale:
        return options.full_scale
    return 1.0 if counts.dtype.kind == "f" else float(np.iinfo(counts.dtype).max)


def _rgb(_: Sensor, parts: Parts) -> Decoded:
    image = _image(parts[IMAGE])
    if image.ndim == 2:  # a monochrome camera
        if image.dtype not in (np.uint8, np.uint16):
            raise _wrong_type("a colour, Bayer, mono8 or mono16 encoding", image)
        image = cv2.cvtColor(high_bytes(image), cv2.COLOR_GRAY2RGB)
    return image, None, ""


def _depth(options: Sensor, parts: Parts) -> Decoded:
    counts = _one_channel(parts[IMAGE])
    if counts.dtype == np.uint8:
        raise _wrong_type("16UC1 or 32FC1; eight bits are a picture of depth", counts)
    if counts.dtype == np.int16:
        counts = np.maximum(counts, 0)
    depth_m, valid = depth_to_metres(counts, options.depth.unit_m)
    return depth_m, valid, "m"


def _thermal(options: Sensor, parts: Parts) -> Decoded:
    counts = _one_channel(parts[IMAGE])
    if counts.dtype == np.uint8 and options.thermal.conversion in KELVIN_COUNTS:
        raise _wrong_type(
            "mono16, 16UC1 or 32FC1; eight bits are a picture of temperatures, for which the rig "
            "has conversion: relative",
            counts,
        )
    values, unit = thermal_values(counts, options.thermal)
    return values, None, unit


def _nir(options: Sensor, parts: Parts) -> Decoded:
    counts = _one_channel(parts[IMAGE])
    scaled = np.multiply(counts, 1.0 / _full_scale(options, counts), dtype=np.float32)
    valid = None
    if counts.dtype.kind == "f":
        valid = np.isfinite(counts)
        scaled[~valid] = 0.0
    return np.clip(scaled, 0.0, 1.0, out=scaled), valid, ""


def _polarization(options: Sensor, parts: Parts) -> Decoded:
    how = options.polarization
    if how.layout in ("mosaic_2x2", "mosaic_bayer_4x4"):
        mosaic = _mosaic(parts[IMAGE])
        white = _full_scale(options, mosaic)
        if how.layout == "mosaic_2x2":
            return from_mosaic_2x2(mosaic, how.angles_deg, white), None, ""
        return from_mosaic_bayer_4x4(mosaic, how.angles_deg, how.bayer, white), None, ""
    images = {part: _one_channel(message) for part, message in parts.items()}
    if how.layout == "quad_topics":
        i0, i45, i90, i135 = (images[part] for part in POLARIZATION_PARTS["quad_topics"])
        return from_angles(i0, i45, i90, i135, _full_scale(options, i0)), None, ""
    if how.layout == "stokes":
        s0, s1, s2 = (images[part] for part in POLARIZATION_PARTS["stokes"])
        return from_stokes(s0, s1, s2, _full_scale(options, s0)), None, ""
    intensity = images.get("s0")
    white = 1.0 if intensity is None else _full_scale(options, intensity)
    data = from_dolp_aolp(intensity, images["dolp"], images["aolp"], how.aolp_unit, white)
    return data, None, ""


def _wrong_type(expected: str, found: Array) -> DecodeError:
    return DecodeError(
        "the encoding is not one of this sensor",
        expected=expected,
        found=f"{found.dtype} of shape {found.shape}",
        remedy="set the driver's encoding, or mend the topic in the rig file",
    )


_READERS: dict[str, Callable[[Sensor, Parts], Decoded]] = {
    "rgb": _rgb,
    "depth": _depth,
    "thermal": _thermal,
    "nir": _nir,
    "polarization": _polarization,
}
