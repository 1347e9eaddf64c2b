"""From frame sets to pictures: encoded at one size, with the maps that register them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from unim2_core.data.labels import Labels
from unim2_core.data.pictures import Image, Mask, Picture
from unim2_core.errors import ModelError, RigError
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.modalities import Encoder
from unim2_core.sensing.registrar import Registrar
from unim2_core.sensing.resampling import Size
from unim2_core.sensing.rig import Extrinsics, Rig

Encodings = Mapping[str, Mapping[str, Any]]


class Framing:
    """Makes pictures of the sets of one stream; what follows the stream begins with it.

    Attributes:
        missing: ``modality: reason`` -> in how many sets.
        refused: modality -> why its last image could not be encoded for want of a calibration.
        given: modality -> in how many pictures.

    Args:
        rig: the sensors.
        encodings: modality -> what ``Encoder.from_description`` takes.
        size: height and width of the pictures.
        patch_size: pixels of a token's side; it divides both.
        sequence: number of the stream.
        missing: counted on, where several streams are to be counted together.
    """

    def __init__(
        self,
        rig: Rig,
        encodings: Encodings,
        size: Size,
        patch_size: int,
        *,
        sequence: int = 0,
        missing: Counter[str] | None = None,
    ) -> None:
        self._encoders = {name: Encoder.from_description(how) for name, how in encodings.items()}
        self._registrar = Registrar(rig)
        self._size, self._sequence = size, sequence
        self._grid = (size[0] // patch_size, size[1] // patch_size)
        self.missing: Counter[str] = Counter() if missing is None else missing
        self.given: Counter[str] = Counter()
        self.refused: dict[str, RigError] = {}

    @property
    def registration(self) -> dict[str, str]:
        """Sensor -> how it was registered last, in words."""
        return self._registrar.methods

    def place(self, sensor: str, extrinsics: Extrinsics) -> None:
        """Take in where a sensor is, for example from tf.

        Raises:
            RigError: that is not a rigid motion.
        """
        self._registrar.place(sensor, extrinsics)

    def picture(
        self, frames: FrameSet, name: str, source: int, labels: Labels | None = None
    ) -> Picture | None:
        """The picture of a set; None where it has none of the modalities.

        Args:
            frames: the set.
            name: for messages.
            source: number of the image.
            labels: of the picture's size.

        Raises:
            ModelError: an image has another aspect than the preset ``paper`` can keep.
        """
        images, valid = self._encoded(frames)
        if not images:
            return None
        self.given.update(images.keys())
        maps = self._registrar(frames, self._grid).maps
        sensors = {n: encoder.modality.sensor for n, encoder in self._encoders.items()}
        return Picture(
            name=name,
            images=images,
            valid=valid,
            maps={
                modality: grid_map
                for modality in images
                if (grid_map := maps.get(sensors[modality])) is not None
            },
            labels=labels,
            source=source,
            sequence=self._sequence,
            stamp_ns=frames.stamp_ns,
        )

    def _encoded(self, frames: FrameSet) -> tuple[dict[str, Image], dict[str, Mask]]:
        """Images and validity of the modalities that are there."""
        images, valid = {}, {}
        for name, encoder in self._encoders.items():
            sensor = encoder.modality.sensor
            frame = frames.frames.get(sensor)
            if frame is None:
                self.missing[f"{name}: {frames.missing.get(sensor, 'not in the rig')}"] += 1
                continue
            if encoder.crops((frame.height, frame.width), self._size):
                raise self._cropped((frame.height, frame.width))
            try:
                images[name], mask = encoder.encode(frame, self._size, frame.camera)
            except RigError as error:  # its calibration may come later
                self.missing[f"{name}: {error.what}"] += 1
                self.refused[name] = error
                continue
            if mask is not None:
                valid[name] = mask
        return images, valid

    def _cropped(self, image: Size) -> ModelError:
        return ModelError(
            "the preset paper would crop the images, and classes could not be put back in place",
            expected=f"a size with the aspect of the images, {image[0]}x{image[1]}",
            found=f"{self._size[0]}x{self._size[1]}",
            remedy="give such a size with --size, or use the preset robot",
        )
