from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from unim2_core.learning.pretraining import views as module
from unim2_core.learning.pretraining.objective import sampled
from unim2_core.learning.pretraining.pictures import PixelStore
from unim2_core.learning.pretraining.views import CROP, POINTS, ViewDraw, Views, Window
from unim2_core.sensing.modalities import MODALITIES

SIZE = (160, 240)
GRID = (20, 30)
SHIFT = 24
"""Pixels by which the second sensor sees everything further left."""


def _gradient(shift: int) -> np.ndarray:
    """Red says where a pixel is from left to right, green from top to bottom."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    image = np.zeros((*SIZE, 3), np.uint8)
    image[..., 0] = np.clip(columns + shift, 0, 255)
    image[..., 1] = rows
    return image


def _store(there: tuple[bool, bool] = (True, True), names: tuple[str, str] = ("rgb", "nir")):
    images = np.stack([_gradient(0), _gradient(SHIFT)])[None].repeat(3, 0)
    rows, columns = np.mgrid[: GRID[0], : GRID[1]]
    own = np.stack([(columns + 0.5) / GRID[1], (rows + 0.5) / GRID[0]], -1).astype(np.float32)
    other = own - np.array([SHIFT / SIZE[1], 0], np.float32)
    other[other[..., 0] < 0] = np.nan
    places = np.stack([own, other])[None].repeat(3, 0)
    return PixelStore(names, images, np.array([there] * 3), places)


@pytest.fixture(autouse=True)
def _as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "lit", lambda image, draw: image)
    monkeypatch.setattr(module, "disturbed", lambda image, draw: image)


def _pixels(crops: torch.Tensor) -> torch.Tensor:
    normal = MODALITIES["rgb"]
    mean, std = (torch.tensor(v)[:, None, None] for v in (normal.mean, normal.std))
    return (crops * std + mean) * 255


@pytest.mark.parametrize("step", range(4))
def test_a_place_is_the_same_in_both_crops_whatever_the_sensor(step: int) -> None:
    views = ViewDraw(_store(), 16, 8, seed=1)[step]
    seen = sampled(_pixels(views.seen).permute(0, 2, 3, 1), views.seen_at)
    taught = sampled(_pixels(views.taught).permute(0, 2, 3, 1), views.taught_at)
    there = views.weight.bool()
    inner = there & (seen[..., 0] < 250) & (taught[..., 0] < 250)  # the gradient ends at 255
    assert inner.float().mean() > 0.4
    # Three pixels of the picture: a crop is resized, and its places are those of cells.
    assert (seen - taught)[inner][:, :2].abs().max() < 3
    assert set(views.taught_modality.tolist()) == {0, 1}


def test_a_step_is_drawn_by_its_number_alone() -> None:
    draw = ViewDraw(_store(), 4, 8, seed=1)
    draw[0]
    one, again, other = draw[5], ViewDraw(_store(), 4, 8, seed=1)[5], draw[6]
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one.seen, other.seen)
    assert not torch.equal(one.seen, ViewDraw(_store(), 4, 8, seed=2)[5].seen)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_drawn_ahead_is_the_same_whoever_draws_it(workers):
    draw = ViewDraw(_store(), 4, 8, seed=1)
    found = list(draw.ahead(3, 8, workers))
    assert len(found) == 5
    for step, views in zip(range(3, 8), found, strict=True):
        assert isinstance(views, Views)
        assert all(torch.equal(a, b) for a, b in zip(views, draw[step], strict=True))


def test_shapes_and_ranges() -> None:
    views = ViewDraw(_store(), 5, 8, seed=0)[0]
    assert views.seen.shape == views.clean.shape == views.taught.shape == (5, 3, CROP, CROP)
    assert views.seen_at.shape == views.taught_at.shape == (5, POINTS, 2)
    assert (views.masked.sum((1, 2)) == 98).all()  # half of 14 x 14
    assert views.seen_at.abs().max() <= 1
    assert (views.weight.sum(1) > 0).all()
    assert all(part.isfinite().all() for part in views[:5])


def test_a_missing_sensor_is_never_looked_at() -> None:
    views = ViewDraw(_store(there=(True, False)), 16, 8, seed=0)[0]
    assert (views.taught_modality == 0).all()


def test_sensors_that_see_nothing_together_are_compared_with_themselves() -> None:
    store = _store()
    store.places[:, 1] = np.nan
    views = ViewDraw(store, 16, 8, seed=0)[0]
    assert set(views.taught_modality.tolist()) == {0, 1}
    assert (views.weight.sum(1) > 10).all()


def test_what_turns_with_the_image_is_never_mirrored() -> None:
    store = _store(names=("aolp", "nir"), there=(True, False))
    for step in range(4):
        crops = _pixels(ViewDraw(store, 8, 8, seed=0)[step].seen)[:, 0]
        assert (crops[:, 50, 100] >= crops[:, 50, 10]).all()
    mirrored = [
        _pixels(ViewDraw(_store(there=(True, False)), 8, 8, seed=0)[step].seen)[:, 0]
        for step in range(4)
    ]
    assert any((crops[:, 50, 100] < crops[:, 50, 10]).any() for crops in mirrored)


def test_a_window_stays_in_the_image() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        places = draw.uniform((0, 0), (240, 160), (30, 2)).astype(np.float32)
        window = Window.around(places, SIZE, draw.uniform(0.5, 2), draw)
        assert window.left >= 0
        assert window.top >= 0
        assert window.left + window.side <= SIZE[1]
        assert window.top + window.side <= SIZE[0]
        assert window.cut(_gradient(0)).shape == (CROP, CROP, 3)
