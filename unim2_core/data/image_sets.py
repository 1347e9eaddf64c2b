"""What a data set of image files is: names, files, and every modality of an image, full size."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.image_files import listed_names
from unim2_core.data.labels import Classes, Labels
from unim2_core.errors import DataError
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.modalities import Preset

Split = Literal["train", "test", "all"]
LABELS = "labels"
"""Name under which the label files of a data set are listed."""


@dataclass(frozen=True, eq=False)
class Original:
    """One image of every modality, aligned, at its full size.

    Attributes:
        images: modality -> (H, W, 3) uint8 that is encoded already, or a frame to be encoded.
        labels: (H, W) uint8 classes, 255 = ignored; None where there are none.
    """

    images: Mapping[str, NDArray[np.uint8] | Frame]
    labels: Labels | None


class ImageSet(ABC):
    """A data set of image files, some of its modalities, one of its splits.

    Attributes:
        modalities: their names; the first is the reference.
        preset: how images are encoded.
        names: of the images.
        classes: that the labels mean; None where there are no labels.
    """

    modalities: tuple[str, ...]
    preset: Preset
    names: tuple[str, ...]
    classes: Classes | None

    @property
    @abstractmethod
    def kinds(self) -> Mapping[str, str]:
        """Modality -> key of ``MODALITIES`` that its encoding is of."""

    @property
    def sources(self) -> Sequence[int]:
        """Number of the image that each one is, or was made from."""
        return range(len(self.names))

    @property
    def rules(self) -> Mapping[str, Any]:
        """What decides the pictures besides the contents of the files; JSON types only."""
        return {"kind": type(self).__name__, "classes": self.classes and self.classes.raw_ids}

    @abstractmethod
    def files(self, item: int) -> Mapping[str, tuple[Path, ...]]:
        """The files of an image: modality, or ``labels``, -> paths."""

    @abstractmethod
    def read(self, item: int) -> Original:
        """Read an image.

        Raises:
            DataError: a file is unreadable or not what it should be.
        """

    def crop_labels(self, labels: Labels) -> Labels:
        """What the labels of a training crop are taken for: what they are."""
        return labels


class ListedImages(ImageSet):
    """A published data set: list files name its images, one folder holds each kind of file.

    Args:
        root: folder of the data set, or the one around it.
        split: which list; ``all`` is ``train`` and then ``test``.
        modalities: some of ``available``.
        preset: how images are encoded.

    Raises:
        DataError: a list is not there, or a modality is not one of this data set.
    """

    title: ClassVar[str]
    folder: ClassVar[str]
    """The data set's own folder in the archives of the release."""
    available: ClassVar[Mapping[str, str]]
    """Modality -> key of ``MODALITIES`` that its encoding is of."""
    lists: ClassVar[Mapping[str, tuple[str, ...]]]
    """Split -> list files, of which the first that is there counts."""

    def __init__(
        self, root: Path, split: Split, modalities: tuple[str, ...], preset: Preset
    ) -> None:
        check_modalities(modalities, tuple(self.available), self.title)
        self.modalities, self.preset = modalities, preset
        self.root, found = self._find(root, get_args(Split)[:2] if split == "all" else (split,))
        self.names = sum((listed_names(path) for path in found), ())

    @property
    def kinds(self) -> Mapping[str, str]:
        """Modality -> key of ``MODALITIES`` that its encoding is of."""
        return {name: self.available[name] for name in self.modalities}

    def _find(self, root: Path, splits: Sequence[str]) -> tuple[Path, list[Path]]:
        """The folder with the lists of all splits, and the lists."""
        for folder in (root, root / self.folder):
            found = []
            for split in splits:
                there = [path for name in self.lists[split] if (path := folder / name).is_file()]
                found += there[:1]
            if len(found) == len(splits):
                return folder, found
        wanted = " and ".join(" or ".join(self.lists[split]) for split in splits)
        raise DataError(
            f"{root} is not the folder of {self.title}",
            expected=f"{wanted} in {root} or in {root / self.folder}",
            found="neither" if root.is_dir() else "no such folder",
            remedy="give the data set's folder with --root",
        )


def check_modalities(wanted: Sequence[str], available: Sequence[str], title: str) -> None:
    """Check that modalities are in a data set, each named once.

    Raises:
        DataError: they are not.
    """
    if not wanted or len(set(wanted)) != len(wanted) or not set(wanted) <= set(available):
        raise DataError(
            f"{title} cannot give these modalities",
            expected=f"some of {', '.join(available)}, each once",
            found=", ".join(wanted) or "none",
            remedy="name them with --modalities, the reference first",
        )
