"""Golden arrays of resize, crops and data set encodings, recomputed and compared.

Every array of ``geometry.npz`` and ``datasets.npz`` is an input, or is recomputed by a rule below,
or gives a row that fails: nothing is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.labels import Labels, loaded_crop, stored_crop
from unim2_core.data.mcubes import MCUBES, mcubes_images
from unim2_core.data.mfnet import MFNET, mfnet_images, mirrored
from unim2_core.data.nyu import NYU4, NYU13, nyu_crop_labels, nyu_images
from unim2_core.evaluation.parity import EXACT, Row, arrays_of, deviation
from unim2_core.sensing.modalities import MODALITIES
from unim2_core.sensing.resampling import (
    covering_size,
    five_crop_boxes,
    published_grid,
    random_crop_boxes,
    resize_published,
)

Arrays = Mapping[str, NDArray[Any]]
Rule = Callable[[Arrays, re.Match[str]], NDArray[Any]]

FLOAT_TOLERANCE = 1e-6
"""Tolerance of a normalised image: a few roundings in float32. Integers must be equal."""
_CROP_RATIO = 0.5

_DATASET_INPUTS = re.compile(
    r"res|nyu/(rgb_upright|hha|label_raw)|mfnet/(rgba|label_raw)"
    r"|mcubes/(rgb16|nir16|aolp_sin|aolp_cos|dolp|label_raw)"
)


def geometry_rows(path: Path) -> Iterator[Row]:
    """Rows for crop boxes and for the source pixels of the nearest resize."""
    yield from _rows(path, _GEOMETRY_RULES, None)


def datasets_rows(path: Path) -> Iterator[Row]:
    """Rows for what the published loaders make of NYU, MFNet and MCubeS images and labels."""
    yield from _rows(path, _DATASET_RULES, _DATASET_INPUTS)


def _rows(path: Path, rules: Mapping[str, Rule], inputs: re.Pattern[str] | None) -> Iterator[Row]:
    arrays = arrays_of(path)
    for name, theirs in arrays.items():
        if inputs is None or not inputs.fullmatch(name):
            yield _row(path.name, name, theirs, arrays, rules)


def _row(
    file: str, name: str, theirs: NDArray[Any], arrays: Arrays, rules: Mapping[str, Rule]
) -> Row:
    case, _, compared = name.rpartition("/")
    tolerance = FLOAT_TOLERANCE if theirs.dtype.kind == "f" else EXACT
    for pattern, rule in rules.items():
        match = re.fullmatch(pattern, name)
        if match is None:
            continue
        try:
            return Row(file, case, compared, deviation(rule(arrays, match), theirs), tolerance)
        except KeyError as missing:
            return Row(file, case, f"{compared}: no input {missing}", float("inf"), tolerance)
    return Row(file, case, f"{compared}: not covered", float("inf"), tolerance)


def _crop_boxes(arrays: Arrays, match: re.Match[str]) -> NDArray[Any]:
    return five_crop_boxes(int(match["h"]), int(match["w"]), float(match["ratio"]))


def _random_boxes(arrays: Arrays, match: re.Match[str]) -> NDArray[Any]:
    height, width, ratio = int(match["h"]), int(match["w"]), float(match["ratio"])
    return random_crop_boxes(int(match["item"]), height, width, ratio)


def _resize(arrays: Arrays, match: re.Match[str]) -> NDArray[Any]:
    source, size = (int(match["h"]), int(match["w"])), (int(match["res"]),) * 2
    if match["what"] == "resized_hw":
        return np.array(covering_size(source, size))
    return published_grid(source, size)[("row_index", "col_index").index(match["what"])]


_BOXES = r"(?P<h>\d+)x(?P<w>\d+)@(?P<ratio>[\d.]+)"
_GEOMETRY_RULES: dict[str, Rule] = {
    "five_crop/" + _BOXES: _crop_boxes,
    r"random_crop_index(?P<item>\d+)/" + _BOXES: _random_boxes,
    r"(?P<h>\d+)x(?P<w>\d+)_to_(?P<res>\d+)/(?P<what>row_index|col_index|resized_hw)": _resize,
}


def _loaded(image: NDArray[Any], arrays: Arrays) -> NDArray[Any]:
    """Resized to the file's resolution; images of three channels are normalised as well."""
    side = int(arrays["res"])
    resized = resize_published(image, (side, side))
    return MODALITIES["rgb"].normalize(resized) if image.ndim == 3 else resized


def _nyu(arrays: Arrays, match: re.Match[str]) -> NDArray[Any]:
    if match["what"] == "label":
        classes = NYU13 if match["classes"] == "13" else NYU4
        return _loaded(classes.of(arrays["nyu/label_raw"]), arrays)
    rgb_file = arrays["nyu/rgb_upright"].transpose(1, 0, 2)
    return _loaded(nyu_images(rgb_file, arrays["nyu/hha"])[match["what"]], arrays)


def _mfnet(arrays: Arrays, match: re.Match[str]) -> NDArray[Any]:
    if match["what"] == "label":
        image: NDArray[Any] = MFNET.of(arrays["mfnet/label_raw"])
    else:
        image = mfnet_images(arrays["mfnet/rgba"])[match["what"]]
    return _loaded(mirrored(image) if match["name"] == "flip" else image, arrays)


def _mcubes_uint8(arrays: Arrays, match: re.Match[str]) -> NDArray[Any]:
    files = ("rgb16", "nir16", "aolp_sin", "aolp_cos", "dolp")
    return mcubes_images(*(arrays[f"mcubes/{file}"] for file in files))[match["what"]]


def _mcubes(arrays: Arrays, match: re.Match[str]) -> NDArray[Any]:
    if match["what"] == "label":
        return _loaded(MCUBES.of(arrays["mcubes/label_raw"]), arrays)
    return _loaded(_mcubes_uint8(arrays, match), arrays)


def _crop_stored(arrays: Arrays, match: re.Match[str]) -> Labels:
    classes = {"nyu": NYU13, "mfnet": MFNET, "mcubes": MCUBES}[match["set"]]
    labels = classes.of(arrays[f"{match['set']}/label_raw"])
    boxes = five_crop_boxes(labels.shape[0], labels.shape[1], _CROP_RATIO)
    top, left, height, width = boxes[int(match["crop"])]
    return stored_crop(labels[top : top + height, left : left + width])


def _crop_loaded(arrays: Arrays, match: re.Match[str]) -> NDArray[Any]:
    side = int(match["res"])
    stored = resize_published(_crop_stored(arrays, match), (side, side))
    return nyu_crop_labels(stored, NYU13) if match["set"] == "nyu" else loaded_crop(stored)


def _whole_images(arrays: Arrays, match: re.Match[str]) -> NDArray[Any]:
    """The number of files, cut to whole images of five crops: it must be the number itself."""
    files = arrays[match[0]]
    return files // 5 * 5


_CROP = r"crop/(?P<set>nyu|mfnet|mcubes)/"
_DATASET_RULES: dict[str, Rule] = {
    r"nyu/out(?P<classes>13|4)/(?P<what>rgb|depth|label)": _nyu,
    r"mfnet/(?P<name>plain|flip)/(?P<what>rgb|thermal|label)": _mfnet,
    r"mcubes/u8/(?P<what>rgb|nir|aolp|dolp)": _mcubes_uint8,
    r"mcubes/out/(?P<what>rgb|nir|aolp|dolp|label)": _mcubes,
    _CROP + "(?P<crop>[0-4])/stored_label_png": _crop_stored,
    _CROP + r"(?P<crop>[0-4])/loader_label_res(?P<res>\d+)": _crop_loaded,
    _CROP + "n_files": _whole_images,
}
