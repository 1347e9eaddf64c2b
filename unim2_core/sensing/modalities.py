"""The registry of modalities: what a model sees of a sensor, as three uint8 channels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import DecodeError, ModelError, RigError
from unim2_core.sensing import robot_encoding as robot
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.paper_encoding import PAPER_ENCODINGS
from unim2_core.sensing.resampling import Size, covering_size, resize_published
from unim2_core.sensing.thermal import RunningRange

Preset = Literal["paper", "robot"]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Modality:
    """One view of a sensor, as the backbone takes it.

    Attributes:
        name: of the modality.
        sensor: that feeds it, a key of the rig. One sensor may feed several modalities.
        mean: of each channel in [0, 1], subtracted before the backbone.
        std: of each channel in [0, 1], divided by.
    """

    name: str
    sensor: str
    mean: Triple = (0.485, 0.456, 0.406)  # ImageNet's: the backbone was trained with them
    std: Triple = (0.229, 0.224, 0.225)

    def normalize(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(H, W, 3) uint8 to (3, H, W) float32 with the mean subtracted, in units of ``std``."""
        unit = pixels.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (self.mean, self.std))
        return (unit - mean) / std

    @property
    def neutral(self) -> NDArray[np.uint8]:
        """(3,) pixel that is (nearly) zero after normalisation: it stands for "no measurement"."""
        pixel: NDArray[np.uint8] = np.rint(np.array(self.mean) * 255).astype(np.uint8)
        return pixel


MODALITIES: Mapping[str, Modality] = {
    name: Modality(name, sensor)
    for name, sensor in {
        "rgb": "rgb",
        "depth": "depth",
        "hha": "depth",
        "thermal": "thermal",
        "nir": "nir",
        "aolp": "polarization",
        "dolp": "polarization",
        "intensity": "polarization",
    }.items()
}

_OPTIONS = {"depth": ("depth_range_m",), "thermal": ("thermal_window_k", "thermal_half_life_s")}


class Encoder:
    """Turns frames of the sensor that feeds a modality into what the backbone takes.

    Preset ``robot`` keeps the physical scale, averages over areas and stretches the image to the
    size asked for. Preset ``paper`` follows the published rules: nearest resize that keeps the
    aspect, centre crop, every pixel taken as valid.

    Only relative thermal images leave a trace: their running range follows the stream, see
    ``RunningRange``. Use one encoder for each stream.

    Args:
        modality: key of ``MODALITIES``.
        preset: ``robot`` or ``paper``.
        depth_range_m: nearest and farthest distance that depth tells apart, metres.
        thermal_window_k: black and white of radiometric thermal images, kelvin.
        thermal_half_life_s: of the running range of relative thermal images, seconds; 0 = each
            image by itself.

    Raises:
        ModelError: the modality, the preset or the value of an option is not possible.
    """

    def __init__(
        self,
        modality: str,
        preset: Preset = "robot",
        *,
        depth_range_m: tuple[float, float] = (0.3, 60.0),
        thermal_window_k: tuple[float, float] = (253.15, 333.15),
        thermal_half_life_s: float = 5.0,
    ) -> None:
        possible = tuple(PAPER_ENCODINGS if preset == "paper" else MODALITIES)
        if preset not in get_args(Preset) or modality not in possible:
            raise ModelError(
                "there is no such encoding",
                expected=f"preset paper or robot; with {preset} one of {', '.join(possible)}",
                found=f"modality {modality!r}, preset {preset!r}",
                remedy="the published method reads depth as hha; else choose preset robot"
                if preset == "paper"
                else "name one of those",
            )
        for name, (low, high) in (("depth", depth_range_m), ("thermal", thermal_window_k)):
            if not 0 < low < high < float("inf"):
                raise ModelError(
                    f"the {name} range of an encoding is not a range",
                    expected="two numbers, 0 < low < high",
                    found=f"{low}, {high}",
                    remedy="mend depth_range_m or thermal_window_k",
                )
        if not 0 <= thermal_half_life_s < float("inf"):
            raise ModelError(
                "the half-life of the thermal range is not a time",
                expected="seconds, at least 0",
                found=f"{thermal_half_life_s}",
                remedy="mend thermal_half_life_s",
            )
        self.modality = MODALITIES[modality]
        self.preset: Preset = preset
        self.depth_range_m = (float(depth_range_m[0]), float(depth_range_m[1]))
        self.thermal_window_k = (float(thermal_window_k[0]), float(thermal_window_k[1]))
        self.thermal_half_life_s = float(thermal_half_life_s)
        self._running = RunningRange(self.thermal_half_life_s)

    def encode(
        self, frame: Frame, size: Size, camera: Intrinsics | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        """Encode one frame.

        Args:
            frame: of the sensor that feeds this modality, see ``Frame`` for its units.
            size: (height, width) of the result, pixels.
            camera: of the frame's image, needed by ``hha`` only.

        Returns:
            (h, w, 3) uint8, and (h, w) bool, False where nothing was measured; None = all valid.
            Pixels that are not valid are ``Modality.neutral``. Where the frame has the size
            already, the result may share its memory.

        Raises:
            DecodeError: the frame is of another sensor, or the size is not positive.
            RigError: the camera is needed and not known.
        """
        if frame.sensor != self.modality.sensor or frame.data.size == 0 or min(size) < 1:
            raise DecodeError(
                f"cannot encode this image as {self.modality.name}",
                expected=f"a frame of {self.modality.sensor}, to a size greater than zero",
                found=f"a frame of {frame.sensor}, {frame.data.shape}, to {size}",
                remedy="check the sensors in the rig file and the size asked for",
            )
        if self.modality.name == "hha" and camera is None:
            raise RigError(
                "height and angle need the camera's calibration",
                expected="camera_info of the depth camera",
                found="none",
                remedy="publish or record camera_info, or use the modality depth",
            )
        if self.preset == "paper":
            encode = PAPER_ENCODINGS[self.modality.name]
            return resize_published(encode(frame, camera), size), None
        pixels, valid = self._encode_robot(frame, size, camera)
        if valid is not None:
            neutral = np.full(pixels.shape, self.modality.neutral)
            # Boolean indexing would take ten times longer.
            cv2.copyTo(neutral, (~valid).view(np.uint8), pixels)
        return pixels, valid

    def _encode_robot(
        self, frame: Frame, size: Size, camera: Intrinsics | None
    ) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        name = self.modality.name
        if name == "depth":
            return robot.encode_depth(frame, size, self.depth_range_m)
        if name == "hha" and camera is not None:
            return robot.encode_hha(frame, size, camera)
        if name == "thermal":
            return robot.encode_thermal(frame, size, self.thermal_window_k, self._running)
        return _STATELESS[name](frame, size)

    def crops(self, image: Size, size: Size) -> bool:
        """Whether a part of an image would be cut off: classes could not be put back in place.

        Args:
            image: its (height, width), pixels.
            size: to encode at.
        """
        return self.preset == "paper" and covering_size(image, size) != size

    def reset(self) -> None:
        """Forget the stream: the next frame is taken as the first one."""
        self._running.reset()

    def describe(self) -> dict[str, Any]:
        """What a model's manifest keeps of the encoding; JSON types only."""
        options = _OPTIONS.get(self.modality.name, ()) if self.preset == "robot" else ()
        values = {name: getattr(self, name) for name in options}
        return {
            "modality": self.modality.name,
            "preset": self.preset,
            **{k: list(v) if isinstance(v, tuple) else v for k, v in values.items()},
        }

    @classmethod
    def from_description(cls, description: Mapping[str, Any]) -> Encoder:
        """The encoder that ``describe`` described.

        Raises:
            ModelError: a key is unknown, or a value not possible.
        """
        options = dict(description)
        try:
            return cls(options.pop("modality"), options.pop("preset"), **options)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ModelError(
                "a model describes an encoding that this version does not know",
                expected="modality, preset and options of the modality",
                found=f"{dict(description)}",
                remedy="update unim2, or export the model again",
            ) from error


_STATELESS = {
    "rgb": robot.encode_rgb,
    "nir": robot.encode_nir,
    "intensity": robot.encode_intensity,
    "dolp": robot.encode_dolp,
    "aolp": robot.encode_aolp,
}
