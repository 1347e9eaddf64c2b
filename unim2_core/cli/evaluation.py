"""What ``unim2 evaluate`` measures on, and how it shows what it found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, warn
from unim2_core.cli.options import rig_from
from unim2_core.data.data_sets import modalities_in, open_data_set
from unim2_core.data.drive_labels import SYNTHETIC
from unim2_core.data.drive_pictures import DrivePictures
from unim2_core.data.image_sets import Split
from unim2_core.data.pictures import PictureSource
from unim2_core.errors import DataError
from unim2_core.evaluation.measurement import Measured
from unim2_core.evaluation.report import NO_CLASS, confusion_shares
from unim2_core.files import write_atomically
from unim2_core.inference.pipeline import check_reference
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.bags import BagReader
from unim2_core.showing.confusion import confusion_picture

PAPER_SIZE = (320, 320)
EVERY = 2**31
CHOSEN = "none left out"
"""Name of the subset that holds all modalities in use."""


@dataclass(frozen=True)
class Sources:
    """What the command line says of the pictures to measure on.

    Attributes:
        data: a data set, or None where drives are given.
        root: its folder.
        split: which images of it.
        protocol: ``paper`` or ``full``.
        bags: drives.
        rig: of the drives, as ``rig_from`` takes it.
        topics: of the drives.
        frames: frame sets of each drive, at most; None = all.
        labels_needed: whether drives without ground truth are refused.
    """

    data: str | None
    root: Path | None
    split: Split
    protocol: str
    bags: Sequence[Path]
    rig: Path | None
    topics: Sequence[str] | None
    frames: int | None
    labels_needed: bool = True

    def open(self, bundle: Bundle, names: Sequence[str]) -> tuple[PictureSource, dict[str, str]]:
        """The pictures as the model takes them, and modality -> why it is not there.

        Args:
            bundle: the model.
            names: some of its modalities.

        Raises:
            Unim2Error: the data cannot be read, has none of them, or fits the model in no way.
        """
        source, missing = (
            self._drives(bundle, names)
            if self.data is None
            else self._images(bundle, self.data, names)
        )
        for reason in missing.values():
            warn(f"{reason}: it counts as missing")
        return source, missing

    def _images(
        self, bundle: Bundle, data: str, names: Sequence[str]
    ) -> tuple[PictureSource, dict[str, str]]:
        there = modalities_in(data)
        missing = {
            name: f"{name} is not in the data, which has {', '.join(there)}"
            for name in names
            if name not in there
        }
        _check_some(names, missing)
        encodings = {entry.name: entry.encoding for entry in bundle.manifest.modalities}
        shared = tuple(name for name in names if name in there)
        paper = self.protocol == "paper"
        source = open_data_set(
            data,
            self.root,
            split=self.split,
            preset=encodings[shared[0]].get("preset", "robot"),
            modalities=shared,
            size=PAPER_SIZE if paper else bundle.manifest.infer_size,
            crops="none",
            framing="centre_crop" if paper else "full_frame",
        )
        for name in shared:
            if dict(source.encodings[name]) != encodings[name]:
                raise DataError(
                    f"{name} of the data is not encoded as the model learnt it",
                    expected=f"{encodings[name]}",
                    found=f"{dict(source.encodings[name])}",
                    remedy="say what the images are in the data set's file, or train on such data",
                )
        return source, missing

    def _drives(
        self, bundle: Bundle, names: Sequence[str]
    ) -> tuple[PictureSource, dict[str, str]]:
        manifest = bundle.manifest
        rig = rig_from(self.rig, self.topics)
        check_reference(bundle, rig)
        drives = DrivePictures(
            self.bags,
            rig,
            {entry.name: entry.encoding for entry in manifest.modalities if entry.name in names},
            size=manifest.infer_size,
            patch_size=manifest.backbone.patch_size,
            frames=self.frames or EVERY,
            labels=SYNTHETIC if self.labels_needed or self._have_labels() else None,
            warn=warn,
        )
        missing = {sentence.split(" ", 1)[0]: sentence for sentence in drives.absent}
        _check_some(names, missing)
        return drives, missing

    def _have_labels(self) -> bool:
        for bag in self.bags:
            with BagReader(bag) as reader:
                if SYNTHETIC.topic not in reader.topics:
                    return False
        return True


def _check_some(names: Sequence[str], missing: Mapping[str, str]) -> None:
    if all(name in missing for name in names):
        raise DataError(
            "none of the modalities is in the data",
            expected=f"some of {', '.join(names)}",
            found="; ".join(missing.values()),
            remedy="name the modalities of the data as the model does",
        )


def print_report(report: Mapping[str, Any]) -> None:
    """Say what was found."""
    figures, protocol = report["figures"], report["protocol"]
    count, in_pictures = report["pictures"], report["modalities"]["pictures"]
    used = ", ".join(
        name if in_pictures[name] == count else f"{name} (in {in_pictures[name]})"
        for name in report["modalities"]["used"]
    )
    console.print(escape(report["model"]["summary"]))
    console.print(
        escape(
            f"{count} pictures, modalities {used}; "
            f"protocol {protocol['name']}, resized: {protocol['resized']}"
        )
    )
    pixels = max(1, sum(entry["pixels"] for entry in figures["classes"]))
    table = Table("class", "IoU", "share of the labels", "cluster")
    for entry in figures["classes"]:
        share = f"{100 * entry['pixels'] / pixels:.1f} %"
        cluster = escape(entry["cluster"] or "-")
        table.add_row(escape(entry["name"]), _percent(entry["iou"]), share, cluster)
    if figures["pixels_without_class"]:
        left = ", ".join(name for name, label in figures["clusters"].items() if label is None)
        table.add_row(NO_CLASS, _percent(0.0), "-", escape(left))
    console.print(table)
    table = Table("modalities", "mIoU", "accuracy", "labels answered")
    for subset, row in (report["each_missing"] or {CHOSEN: figures}).items():
        values = (_percent(row[key]) for key in ("mean_iou", "accuracy", "coverage"))
        table.add_row(escape(subset), *values)
    console.print(table)
    console.print("Labels only report.")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def draw_confusion(path: Path, bundle: Bundle, source: PictureSource, found: Measured) -> None:
    """Write the confusion matrix of the modalities that were asked for."""
    assert source.classes is not None
    names = source.classes.names
    shares = confusion_shares(found.tallies[CHOSEN].scores, len(names))
    columns = [*names, NO_CLASS][: shares.shape[1]]
    title = f"{bundle.manifest.name} {bundle.version}: percent of each true class"
    picture = confusion_picture(shares, names, columns, title)
    _, content = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    write_atomically(path, content.tobytes())
