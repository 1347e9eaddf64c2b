from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unim2_core.data.labels import Classes, loaded_crop, stored_crop
from unim2_core.data.mcubes import MCUBES, seen
from unim2_core.data.mfnet import MFNET, mirrored, source_of
from unim2_core.data.nyu import NYU4, NYU13, nyu_crop_labels, nyu_images

ALL = {"nyu13": NYU13, "nyu4": NYU4, "mfnet": MFNET, "mcubes": MCUBES}


@pytest.mark.parametrize("name", sorted(ALL))
def test_tables_equal_the_published_ones(parity_dir: Path, name: str) -> None:
    tables = json.loads((parity_dir.parent / "class_tables.json").read_text(encoding="utf-8"))
    classes = ALL[name]
    assert list(classes.names) == tables[name]
    assert [list(color) for color in classes.colors] == tables["palettes"][name]
    if name.startswith("nyu"):
        assert list(classes.raw_ids[1:]) == tables[f"map40_to_{name[3:]}"]


@pytest.mark.parametrize("classes", ALL.values())
def test_every_class_is_reached_and_the_rest_ignored(classes: Classes) -> None:
    mapped = classes.of(np.arange(256, dtype=np.uint8))
    known = set(mapped[: len(classes.raw_ids)].tolist()) - {255}
    # No raw class of NYU falls into "void", the fourth of the four.
    assert known == set(range(len(classes.names))) - ({3} if classes is NYU4 else set())
    assert (mapped[len(classes.raw_ids) :] == 255).all()
    assert len(classes.colors) == len(classes.names)


def test_crop_store_round_trip_and_the_second_mapping_of_nyu() -> None:
    labels = np.array([0, 12, 255], np.uint8)
    assert stored_crop(labels).tolist() == [1, 13, 0]
    assert loaded_crop(stored_crop(labels)).tolist() == labels.tolist()
    # A bed (raw 4, class 0) is stored as 1, which is a wall (class 11) among the raw ids.
    assert nyu_crop_labels(stored_crop(NYU13.of(np.array([4], np.uint8))), NYU13).tolist() == [11]


def test_file_rules() -> None:
    assert source_of("00001D_flip") == ("00001D", True)
    assert source_of("00001D") == ("00001D", False)
    image = np.arange(6).reshape(2, 3)
    assert mirrored(image).tolist() == [[2, 1, 0], [5, 4, 3]]
    assert seen(np.zeros((4, 200, 3))).shape == (4, 8, 3)
    upright = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    files = nyu_images(upright.transpose(1, 0, 2), np.zeros((2, 4, 4), np.uint8))
    assert np.array_equal(files["rgb"], upright)
    assert files["depth"].shape == (2, 4, 3)
