from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from unim2_core.data.labels import Classes
from unim2_core.errors import DataError
from unim2_core.evaluation.linear_probe import cell_labels, linear_probe, told_by_reference
from unim2_core.learning.features import FeatureStore

CLASSES = Classes(("a", "b", "c"), ((0, 0, 0), (9, 9, 9), (50, 50, 50)), (0, 1, 2))
GRID, PATCH = (6, 8), 4


def _store(seed: int, *, noise: float = 0.1, labels: bool = True, linked: float = 1.0):
    """Two modalities: the class is in the first's channels, and the second follows it."""
    draw = np.random.default_rng(seed)
    classes = draw.integers(0, 3, (5, *GRID))
    rgb = draw.normal(0, noise, (5, *GRID, 60))
    rgb[..., :3] += np.eye(3)[classes]
    nir = draw.normal(0, 0.5, (5, *GRID, 60))
    nir[..., :48] += linked * 10 * rgb[..., :48]
    there = np.ones((5, *GRID), np.bool_)
    zeros = np.zeros(5, np.int64)
    image = classes.repeat(PATCH, 1).repeat(PATCH, 2).astype(np.uint8)
    return FeatureStore(
        {"rgb": rgb.astype(np.float16), "nir": nir.astype(np.float16)},
        {"rgb": there, "nir": there},
        *(zeros, zeros, zeros),
        labels=image if labels else None,
        classes=CLASSES if labels else None,
    )


def test_what_is_linear_is_found_and_what_is_not_there_is_not() -> None:
    train, test = _store(0), _store(1)
    # Scores are interpolated between cells, so borders of random cells are never all right.
    found = linear_probe(train, test, ("rgb",))
    assert found.accuracy > 0.8
    chance = linear_probe(train, test, ("rgb",), channels=slice(10, None))
    assert chance.accuracy < 0.45
    assert linear_probe(train, test, ("rgb", "nir")).accuracy > 0.8


def test_without_labels_there_is_no_probe() -> None:
    with pytest.raises(DataError, match="linear layer"):
        linear_probe(_store(0, labels=False), _store(1), ("rgb",))


def test_labels_of_cells_are_those_of_most_pixels() -> None:
    labels = np.full((1, 4, 8), 255, np.uint8)
    labels[0, :2, :2] = 1
    labels[0, 2:, :4] = 2
    labels[0, 2:, 4:6] = 0
    labels[0, 3, 6:] = 0
    np.testing.assert_array_equal(
        cell_labels(labels, (2, 4), 3)[0], [[1, 255, 255, 255], [2, 2, 0, 255]]
    )


def test_other_sensors_are_told_as_far_as_they_follow() -> None:
    told = told_by_reference(_store(0, noise=1.0), _store(1, noise=1.0))
    assert told > 0.95
    part = told_by_reference(_store(0, noise=1.0), _store(1, noise=1.0), channels=slice(0, 24))
    assert 0.3 < part < 0.7
    free = told_by_reference(_store(0, linked=0.0), _store(1, linked=0.0))
    assert -1 <= free < 0.1
    assert np.isnan(told_by_reference(_store(0).only(("rgb",)), _store(1).only(("rgb",))))
