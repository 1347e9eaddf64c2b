"""Pictures out of recorded drives: synchronised, decoded, encoded, and registered."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from unim2_core.data.crops import IMAGE_SIDE, default_size
from unim2_core.data.drive_labels import DriveLabels, LabelReader
from unim2_core.data.drives import Sets, Warn, check_topics, contents, spread_sets
from unim2_core.data.labels import Classes, Labels
from unim2_core.data.pictures import Image, Mask, Picture
from unim2_core.errors import DataError, ModelError, RigError
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.modalities import Encoder, Preset
from unim2_core.sensing.registrar import Registrar, with_depth
from unim2_core.sensing.resampling import Size, nearest_indices
from unim2_core.sensing.rig import Rig

RULES_VERSION = 1
"""To be raised when the same drives give other pictures."""

SMALL_TOKEN_SIDE = 240
"""Attention costs by the square of the number of tokens."""

Encodings = Mapping[str, Mapping[str, Any]]

_log = logging.getLogger(__name__)


def encodings_of(modalities: Sequence[str], preset: Preset = "robot") -> Encodings:
    """Modality -> its usual encoding, as ``Encoder.from_description`` takes it.

    Raises:
        ModelError: there is no such modality, or none is named.
    """
    if not modalities:
        raise ModelError(
            "there is nothing to look at",
            expected="at least one modality",
            found="none",
            remedy="name them with --modalities, separated by commas",
        )
    return {name: Encoder(name, preset).describe() for name in modalities}


class DrivePictures:
    """The pictures of recorded drives; a ``PictureSource``.

    Of each drive the same number of frame sets is taken, spread evenly over it. What cannot be
    decoded is left out, and so is a set that has none of the modalities. One set is in memory at
    a time. Each drive, and each iteration, starts with fresh encoders: the running range of
    thermal images depends on nothing that came before.

    Attributes:
        rig: the sensors that are needed, with depth where it registers the others.
        missing: ``modality: reason`` -> in how many pictures of the last iteration.
        registration: sensor -> how it was registered last, in words.

    Args:
        bags: the drives.
        rig: which topics to read and how, and where the cameras are.
        encodings: modality -> what ``Encoder.from_description`` takes, see ``encodings_of``.
        size: height and width of the pictures; None: that of the first image, the shorter side
            at most 320 pixels, 240 where tokens are smaller than 16, in multiples of 16.
        patch_size: pixels of a token's side, for the registration of grids.
        frames: frame sets of each drive, at most.
        labels: ground truth, where the drives have it.
        warn: called once with everything that is odd though the work goes on.

    Raises:
        BagError: a drive cannot be opened, or lacks a topic that it must have.
        RigError: the first drive gives no frame set.
        DecodeError: none of its reference images can be decoded.
        ModelError: an encoding is not known, or would cut off a part of the images.
        DataError: the size does not fit the tokens, or there are no drives.
    """

    def __init__(
        self,
        bags: Sequence[Path],
        rig: Rig,
        encodings: Encodings,
        *,
        size: Size | None = None,
        patch_size: int = 16,
        frames: int = 100,
        labels: DriveLabels | None = None,
        warn: Warn = _log.warning,
    ) -> None:
        self._bags, self._frames, self._labels = tuple(bags), frames, labels
        self._descriptions = {
            name: Encoder.from_description(how).describe() for name, how in encodings.items()
        }
        encoders = self._encoders()
        self._sensors = {name: encoder.modality.sensor for name, encoder in encoders.items()}
        self.rig = with_depth(rig, frozenset(self._sensors.values()))
        self.missing: Counter[str] = Counter()
        self.registration: dict[str, str] = {}
        self._warn, self._said = warn, set[str]()
        self._topics: set[str] = set()
        if not self._bags:
            raise DataError(
                "there is nothing to look at",
                expected="at least one drive",
                found="none",
                remedy="name it with --bag",
            )
        self._counts = [self._examine(bag) for bag in self._bags]
        self._size = size or self._default_size(patch_size)
        self._grid = (self._size[0] // patch_size, self._size[1] // patch_size)
        if min(self._grid) < 1 or any(length % patch_size for length in self._size):
            raise DataError(
                "the pictures do not fit the backbone",
                expected=f"sides that are multiples of {patch_size} pixels",
                found=f"{self._size[0]}x{self._size[1]}",
                remedy="give another size with --size",
            )

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names; the first is the reference."""
        return tuple(self._descriptions)

    @property
    def encodings(self) -> Encodings:
        """Modality -> what ``Encoder.from_description`` takes, for a model's manifest."""
        return self._descriptions

    @property
    def size(self) -> Size:
        """Height and width of every image, pixels."""
        return self._size

    @property
    def label_size(self) -> Size | None:
        """Height and width of the labels; None where there are none."""
        return self._size if self._labels else None

    @property
    def classes(self) -> Classes | None:
        """That the labels mean; None where there are none."""
        return self._labels.classes if self._labels else None

    @property
    def limit(self) -> int:
        """The most pictures that the drives can give."""
        return sum(min(self._frames, count) for count in self._counts)

    @property
    def absent(self) -> list[str]:
        """A sentence for each modality that these drives can never give; known from the start."""
        sentences = []
        for name, sensor in self._sensors.items():
            if sensor not in self.rig.sensors:
                sentences.append(f"{name} stays missing: the rig has no sensor {sensor}")
            elif not self._topics.issuperset(self.rig.sensors[sensor].image_topics.values()):
                sentences.append(f"{name} stays missing: no drive has images of {sensor}")
        return sentences

    def fingerprint(self) -> str:
        """Hex digest of everything that decides the pictures: the drives' bytes, and how."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        rules = {
            "version": RULES_VERSION,
            "rig": self.rig.dump(),
            "encodings": self._descriptions,
            "size": self._size,
            "grid": self._grid,
            "frames": self._frames,
            "labels": self._labels and asdict(self._labels),
            "drives": [contents(bag) for bag in self._bags],
        }
        return hashlib.sha256(json.dumps(rules).encode()).hexdigest()

    def __iter__(self) -> Iterator[Picture]:
        """Stream the pictures.

        Raises:
            BagError: a drive cannot be read.
            RigError: a drive gives no set, or a modality lacks the calibration that it needs.
            DecodeError: no reference image of a drive can be decoded.
            ModelError: an image has another aspect than the preset ``paper`` can keep.
        """
        self.missing.clear()
        given: Counter[str] = Counter()
        refused: dict[str, RigError] = {}
        source = 0
        for sequence, bag in enumerate(self._bags):
            encoders, registrar = self._encoders(), Registrar(self.rig)
            unlabelled = 0
            with ExitStack() as stack:
                truth: LabelReader | None = None
                if self._labels:
                    truth = stack.enter_context(LabelReader(bag, self._labels))
                sets = stack.enter_context(closing(self._sets(bag)))
                for frames, header_ns in sets:
                    images, valid = self._encoded(frames, encoders, refused)
                    if not images:
                        continue
                    given.update(images.keys())
                    maps = registrar(frames, self._grid).maps
                    self.registration.update(registrar.methods)
                    labels = truth.at(header_ns) if truth else None
                    unlabelled += labels is None
                    yield Picture(
                        name=f"{bag.name} {frames.stamp_ns}",
                        images=images,
                        valid=valid,
                        maps={
                            name: grid_map
                            for name in images
                            if (grid_map := maps.get(self._sensors[name])) is not None
                        },
                        labels=None if labels is None else self._resized(labels),
                        source=source,
                        sequence=sequence,
                        stamp_ns=frames.stamp_ns,
                    )
                    source += 1
            if truth and unlabelled:
                self._say(f"{unlabelled} pictures of {bag} have no label of their stamp")
        for name, refusal in refused.items():
            if not given[name]:
                raise refusal

    def _encoders(self) -> dict[str, Encoder]:
        return {name: Encoder.from_description(how) for name, how in self._descriptions.items()}

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._warn(text)

    def _sets(self, bag: Path) -> Sets:
        return spread_sets(bag, self.rig, self._frames, self._say)

    def _examine(self, bag: Path) -> int:
        """Hold a drive against the rig; returns how many reference images it has."""
        with BagReader(bag) as reader:
            for warning in check_topics(reader, self.rig):
                self._say(f"{bag}: {warning}")
            self._topics.update(reader.topics)
            count = reader.topics[self.rig.reference_topic].count
        if self._labels:
            LabelReader(bag, self._labels).close()
        return count

    def _default_size(self, patch_size: int) -> Size:
        with closing(self._sets(self._bags[0])) as sets:
            frame = next(sets)[0].frames[self.rig.reference]
        side = IMAGE_SIDE if patch_size >= 16 else SMALL_TOKEN_SIDE
        return default_size("none", "full_frame", (frame.height, frame.width), side)

    def _encoded(
        self, frames: FrameSet, encoders: Mapping[str, Encoder], refused: dict[str, RigError]
    ) -> tuple[dict[str, Image], dict[str, Mask]]:
        """Images and validity of the modalities that are there."""
        images, valid = {}, {}
        for name, encoder in encoders.items():
            frame = frames.frames.get(self._sensors[name])
            if frame is None:
                reason = frames.missing.get(self._sensors[name], "not in the rig")
                self.missing[f"{name}: {reason}"] += 1
                continue
            if encoder.crops((frame.height, frame.width), self._size):
                raise self._cropped((frame.height, frame.width))
            try:
                images[name], mask = encoder.encode(frame, self._size, frame.camera)
            except RigError as error:  # its calibration may come later in the drive
                self.missing[f"{name}: {error.what}"] += 1
                refused[name] = error
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

    def _resized(self, labels: Labels) -> Labels:
        """Labels (H, W) at the pictures' size, by the nearest pixel."""
        rows, columns = (
            nearest_indices(length, resized)
            for length, resized in zip(labels.shape, self._size, strict=True)
        )
        return labels[rows[:, None], columns]
