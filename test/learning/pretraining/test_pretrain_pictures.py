from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pytest
from picture_samples import PATCH, Pictures, picture

from unim2_core.errors import DataError
from unim2_core.learning.pretraining.pictures import open_pixels, pixel_bytes

SIZE = (4 * PATCH, 6 * PATCH)


def test_pictures_are_kept_as_they_are_and_decoded_once(tmp_path: Path) -> None:
    source = Pictures(count=7, size=SIZE)
    store = open_pixels(source, PATCH, tmp_path)
    assert len(store) == 7  # fewer than the limit
    assert source.decoded == 7
    for row in range(7):
        whole = picture(row, SIZE)
        assert store.there[row].tolist() == [True, "thermal" in whole.images]
        for index, name in enumerate(source.modalities):
            if name in whole.images:
                np.testing.assert_array_equal(store.images[row, index], whole.images[name])
    again = open_pixels(source, PATCH, tmp_path)
    assert source.decoded == 7
    np.testing.assert_array_equal(again.images, store.images)
    open_pixels(Pictures(count=7, size=SIZE, seed="two"), PATCH, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert store.images.nbytes + store.places.nbytes <= pixel_bytes(source, PATCH)


def test_places_are_where_the_map_says_and_nowhere_without_a_measurement(tmp_path: Path) -> None:
    store = open_pixels(Pictures(size=SIZE), PATCH, tmp_path)
    aligned = store.places[0, 1]
    np.testing.assert_allclose(aligned[1, 2], [2.5 / 6, 1.5 / 4], atol=1e-6)
    shifted = store.places[1, 1]  # its map leads one column to the right
    np.testing.assert_allclose(shifted[1, 2], [3.5 / 6, 1.5 / 4], atol=1e-6)
    assert np.isnan(shifted[:, -1]).all()
    whole = picture(1, SIZE)
    hole = np.argwhere(~whole.valid["thermal"])
    assert len(hole)
    assert np.isfinite(store.places[1, 1, 0, 0]).all()  # looks at the column after the hole
    assert np.isnan(store.places[2, 1]).all()  # no thermal image


def test_a_full_disk_is_said_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    source = Pictures(size=SIZE)
    with pytest.raises(DataError, match="pictures cannot be stored") as error:
        open_pixels(source, PATCH, tmp_path)
    assert "--cache" in str(error.value)
    assert source.decoded == 0
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_copy_leaves_nothing(tmp_path: Path) -> None:
    class Broken(Pictures):
        def picture(self, number: int):
            if number == 3:
                raise KeyboardInterrupt
            return super().picture(number)

    with pytest.raises(KeyboardInterrupt):
        open_pixels(Broken(size=SIZE), PATCH, tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="nothing to look at"):
        open_pixels(Pictures(count=0, size=SIZE), PATCH, tmp_path)
    assert list(tmp_path.iterdir()) == []
