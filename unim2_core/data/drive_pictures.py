"""Pictures out of recorded drives: synchronised, decoded, encoded, and registered."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

from unim2_core.data.crops import IMAGE_SIDE, default_size
from unim2_core.data.drive_labels import DriveLabels, LabelReader
from unim2_core.data.drives import Sets, Warn, check_topics, contents, spread_sets
from unim2_core.data.framing import Encodings, Framing
from unim2_core.data.labels import Classes, Labels
from unim2_core.data.pictures import Picture
from unim2_core.errors import DataError, ModelError, RigError
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.modalities import Encoder, Preset
from unim2_core.sensing.registrar import with_depth
from unim2_core.sensing.resampling import Size, nearest_indices
from unim2_core.sensing.rig import Rig

RULES_VERSION = 1
"""To be raised when the same drives give other pictures."""

SMALL_TOKEN_SIDE = 240
"""Attention costs by the square of the number of tokens."""

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
        encoders = {name: Encoder.from_description(how) for name, how in encodings.items()}
        self._descriptions = {name: encoder.describe() for name, encoder in encoders.items()}
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
        self._patch_size = patch_size
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

    @property
    def drives(self) -> tuple[tuple[str, str], ...]:
        """Name, and hex digest of the files, of each drive."""
        return tuple(
            (bag.name, hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest())
            for bag, files in zip(self._bags, self._contents, strict=True)
        )

    def fingerprint(self) -> str:
        """Hex digest of everything that decides the pictures: the drives' bytes, and how."""
        return self._digest

    @cached_property
    def _contents(self) -> list[dict[str, str]]:
        return [contents(bag) for bag in self._bags]

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
            "drives": self._contents,
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
            framing = Framing(
                *(self.rig, self._descriptions, self._size, self._patch_size),
                sequence=sequence,
                missing=self.missing,
            )
            unlabelled = 0
            with ExitStack() as stack:
                truth: LabelReader | None = None
                if self._labels:
                    truth = stack.enter_context(LabelReader(bag, self._labels))
                sets = stack.enter_context(closing(self._sets(bag)))
                for frames, header_ns in sets:
                    labels = truth.at(header_ns) if truth else None
                    resized = None if labels is None else self._resized(labels)
                    name = f"{bag.name} {frames.stamp_ns}"
                    picture = framing.picture(frames, name, source, resized)
                    self.registration.update(framing.registration)
                    if picture is None:
                        continue
                    unlabelled += labels is None
                    yield picture
                    source += 1
            given.update(framing.given)
            refused.update(framing.refused)
            if truth and unlabelled:
                self._say(f"{unlabelled} pictures of {bag} have no label of their stamp")
        for name, refusal in refused.items():
            if not given[name]:
                raise refusal

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

    def _resized(self, labels: Labels) -> Labels:
        """Labels (H, W) at the pictures' size, by the nearest pixel."""
        rows, columns = (
            nearest_indices(length, resized)
            for length, resized in zip(labels.shape, self._size, strict=True)
        )
        return labels[rows[:, None], columns]
