from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from unim2_core.learning.features import FeatureStore, Standardization

pytest.importorskip("torch")
from unim2_core.learning.domains import fit_gain, sensor_figures, shift, standard_errors

SIDE, DIM, COUNT = 5, 4, 24
SAME = Standardization.identity(2, DIM)


def scenes(seed: int, offset: float = 0.0) -> FeatureStore:
    """Two sensors that see the same things, each in its own way, with noise."""
    draw = np.random.default_rng(seed)
    things = draw.normal(size=(COUNT, SIDE, SIDE, DIM))
    second = things @ draw.normal(size=(DIM, DIM)) + draw.normal(size=things.shape)
    tokens = {"rgb": things + offset, "thermal": second + offset}
    return FeatureStore(
        {name: part.astype(np.float16) for name, part in tokens.items()},
        {name: np.ones((COUNT, SIDE, SIDE), np.bool_) for name in tokens},
        np.arange(COUNT),
        np.zeros(COUNT, np.int64),
        np.arange(COUNT) * 10**9,
    )


def with_thermal(store: FeatureStore, tokens: np.ndarray) -> FeatureStore:
    return replace(store, tokens={"rgb": store.tokens["rgb"], "thermal": tokens})


def test_a_sensor_fits_its_own_moment_and_that_of_another_drive_does_not() -> None:
    old, new = scenes(1), scenes(2)
    wrong = with_thermal(new, scenes(3).tokens["thermal"])
    late = with_thermal(new, np.roll(new.tokens["thermal"], 5, axis=0))
    assert standard_errors(fit_gain(new, "rgb", "thermal", SAME)) > 10
    assert sensor_figures(old, new, SAME)["together/thermal"] > 10
    for store in (wrong, late):
        assert sensor_figures(old, store, SAME)["together/thermal"] < 2


def test_what_the_old_drives_do_not_show_is_not_asked_of_new_ones() -> None:
    old = with_thermal(scenes(1), scenes(4).tokens["thermal"])
    assert "together/thermal" not in sensor_figures(old, scenes(2), SAME)


def test_a_sensor_that_says_one_thing_or_nothing_is_seen() -> None:
    old, new = scenes(1), scenes(2)
    constant = with_thermal(new, np.full_like(new.tokens["thermal"], 3))
    assert sensor_figures(old, constant, SAME)["spread/thermal"] == pytest.approx(0, abs=1e-6)
    blind = replace(
        new, presence={**new.presence, "thermal": np.zeros_like(new.presence["thermal"])}
    )
    figures = sensor_figures(old, blind, SAME)
    assert figures["presence/thermal"] == 0
    assert figures["presence/rgb"] == 1


def test_pictures_unlike_the_past_count_as_shifted() -> None:
    past = scenes(1, offset=2)
    rehearsed, held = past.take(range(0, COUNT, 2)), past.take(range(1, COUNT, 2))
    found = shift(rehearsed, held, rehearsed, SAME)
    assert found.score == 0 and not found.shifted
    far = shift(rehearsed, held, scenes(2, offset=-2), SAME)
    assert far.score == 1 and far.shifted
    assert "100 %" in far.sentence
