"""Opening a data set of image files by its name, or by the YAML file that describes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unim2_core.data.crops import CropKind, Framing
from unim2_core.data.folder_file import FolderFile
from unim2_core.data.folders import FolderImages
from unim2_core.data.image_pictures import ImagePictures
from unim2_core.data.image_sets import ImageSet, ListedImages, Split
from unim2_core.data.mcubes import McubesImages
from unim2_core.data.mfnet import MfnetImages
from unim2_core.data.nyu import NYU4, NYU13, NyuImages
from unim2_core.data.pictures import PictureSource
from unim2_core.errors import DataError
from unim2_core.sensing.modalities import Preset

PUBLISHED_MODALITIES = {
    "nyu": ("rgb", "depth"),
    "nyu4": ("rgb", "depth"),
    "mfnet": ("rgb", "thermal"),
    "mcubes": ("rgb", "aolp"),
}
"""Data set -> the modalities of the published table; ``mcubes`` also has ``nir`` and ``dolp``."""

_LISTED: Mapping[str, type[ListedImages]] = {
    "nyu": NyuImages,
    "nyu4": NyuImages,
    "mfnet": MfnetImages,
    "mcubes": McubesImages,
}
_SUFFIXES = (".yaml", ".yml")


def open_data_set(
    data: str,
    root: Path | None = None,
    *,
    split: Split = "train",
    preset: Preset = "robot",
    modalities: tuple[str, ...] | None = None,
    size: tuple[int, int] | None = None,
    crops: CropKind | None = None,
    framing: Framing | None = None,
) -> PictureSource:
    """Open a data set as a source of pictures.

    Every file is looked for before anything is read; only the first image is read here.

    Args:
        data: ``nyu`` (13 classes), ``nyu4``, ``mfnet``, ``mcubes``, or the path of a YAML file.
        root: folder of a published data set; a YAML file knows its own.
        split: which images.
        preset: ``paper``: the published resize, training crops through lossy JPEG, for NYU with
            their labels merged twice. ``robot``: averaged over areas, nothing lost.
        modalities: which, the reference first; None: those of ``PUBLISHED_MODALITIES``, or all
            of the YAML file.
        size: height and width of the pictures, multiples of 16; None: shorter side 224 for crops
            and 320 for whole images.
        crops: ``five`` or ``random`` crops of half the image's sides, or ``none``; None: five of
            each training image, none of others.
        framing: ``centre_crop``, the published square out of the middle, or ``full_frame``; None:
            the former with preset ``paper``, the latter with ``robot``.

    Raises:
        DataError: the data set is not known, incomplete or not what it should be.
    """
    crops = crops or ("five" if split == "train" else "none")
    framing = framing or ("centre_crop" if preset == "paper" else "full_frame")
    if data.endswith(_SUFFIXES):
        if root is not None:
            raise DataError(
                "a YAML file says where its images are",
                expected="no --root",
                found=str(root),
                remedy="write globs relative to the YAML file",
            )
        folder = FolderImages(Path(data), split, modalities, preset)
        return ImagePictures(folder, crops, framing, size)
    return ImagePictures(_published(data, root, split, modalities, preset), crops, framing, size)


def modalities_in(data: str) -> tuple[str, ...]:
    """Every modality that a data set can give, by the names that the data set has for them.

    Args:
        data: see ``open_data_set``.

    Raises:
        DataError: the data set is not known, or its file is not valid.
    """
    if data.endswith(_SUFFIXES):
        return tuple(FolderFile.load(Path(data)).modalities)
    return tuple(_listed(data).available)


def _listed(data: str) -> type[ListedImages]:
    if data not in _LISTED:
        raise DataError(
            f"there is no data set {data}",
            expected=f"{', '.join(_LISTED)}, or a .yaml file",
            found=data,
            remedy="describe a folder of images in a YAML file",
        )
    return _LISTED[data]


def _published(
    data: str, root: Path | None, split: Split, modalities: tuple[str, ...] | None, preset: Preset
) -> ImageSet:
    kind = _listed(data)
    if root is None:
        raise DataError(
            f"it is not known where {data} is",
            expected="the folder of the data set",
            found="none",
            remedy="give it with --root",
        )
    modalities = modalities or PUBLISHED_MODALITIES[data]
    if kind is NyuImages:
        return NyuImages(root, split, modalities, preset, NYU4 if data == "nyu4" else NYU13)
    return kind(root, split, modalities, preset)
