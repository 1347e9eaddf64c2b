"""From a frame set to a segmentation: encode, backbone, head; tokens are kept by stamp."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError
from unim2_core.inference.engine import Backend, Engine
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.modalities import Encoder
from unim2_core.sensing.rig import Rig

Tokens = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Classes of one reference image.

    Attributes:
        classes: (H, W) uint8 class ids, at the reference image's size.
        confidence: (H, W) uint8, 0 unsure to 255 sure.
        used: the modalities that took part.
        missing: modality -> why it did not.
        latency_ms: stage -> milliseconds.
    """

    classes: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    used: tuple[str, ...]
    missing: Mapping[str, str]
    latency_ms: Mapping[str, float]


class Pipeline:
    """A model on an engine.

    Attributes:
        bundle: the model.
        engine: what runs it.
    """

    def __init__(self, bundle: Bundle, backend: Backend = "auto", threads: int = 0) -> None:
        self.bundle = bundle
        self.engine = Engine(bundle, backend, threads)
        manifest = bundle.manifest
        self._modalities = manifest.modalities
        self._encoders = [Encoder.from_description(entry.encoding) for entry in self._modalities]
        patch = manifest.backbone.patch_size
        height, width = manifest.infer_size
        self._grid = (height // patch, width // patch, manifest.backbone.embed_dim)
        self._kept: dict[str, tuple[int, Tokens]] = {}

    def assumptions(self, rig: Rig) -> list[str]:
        """What is taken for granted with this rig; to be said once.

        Raises:
            ModelError: the rig lacks the model's reference sensor.
        """
        reference = self.bundle.manifest.reference
        if rig.reference != reference:
            raise ModelError(
                f"the model {self.bundle.path} does not fit this rig",
                expected=f"the reference sensor {reference}",
                found=f"{rig.reference} as reference, sensors {', '.join(rig.sensors)}",
                remedy=f"add the sensor {reference} to the rig, or train on this rig",
            )
        said = []
        for entry in self._modalities:
            if entry.sensor not in rig.sensors:
                said.append(
                    f"{entry.name}: the rig has no sensor {entry.sensor}; it stays missing"
                )
            elif entry.sensor != reference:
                said.append(
                    f"{entry.name}: taken as aligned with {reference} and scaled to its size"
                )
        return said

    def __call__(self, frames: FrameSet) -> Segmentation:
        """Segment the reference image of a set.

        Raises:
            DecodeError: an image cannot be encoded.
        """
        tokens = np.zeros((len(self._modalities), *self._grid), np.float32)
        presence = np.zeros(len(self._modalities), np.float32)
        missing: dict[str, str] = {}
        latency = {"encode": 0.0, "backbone": 0.0}
        for index, entry in enumerate(self._modalities):
            frame = frames.frames.get(entry.sensor)
            if frame is None:
                missing[entry.name] = frames.missing.get(entry.sensor, "not in the rig")
                continue
            kept = self._kept.get(entry.name)
            if kept is None or kept[0] != frame.stamp_ns:
                start = time.perf_counter()
                image, _ = self._encoders[index].encode(frame, self.bundle.manifest.infer_size)
                encoded = time.perf_counter()
                kept = (frame.stamp_ns, self.engine.tokens(image[None])[0])
                self._kept[entry.name] = kept
                latency["encode"] += 1e3 * (encoded - start)
                latency["backbone"] += 1e3 * (time.perf_counter() - encoded)
            tokens[index] = kept[1]
            presence[index] = 1.0
        start = time.perf_counter()
        classes, confidence = self.engine.classify(tokens, presence)
        reference = frames.frames[frames.reference]
        size = (reference.width, reference.height)
        classes = cv2.resize(classes, size, interpolation=cv2.INTER_NEAREST)
        confidence = cv2.resize(confidence, size, interpolation=cv2.INTER_LINEAR)
        latency["head"] = 1e3 * (time.perf_counter() - start)
        used = tuple(
            entry.name for entry, here in zip(self._modalities, presence, strict=True) if here
        )
        return Segmentation(classes, confidence, used, missing, latency)
