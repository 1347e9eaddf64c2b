"""What a recording shows of frame sets: every modality as the model sees it, and registered."""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import RigError
from unim2_core.model.bundle import Manifest
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.modalities import MODALITIES, Encoder
from unim2_core.sensing.registrar import Registrar
from unim2_core.sensing.rig import Extrinsics, Rig
from unim2_core.sensing.static_transforms import TransformTree
from unim2_core.sensing.warping import warp_image
from unim2_core.showing.viewer import Answer, Recording

SHOWN_WIDTH = 480
"""Of the pictures where no model says how large it takes them, pixels."""

Image = NDArray[np.uint8]


class Onlooker:
    """Looks at frame sets as a model does.

    Args:
        rig: the sensors that are there.
        manifest: of the model; None: every modality is shown with its usual encoding.

    Attributes:
        skipped: reason -> pictures that could not be made.
    """

    def __init__(self, rig: Rig, manifest: Manifest | None) -> None:
        self.skipped: Counter[str] = Counter()
        known = {} if manifest is None else {e.name: e.encoding for e in manifest.modalities}
        # What the model looks at comes first; hha is what depth looks like to some models.
        names = dict.fromkeys([*known, *(name for name in MODALITIES if name != "hha")])
        self._encoders = {
            name: Encoder.from_description(known[name]) if name in known else Encoder(name)
            for name in names
            if MODALITIES[name].sensor in rig.sensors
        }
        self._size = None if manifest is None else manifest.infer_size
        self._registrar = Registrar(rig)

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names, in the order of their views."""
        return tuple(self._encoders)

    def place(self, sensor: str, extrinsics: Extrinsics) -> None:
        """Take in where a sensor is, for example from tf.

        Raises:
            RigError: that is not a rigid motion.
        """
        self._registrar.place(sensor, extrinsics)

    def show(
        self,
        recording: Recording,
        frames: FrameSet,
        answer: Answer | None,
        transforms: TransformTree | None,
    ) -> None:
        """Add a set to a recording.

        Args:
            recording: the recording.
            frames: the set.
            answer: what a model made of it.
            transforms: tf as it is now.
        """
        reference = frames.frames[frames.reference]
        height = round(SHOWN_WIDTH * reference.height / reference.width)
        size = self._size or (height, SHOWN_WIDTH)
        pictures: dict[str, Image] = {}
        for name, encoder in self._encoders.items():
            frame = frames.frames.get(MODALITIES[name].sensor)
            if frame is not None:
                try:
                    pictures[name] = encoder.encode(frame, size, frame.camera)[0]
                except RigError as error:  # it needs a calibration that has not come yet
                    self.skipped[f"{name}: {error.what}"] += 1
        maps = self._registrar(frames, size).maps
        registered = {}
        for name, picture in pictures.items():
            grid_map = maps.get(MODALITIES[name].sensor)
            registered[name] = picture if grid_map is None else warp_image(picture, grid_map)
        recording.add(frames, pictures, registered, answer, transforms)
