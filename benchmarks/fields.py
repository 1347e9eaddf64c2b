"""What models are measured on: the synthetic world, and real red and near infrared images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from unim2_core.data.data_sets import open_data_set
from unim2_core.data.drive_labels import SYNTHETIC
from unim2_core.data.drive_pictures import DrivePictures, encodings_of
from unim2_core.data.pictures import PictureSource
from unim2_core.data.synthetic import WORLD_VERSION, DriveConfig, default_rig, write_drive
from unim2_core.data.views import Cropped, Mirrored
from unim2_core.learning.feature_cache import open_features
from unim2_core.learning.features import FeatureStore
from unim2_core.learning.selection import looked_at
from unim2_core.model.frozen import FrozenBackbone

MODALITIES = ("rgb", "depth", "thermal", "nir")
RATE_HZ = 2.0
TEST_SECONDS = 25.0
console = Console(width=150, highlight=False)


@dataclass(frozen=True, eq=False)
class Field:
    """Features to learn from and to measure on."""

    name: str
    train: FeatureStore
    mirrored: FeatureStore
    cropped: FeatureStore
    test: FeatureStore
    clusters: int

    def only(self, modalities: Sequence[str]) -> Field:
        """The field as it is with some of the modalities."""
        stores = (self.train, self.mirrored, self.cropped, self.test)
        return Field(self.name, *(store.only(modalities) for store in stores), self.clusters)


def synthetic(backbone: FrozenBackbone, cache: Path, seconds: float = 45.0) -> Field:
    """Two drives to learn from and two to measure on, each by day and by night."""
    drives: dict[str, list[Path]] = {"train": [], "test": []}
    for part, first, length in (("train", 1, seconds), ("test", 101, TEST_SECONDS)):
        for offset, condition in enumerate(("day", "night")):
            drive = DriveConfig(
                seed=first + offset, condition=condition, duration_s=length, rate_hz=RATE_HZ
            )
            path = cache / f"world{WORLD_VERSION}_{first + offset}_{condition}_{length:g}s"
            if not path.exists():
                console.print(f"rendering {path.name}")
                write_drive(path, drive)
            drives[part].append(path)
    rig = default_rig(DriveConfig(rate_hz=RATE_HZ))

    def source(part: str) -> DrivePictures:
        return DrivePictures(
            drives[part],
            rig,
            encodings_of(MODALITIES),
            size=(240, 320),
            patch_size=backbone.patch_size,
            labels=SYNTHETIC,
        )

    return opened("synthetic world", source("train"), source("test"), backbone, cache)


CWFID = """modalities:
  rgb: {as: rgb, glob: 'cwfid/images/*.png', channels: [0, 0, 0]}
  nir: {as: nir, glob: 'cwfid/images/*.png', channels: [1]}
labels:
  glob: 'cwfid/annotations/*.png'
  colors: {'0,0,0': 0, '0,255,0': 1, '255,0,0': WEED}
classes: [CLASSES]
split: {train: [0, 12], test: [12, 20]}
"""


def cwfid(data: Path, backbone: FrozenBackbone, cache: Path, classes: int = 3) -> Field:
    """Real red and near infrared: soil, crops and weeds, or (two classes) soil and plants."""
    folder = cache / "cwfid"  # a link: globs are relative to the YAML file
    folder.unlink(missing_ok=True)
    folder.symlink_to((data / "cwfid").resolve())
    weed, names = ("2", "soil, crop, weed") if classes == 3 else ("1", "soil, plants")
    file = cache / f"cwfid{classes}.yaml"
    file.write_text(CWFID.replace("WEED", weed).replace("CLASSES", names))
    parts = [
        open_data_set(str(file), split=split, crops=crops, size=size)
        for split, crops, size in (("train", "five", (240, 320)), ("test", "none", (480, 640)))
    ]
    return opened(f"cwfid in {classes} classes, real", parts[0], parts[1], backbone, cache)


def opened(
    name: str,
    train_on: PictureSource,
    test_on: PictureSource,
    backbone: FrozenBackbone,
    cache: Path,
) -> Field:
    """Features of both parts."""
    store = open_features(train_on, backbone, cache)
    rows = looked_at(len(store)).tolist()
    mirrored = open_features(Mirrored(train_on, rows), backbone, cache)
    middles = Cropped(train_on, rows, backbone.patch_size)
    cropped = open_features(middles, backbone, cache)
    test = open_features(test_on, backbone, cache)
    assert test.classes is not None
    return Field(name, store, mirrored, cropped, test, len(test.classes.names))
