"""Mirrored pictures are what the encoders would make of a mirrored world."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_samples import PATCH, Pictures

from unim2_core.data.pictures import Picture
from unim2_core.data.views import Mirrored, mirrored_map
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.modalities import Encoder
from unim2_core.sensing.warping import GridMap, gather

ENCODINGS = {name: Encoder(name).describe() for name in ("rgb", "thermal")}


def pictures() -> Pictures:
    return Pictures(encodings=ENCODINGS)


def test_a_mirror_of_a_mirror_shows_the_picture() -> None:
    source = pictures()
    twice = Mirrored(Mirrored(source, range(10)), range(10))
    maps = 0
    for before, after in zip(source, twice, strict=True):
        for name, image in before.images.items():
            np.testing.assert_array_equal(after.images[name], image)
        for name, grid_map in before.maps.items():
            maps += 1
            np.testing.assert_array_equal(after.maps[name].coordinates, grid_map.coordinates)
            np.testing.assert_array_equal(after.maps[name].valid, grid_map.valid)
            assert after.maps[name].source == grid_map.source
    assert maps > 2


@given(
    reference=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    sensor=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=60)
def test_registering_mirrored_tokens_mirrors_what_is_registered(
    reference: tuple[int, int], sensor: tuple[int, int], seed: int
) -> None:
    draw = np.random.default_rng(seed)
    where = draw.uniform(-1.5, 6.5, (*reference, 2)).astype(np.float32)
    grid_map = GridMap.within(where, draw.random(reference) < 0.8, sensor)
    tokens = draw.standard_normal((*sensor, 3)).astype(np.float32)
    measured = draw.random(sensor) < 0.8
    expected, seen = gather(tokens, grid_map, measured)
    turned = np.ascontiguousarray(tokens[:, ::-1]), np.ascontiguousarray(measured[:, ::-1])
    found, there = gather(turned[0], mirrored_map(grid_map), turned[1])
    certain = np.abs(where[..., 0] - np.rint(where[..., 0]))[:, ::-1] > 1e-4
    np.testing.assert_array_equal(there[certain], seen[:, ::-1][certain])
    np.testing.assert_allclose(found[certain], expected[:, ::-1][certain], atol=1e-4)


@dataclass
class OneImage(Pictures):
    """A source of one picture, of one modality."""

    image: np.ndarray = field(default_factory=lambda: np.zeros((16, 24, 3), np.uint8))

    def picture(self, number: int) -> Picture:
        return Picture("one", {self.modalities[0]: self.image})


@pytest.mark.parametrize("preset", ["robot", "paper"])
def test_a_mirror_turns_the_angle_of_polarization(preset: str) -> None:
    draw = np.random.default_rng(0)
    size = (2 * PATCH, 3 * PATCH)
    stokes = draw.random((*size, 3)).astype(np.float32)  # intensity, degree, angle
    stokes[..., 2] *= np.pi
    seen = stokes[:, ::-1].copy()
    seen[..., 2] = np.pi - seen[..., 2]
    for name, turned in (("aolp", True), ("dolp", False)):
        encoder = Encoder(name, preset)
        images = [
            encoder.encode(Frame("polarization", 0, data), size)[0] for data in (stokes, seen)
        ]
        source = OneImage(
            modalities=(name,), encodings={name: encoder.describe()}, image=images[0]
        )
        (mirrored,) = Mirrored(source, [0])
        found = mirrored.images[name].astype(int)
        assert np.abs(found - images[1]).max() <= 1  # of 255: rounding
        plain = images[0][:, ::-1].astype(int)
        assert (np.abs(plain - images[1]).max() > 50) == turned
