"""A plain folder of images per modality, described by a YAML file: see ``folder_file``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.folder_file import FolderFile, FolderModality
from unim2_core.data.folder_labels import folder_classes, folder_labels
from unim2_core.data.image_files import (
    Array,
    channels_of,
    listed_names,
    more,
    one_channel,
    read_array,
    three_channels,
)
from unim2_core.data.image_sets import LABELS, ImageSet, Original, Split, check_modalities
from unim2_core.errors import DataError
from unim2_core.sensing.depth import depth_to_metres
from unim2_core.sensing.encodings import high_bytes
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.modalities import MODALITIES, Preset
from unim2_core.sensing.paper_encoding import PAPER_ENCODINGS
from unim2_core.sensing.polarization import from_dolp_aolp
from unim2_core.sensing.thermal import thermal_values

_TYPES = {
    "rgb": "8 or 16 bit unsigned",
    "depth": "16 bit integers or floats; eight bits are a picture of depth",
    "thermal": "8 or 16 bit integers or floats",
    "nir": "8 or 16 bit unsigned or floats",
    "aolp": "integers or floats",
    "dolp": "integers or floats",
}


class FolderImages(ImageSet):
    """The images that a YAML file describes.

    Args:
        path: of the YAML file.
        split: which part of them; without a split in the file, ``train`` is all of them.
        modalities: some of those in the file, the reference first; None = all.
        preset: how images are encoded.

    Raises:
        DataError: the file is not valid, files cannot be paired, or the split is not possible.
    """

    def __init__(
        self, path: Path, split: Split, modalities: tuple[str, ...] | None, preset: Preset
    ) -> None:
        self._file, self._path, self.preset = FolderFile.load(path), path, preset
        self.modalities = tuple(self._file.modalities) if modalities is None else modalities
        check_modalities(self.modalities, tuple(self._file.modalities), str(path))
        self.classes = folder_classes(self._file)
        self._dolp = next((n for n, m in self._file.modalities.items() if m.kind == "dolp"), None)
        globs = {name: modality.glob for name, modality in self._file.modalities.items()}
        if self._file.labels is not None:
            globs[LABELS] = self._file.labels.glob
        every = {name: self._matches(name, glob) for name, glob in globs.items()}
        reference = next(iter(every))
        for name in every:
            _check_pairs(every[reference], every[name], name)
        chosen = self._chosen(split, every[reference])
        self._paths = {name: [paths[i] for i in chosen] for name, paths in every.items()}
        self.names = tuple(file.stem for file in self._paths[reference])

    @property
    def kinds(self) -> Mapping[str, str]:
        """Modality -> key of ``MODALITIES`` that its encoding is of."""
        return {name: self._file.modalities[name].kind for name in self.modalities}

    @property
    def rules(self) -> Mapping[str, Any]:
        """What decides the pictures besides the contents of the files."""
        return {"kind": "folder", "file": self._file.model_dump(mode="json", exclude={"split"})}

    def files(self, item: int) -> Mapping[str, tuple[Path, ...]]:
        """The files of an image."""
        kinds = (*self.modalities, LABELS) if LABELS in self._paths else self.modalities
        files: dict[str, tuple[Path, ...]]
        files = {kind: (self._paths[kind][item],) for kind in kinds}
        for name in self.modalities:
            if self._file.modalities[name].kind == "aolp" and self._dolp is not None:
                files[name] += (self._paths[self._dolp][item],)
        return files

    def read(self, item: int) -> Original:
        """Read an image."""
        images: dict[str, NDArray[np.uint8] | Frame] = {}
        for name in self.modalities:
            frame = self._frame(name, item)
            images[name] = frame
            if self.preset == "paper":
                kind = self._file.modalities[name].kind
                if kind == "thermal" and frame.data.max(initial=0) > 255:
                    raise DataError(
                        f"{self._paths[name][item]} has more than 8 bits",
                        expected="8 bit thermal images, which the preset paper needs",
                        found=f"counts up to {frame.data.max():.0f}",
                        remedy="use the preset robot",
                    )
                images[name] = PAPER_ENCODINGS[kind](frame, None)
        labels = None
        if self._file.labels is not None and self.classes is not None:
            path = self._paths[LABELS][item]
            labels = folder_labels(read_array(path), self._file.labels, self.classes, path)
        return Original(images, labels)

    def _frame(self, name: str, item: int) -> Frame:
        options, path = self._file.modalities[name], self._paths[name][item]
        image = channels_of(read_array(path), options.channels, path)
        kind = options.kind
        sensor = MODALITIES[kind].sensor
        if kind == "rgb":
            if image.dtype not in (np.uint8, np.uint16):
                raise _wrong_type(kind, image, path)
            return Frame(sensor, 0, three_channels(high_bytes(image), path))
        counts = one_channel(image, path)
        small = counts.dtype == np.uint8 and kind == "depth"
        if counts.dtype.kind not in "iuf" or small or (kind == "nir" and counts.dtype.kind == "i"):
            raise _wrong_type(kind, counts, path)
        if kind == "depth":
            depth_m, valid = depth_to_metres(counts, options.depth.unit_m)
            return Frame(sensor, 0, depth_m, valid=valid, unit="m")
        if kind == "thermal":
            values, unit = thermal_values(counts, options.thermal)
            return Frame(sensor, 0, values, unit=unit)
        if kind == "nir":
            largest = 1.0 if counts.dtype.kind == "f" else float(np.iinfo(counts.dtype).max)
            share = counts.astype(np.float32) * np.float32(1 / (options.full_scale or largest))
            np.nan_to_num(share, copy=False, nan=0.0, posinf=1.0, neginf=0.0)
            return Frame(sensor, 0, np.clip(share, 0.0, 1.0, out=share))
        if kind == "dolp":
            angle = np.zeros(counts.shape, np.float32)
            return Frame(sensor, 0, from_dolp_aolp(None, counts, angle, "rad", 1.0))
        angle, degree = _angle_rad(counts, options), np.ones(counts.shape, np.float32)
        if self._dolp is not None:
            dolp, dolp_path = self._file.modalities[self._dolp], self._paths[self._dolp][item]
            read = channels_of(read_array(dolp_path), dolp.channels, dolp_path)
            degree = one_channel(read, dolp_path)
        return Frame(sensor, 0, from_dolp_aolp(None, degree, angle, "rad", 1.0))

    def _matches(self, name: str, glob: str) -> list[Path]:
        try:
            found = sorted(path for path in self._path.parent.glob(glob) if path.is_file())
        except (ValueError, NotImplementedError) as error:
            raise self._no_files(name, glob, str(error)) from error
        if not found:
            raise self._no_files(name, glob, "no file")
        return found

    def _no_files(self, name: str, glob: str, found: str) -> DataError:
        return DataError(
            f"there are no files of {name}",
            expected=f"files like {self._path.parent / glob}",
            found=found,
            remedy=f"mend the glob of {name} in {self._path}; it is relative to that file",
        )

    def _chosen(self, split: Split, files: Sequence[Path]) -> Sequence[int]:
        """Positions of the images of a split."""
        given = {"train": self._file.split.train, "test": self._file.split.test}
        if split == "all" or (split == "train" and given == {"train": None, "test": None}):
            return range(len(files))
        which = given[split]
        if which is None:
            raise DataError(
                f"{self._path} names no images for {split}",
                expected=f"split: {{{split}: [0, {len(files)}]}}, or a list file",
                found="none",
                remedy="add it, or use all images with --split all",
            )
        if isinstance(which, str):
            return _positions(self._path.parent / which, files)
        start, stop = which
        if not start < stop <= len(files):
            raise DataError(
                f"the split {split} of {self._path} is not possible",
                expected=f"[start, stop] with start < stop <= {len(files)}, the number of images",
                found=f"[{start}, {stop}]",
                remedy="mend the split",
            )
        return range(start, stop)


def _positions(path: Path, files: Sequence[Path]) -> list[int]:
    """Positions of the files that a list names, with or without their suffix."""
    places = {file.stem: place for place, file in enumerate(files)}
    places |= {file.name: place for place, file in enumerate(files)}
    names = listed_names(path)
    missing = [name for name in names if name not in places]
    if missing:
        raise DataError(
            f"{path} lists {len(missing)} images that are not there",
            expected=f"names of the {len(files)} images of the reference",
            found=", ".join(missing[:10]) + more(len(missing)),
            remedy="mend the list",
        )
    return [places[name] for name in names]


def _check_pairs(reference: Sequence[Path], files: Sequence[Path], name: str) -> None:
    """Check that every reference file has its partner, as far as that can be told.

    Where the same names are in use, they must be the same; else only the number tells.
    """
    ours, theirs = ({path.stem for path in each} for each in (reference, files))
    if len(reference) == len(files) and (ours == theirs or not ours & theirs):
        return
    alone = [path for path in reference if path.stem not in theirs]
    alone += [path for path in files if path.stem not in ours]
    if not ours & theirs:
        longer = max(reference, files, key=len)
        alone = list(longer[min(len(reference), len(files)) :])
    raise DataError(
        f"the files of {name} cannot be paired with those of the reference",
        expected=f"{len(reference)} files of {name}, in the order of the reference's",
        found=f"{len(files)} files; without a partner: "
        + (str(alone[0]) if alone else "one of several with the same name"),
        remedy="complete the files, or mend the globs",
    )


def _angle_rad(counts: Array, options: FolderModality) -> NDArray[np.float32]:
    """AoLP of a file in radians."""
    unit = options.aolp_unit or ("rad" if counts.dtype.kind == "f" else "range")
    scale = {"rad": 1.0, "deg": np.pi / 180}.get(unit, 0.0)
    if unit == "range":
        scale = np.pi if counts.dtype.kind == "f" else np.pi / np.iinfo(counts.dtype).max
    angle: NDArray[np.float32] = counts.astype(np.float32) * np.float32(scale)
    return angle


def _wrong_type(kind: str, image: Array, path: Path) -> DataError:
    return DataError(
        f"{path} is not an image of {kind}",
        expected=_TYPES[kind],
        found=f"{image.dtype} of shape {image.shape}",
        remedy="mend as: in the data set's file, or the file",
    )
