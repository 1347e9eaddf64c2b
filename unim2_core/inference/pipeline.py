"""From a frame set to a segmentation: encode, backbone, head; tokens are kept by stamp."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import DecodeError, ModelError, RigError
from unim2_core.inference.auxiliaries import TokenReader
from unim2_core.inference.backends import AUTO, Backend, Device, Precision
from unim2_core.inference.engine import Engine
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.modalities import MODALITIES, Encoder
from unim2_core.sensing.registrar import Registrar, with_depth
from unim2_core.sensing.rig import Extrinsics, Rig
from unim2_core.sensing.warping import Mask, registered

Image = NDArray[np.uint8]
Tokens = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Encoded:
    """What the backbone is to see of a frame set.

    Attributes:
        images: modality -> stamp in nanoseconds and (h, w, 3) uint8.
        missing: modality -> why it is not there.
        valid: modality -> (h, w) bool, False where nothing was measured; left out = all valid.
    """

    images: Mapping[str, tuple[int, Image]]
    missing: Mapping[str, str]
    valid: Mapping[str, Mask] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Classes of one reference image.

    Attributes:
        classes: (H, W) uint8 class ids, at the reference image's size, or one pixel in so many
            of it.
        confidence: (H, W) uint8, 0 unsure to 255 sure.
        encoded: what the backbone saw.
        latency_ms: stage -> milliseconds.
        version: of the model that gave the classes.
    """

    classes: Image
    confidence: Image
    encoded: Encoded
    latency_ms: Mapping[str, float]
    version: str

    @property
    def used(self) -> tuple[str, ...]:
        """The modalities that took part."""
        return tuple(self.encoded.images)

    @property
    def missing(self) -> Mapping[str, str]:
        """Modality -> why it did not take part."""
        return self.encoded.missing

    def picture(self, frames: FrameSet) -> Image:
        """The reference image for people: its colours, else what the backbone saw of it.

        Args:
            frames: the set that was segmented.

        Returns:
            (H, W, 3) uint8, at the size of the classes; may share memory with the frame.
        """
        reference, shape = frames.frames[frames.reference], self.classes.shape
        if reference.sensor == "rgb":
            picture = np.asarray(reference.data, np.uint8)
            if picture.shape[:2] == shape:
                return picture
            return np.asarray(cv2.resize(picture, shape[::-1], interpolation=cv2.INTER_AREA))
        for name, (_, image) in self.encoded.images.items():
            if MODALITIES[name].sensor == reference.sensor:
                return np.asarray(cv2.resize(image, shape[::-1]))
        return np.zeros((*shape, 3), np.uint8)


class Pipeline:
    """A model on an engine, for one rig.

    Attributes:
        bundle: the model.
        engine: what runs it.
        settings: what decides the classes apart from model and rig; backends differ in ties only.
        rig: the sensors that are needed: those that the model looks at, and depth where it tells
            how the others are to be registered.
    """

    def __init__(
        self,
        bundle: Bundle,
        rig: Rig,
        backend: Backend = AUTO,
        threads: int = 0,
        precision: Precision = "fp32",
        half_auxiliaries: bool = False,
        device: Device = "auto",
    ) -> None:
        """Load the engine and fit the model to a rig.

        Args:
            bundle: the model.
            rig: the sensors.
            backend: see ``Engine``.
            threads: cores to use; 0 means all.
            precision: to compute in.
            half_auxiliaries: see ``TokenReader``.
            device: see ``Engine``.

        Raises:
            ModelError: the rig lacks the model's reference sensor, or the engine is refused.
            RigError: the extrinsics of a sensor are not a rigid motion.
        """
        self.bundle = bundle
        manifest = bundle.manifest
        self._modalities = manifest.modalities
        self.rig = self._needed(rig)
        self.engine = Engine(bundle, backend, threads, precision, device)
        self.settings = f"{precision}{', auxiliaries at half' if half_auxiliaries else ''}"
        self._read = TokenReader(self.engine, manifest, manifest.infer_size, half_auxiliaries)
        patch = manifest.backbone.patch_size
        height, width = manifest.infer_size
        self._grid = (height // patch, width // patch)
        self.forget()

    def forget(self) -> None:
        """Be as if no frame had been seen: the engine is kept, for another drive of this rig."""
        self._registrar = Registrar(self.rig)
        self._encoders = {
            entry.name: Encoder.from_description(entry.encoding) for entry in self._modalities
        }
        self._images: dict[str, tuple[int, Image]] = {}
        self._valid: dict[str, Mask | None] = {}
        self._tokens: dict[str, tuple[int, Tokens]] = {}

    def _needed(self, rig: Rig) -> Rig:
        check_reference(self.bundle, rig)
        return with_depth(rig, {entry.sensor for entry in self._modalities})

    @property
    def shortcomings(self) -> list[str]:
        """A sentence for each backend that is not used and modality that the rig never gives."""
        return self.engine.refused + [
            f"{entry.name} stays missing: the rig has no sensor {entry.sensor}"
            for entry in self._modalities
            if entry.sensor not in self.rig.sensors
        ]

    @property
    def registration(self) -> dict[str, str]:
        """Sensor -> how it was registered into the reference camera last, in words."""
        return self._registrar.methods

    def place(self, sensor: str, extrinsics: Extrinsics) -> None:
        """Take in where a sensor is, for example from tf; between two sets.

        Raises:
            RigError: that is not a rigid motion. The sensor stays where it was.
        """
        self._registrar.place(sensor, extrinsics)

    def news(self) -> list[str]:
        """What has changed in how sensors are registered, since the last call."""
        return self._registrar.news()

    def warm_up(self) -> None:
        """Run both graphs once at the sizes of this model: the first run of a shape is slow."""
        manifest = self.bundle.manifest
        image = np.zeros((*manifest.infer_size, 3), np.uint8)
        self._read({entry.name: image for entry in self._modalities})
        shape = (len(self._modalities), *self._grid)
        tokens = np.zeros((*shape, manifest.backbone.embed_dim), np.float32)
        self.engine.classify(tokens, np.zeros(shape, np.float32))

    def encode(self, frames: FrameSet) -> Encoded:
        """Encode every modality; an image that has not changed is not encoded again.

        A modality whose encoding needs a calibration that is not there (yet) is missing.

        Raises:
            DecodeError: an image cannot be encoded, or the model would not see it whole.
        """
        images, missing = {}, {}
        for entry in self._modalities:
            frame = frames.frames.get(entry.sensor)
            if frame is None:
                missing[entry.name] = frames.missing.get(entry.sensor, "not in the rig")
                continue
            image = self._images.get(entry.name)
            if image is None or image[0] != frame.stamp_ns:
                size = self.bundle.manifest.infer_size
                encoder = self._encoders[entry.name]
                if encoder.crops((frame.height, frame.width), size):
                    raise DecodeError(
                        f"the model would cut off a part of the image of {frame.sensor}",
                        expected=f"an image of the aspect {size[0]}x{size[1]}",
                        found=f"{frame.height}x{frame.width}",
                        remedy="train or import it with --size of the camera's aspect",
                    )
                try:
                    pixels, mask = encoder.encode(frame, size, frame.camera)
                except RigError as error:
                    missing[entry.name] = f"{error.what}: no {error.expected}"
                    continue
                image = (frame.stamp_ns, pixels)
                self._valid[entry.name] = mask
            images[entry.name] = self._images[entry.name] = image
        valid = {
            name: mask for name, mask in self._valid.items() if name in images and mask is not None
        }
        return Encoded(images, missing, valid)

    def __call__(self, frames: FrameSet, stride: int = 1) -> Segmentation:
        """Segment the reference image of a set; without any modality it stays unlabelled.

        Args:
            frames: the set.
            stride: classes are given for one pixel in so many, of the rows and of the columns.

        Raises:
            DecodeError: an image cannot be encoded.
        """
        start = time.perf_counter()
        encoded = self.encode(frames)
        encoded_at = time.perf_counter()
        kept = self._tokens_of(encoded.images)
        tokens_at = time.perf_counter()
        tokens, presence = self._registered(kept, encoded.valid, frames)
        registered_at = time.perf_counter()
        classes, confidence, version = self.engine.classify(tokens, presence)
        reference = frames.frames[frames.reference]
        shape = (max(1, reference.width // stride), max(1, reference.height // stride))
        classes = cv2.resize(classes, shape, interpolation=cv2.INTER_NEAREST)
        confidence = cv2.resize(confidence, shape, interpolation=cv2.INTER_LINEAR)
        latency_ms = {
            "encode": 1e3 * (encoded_at - start),
            "backbone": 1e3 * (tokens_at - encoded_at),
            "register": 1e3 * (registered_at - tokens_at),
            "head": 1e3 * (time.perf_counter() - registered_at),
        }
        return Segmentation(classes, confidence, encoded, latency_ms, version)

    def _tokens_of(self, images: Mapping[str, tuple[int, Image]]) -> dict[str, Tokens]:
        """Tokens (h, w, D) in the sensor's own camera; an image seen before costs nothing."""
        fresh = {
            name: image
            for name, (stamp_ns, image) in images.items()
            if name not in self._tokens or self._tokens[name][0] != stamp_ns
        }
        for name, tokens in self._read(fresh).items():
            self._tokens[name] = (images[name][0], tokens)
        return {name: self._tokens[name][1] for name in images}

    def _registered(
        self, kept: Mapping[str, Tokens], valid: Mapping[str, Mask], frames: FrameSet
    ) -> tuple[Tokens, NDArray[np.float32]]:
        """Tokens (M, h, w, D) in the reference camera and presence (M, h, w)."""
        width = self.bundle.manifest.backbone.embed_dim
        tokens = np.zeros((len(self._modalities), *self._grid, width), np.float32)
        presence = np.zeros(tokens.shape[:3], np.float32)
        maps = self._registrar(frames, self._grid).maps
        for index, entry in enumerate(self._modalities):
            if entry.name in kept:
                own, mask = kept[entry.name], valid.get(entry.name)
                _, there = registered(own, mask, maps.get(entry.sensor), out=tokens[index])
                presence[index] = there
        return tokens, presence


def check_reference(bundle: Bundle, rig: Rig) -> None:
    """Check that a model segments the images of a rig's reference.

    Raises:
        ModelError: it does not.
    """
    reference = bundle.manifest.reference
    if rig.reference != reference:
        raise ModelError(
            f"the model {bundle.path} does not fit this rig",
            expected=f"the reference sensor {reference}",
            found=f"{rig.reference} as reference, sensors {', '.join(rig.sensors)}",
            remedy=f"add the sensor {reference} to the rig, or train on this rig",
        )
