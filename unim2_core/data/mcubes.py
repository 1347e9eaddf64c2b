"""MCubeS: street scenes, RGB, near infrared and polarization. The published rules for one image.

All files lose their first 192 columns, which not every camera sees. Below the folder of the
data set (``MCubeS`` in the release's archive)::

    list_folder/train.txt  test.txt                   a name a line
    polL_color/NAME.png  NIR_warped/NAME.png          16 bit
    polL_aolp_sin/NAME.npy  polL_aolp_cos/  polL_dolp/
    GT/NAME.png                                       0 to 19, others = no label
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from unim2_core.data.image_files import one_channel, read_array
from unim2_core.data.image_sets import LABELS, ListedImages, Original
from unim2_core.data.labels import Classes, raw_labels
from unim2_core.errors import DataError
from unim2_core.sensing.encodings import high_bytes
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.paper_encoding import stretch, stretched_angle, three_times
from unim2_core.sensing.polarization import from_dolp_aolp

# fmt: off
MCUBES = Classes(
    names=(
        "asphalt", "concrete", "metal", "road_marking", "fabric", "glass", "plaster", "plastic",
        "rubber", "sand", "gravel", "ceramic", "cobblestone", "brick", "grass", "wood", "leaf",
        "water", "human", "sky",
    ),
    colors=(
        (44, 160, 44), (31, 119, 180), (255, 127, 14), (214, 39, 40), (140, 86, 75),
        (127, 127, 127), (188, 189, 34), (255, 152, 150), (23, 190, 207), (174, 199, 232),
        (196, 156, 148), (197, 176, 213), (247, 182, 210), (199, 199, 199), (219, 219, 141),
        (158, 218, 229), (57, 59, 121), (107, 110, 207), (156, 158, 222), (99, 121, 57),
    ),
    raw_ids=tuple(range(20)),
)
# fmt: on

UNSEEN_COLUMNS = 192


def seen(file: NDArray[Any]) -> NDArray[Any]:
    """Image or labels (H, W, ...) without the columns that not every camera sees."""
    return file[:, UNSEEN_COLUMNS:]


def mcubes_rgb(file: NDArray[np.uint16] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``polL_color`` (H, W, 3) red, green, blue, 16 bit, to 8 bit by the high byte."""
    rgb: NDArray[np.uint8] = high_bytes(file)
    return rgb


def mcubes_nir(file: NDArray[np.uint16] | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``NIR_warped`` (H, W), 16 bit, to (H, W, 3) by the high byte."""
    return three_times(high_bytes(file))


def mcubes_images(
    rgb: NDArray[np.uint16],
    nir: NDArray[np.uint16],
    aolp_sin: NDArray[Any],
    aolp_cos: NDArray[Any],
    dolp: NDArray[Any],
) -> dict[str, NDArray[np.uint8]]:
    """Modality -> (H, W, 3) uint8.

    Args:
        rgb: (H, W, 3) red, green, blue of ``polL_color``, 16 bit.
        nir: (H, W) of ``NIR_warped``, 16 bit.
        aolp_sin: (H, W) of ``polL_aolp_sin``, the sine as stored.
        aolp_cos: (H, W) of ``polL_aolp_cos``.
        dolp: (H, W) of ``polL_dolp``.
    """
    return {
        "rgb": mcubes_rgb(rgb),
        "nir": mcubes_nir(nir),
        "aolp": stretched_angle(aolp_sin, aolp_cos),
        "dolp": three_times(stretch(dolp)),
    }


def polarization(
    rgb: NDArray[Any], aolp_sin: NDArray[Any], aolp_cos: NDArray[Any], dolp: NDArray[Any]
) -> NDArray[np.float32]:
    """(H, W, 3) float32 S0, DoLP, AoLP, see ``sensing.polarization``.

    The colour image is the polarization camera's, so its luminance is S0. The data set does not
    say whether sine and cosine are of the angle a or of 2a: a is in half a turn, so then one of
    them is nowhere negative, while those of 2a take both signs.
    """
    angle = np.arctan2(aolp_sin.astype(np.float32), aolp_cos.astype(np.float32))
    if min(aolp_sin.min(), aolp_cos.min()) < 0 <= max(aolp_sin.min(), aolp_cos.min()):
        half_turn = angle
    else:
        half_turn = angle / np.float32(2)
    grey = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    white = float(np.iinfo(grey.dtype).max)
    return from_dolp_aolp(grey, dolp.astype(np.float32), half_turn, "rad", white)


_SUFFIX = {
    "polL_color": ".png",
    "NIR_warped": ".png",
    "polL_aolp_sin": ".npy",
    "polL_aolp_cos": ".npy",
    "polL_dolp": ".npy",
    "GT": ".png",
}
_PUBLISHED = {
    "rgb": ("polL_color",),
    "nir": ("NIR_warped",),
    "aolp": ("polL_aolp_sin", "polL_aolp_cos"),
    "dolp": ("polL_dolp",),
}
_POLARIZATION = ("polL_color", "polL_aolp_sin", "polL_aolp_cos", "polL_dolp")


class McubesImages(ListedImages):
    """MCubeS; its modalities are ``rgb``, ``nir``, ``aolp`` and ``dolp``."""

    title = "MCubeS"
    folder = "MCubeS"
    available: ClassVar[Mapping[str, str]] = {name: name for name in _PUBLISHED}
    lists: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": ("list_folder/train.txt",),
        "test": ("list_folder/test.txt",),
    }
    classes = MCUBES

    def files(self, item: int) -> Mapping[str, tuple[Path, ...]]:
        """The files of an image; physical polarization takes four."""
        folders = dict(_PUBLISHED) | {LABELS: ("GT",)}
        if self.preset == "robot":
            folders |= dict.fromkeys(("aolp", "dolp"), _POLARIZATION)
        return {
            kind: tuple(
                self.root / folder / f"{self.names[item]}{_SUFFIX[folder]}"
                for folder in folders[kind]
            )
            for kind in (*self.modalities, LABELS)
        }

    def read(self, item: int) -> Original:
        """Read an image."""
        files = self.files(item)
        paths = {path.parent.name: path for each in files.values() for path in each}
        arrays = {folder: _seen_file(path) for folder, path in paths.items()}
        labels = MCUBES.of(raw_labels(arrays["GT"], paths["GT"]))
        read = self._robot if self.preset == "robot" else self._paper
        return Original({name: read(name, arrays) for name in self.modalities}, labels)

    def _paper(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.uint8]:
        parts = [arrays[folder] for folder in _PUBLISHED[name]]
        if name == "rgb":
            return mcubes_rgb(*parts)
        if name == "nir":
            return mcubes_nir(*parts)
        return stretched_angle(*parts) if name == "aolp" else three_times(stretch(*parts))

    def _robot(self, name: str, arrays: Mapping[str, NDArray[Any]]) -> Frame:
        if name == "rgb":
            return Frame("rgb", 0, mcubes_rgb(arrays["polL_color"]))
        if name == "nir":
            counts = arrays["NIR_warped"]
            scale = np.float32(1 / np.iinfo(counts.dtype).max)
            return Frame("nir", 0, counts.astype(np.float32) * scale)
        parts = [arrays[folder] for folder in _POLARIZATION]
        return Frame("polarization", 0, polarization(*parts))


def _seen_file(path: Path) -> NDArray[Any]:
    """A file without the columns that not every camera sees; checked for its kind."""
    image = read_array(path)
    colour = path.parent.name == "polL_color"
    fitting = (np.uint8, np.uint16) if path.suffix == ".png" else (np.float32, np.float64)
    if (
        image.shape[1] <= UNSEEN_COLUMNS
        or image.dtype not in fitting
        or (colour and (image.ndim != 3 or image.shape[2] != 3))
    ):
        raise DataError(
            f"{path} is not a file of MCubeS",
            expected=f"more than {UNSEEN_COLUMNS} columns, {'three' if colour else 'one'} "
            f"channel{'s' if colour else ''}, {' or '.join(t.__name__ for t in fitting)}",
            found=f"{image.dtype} of shape {image.shape}",
            remedy="use the files of the published data set",
        )
    image = seen(image if colour else one_channel(image, path))
    if image.dtype.kind == "f":
        image = np.nan_to_num(image, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return np.ascontiguousarray(image)
