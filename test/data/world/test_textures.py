from __future__ import annotations

import numpy as np
import pytest

from unim2_core.data.world import textures

U, V = np.meshgrid(
    np.linspace(0, 1, 90, dtype=np.float32), np.linspace(0, 1, 70, dtype=np.float32)
)


@pytest.mark.parametrize("name", textures.TILES)
def test_tiles_have_no_bias_and_use_their_range(name):
    shade, mix = textures.sample(textures.TILE_IDS[name], U, V)
    assert abs(shade.mean()) < 0.15
    assert shade.std() > 0.05
    assert mix.min() >= 0 and mix.max() <= 1 and mix.std() > 0.01


@pytest.mark.parametrize("name", textures.TILES)
def test_tiles_are_periodic(name):
    tile = textures.TILE_IDS[name]
    here, there = textures.sample(tile, U, V), textures.sample(tile, U + 3, V - 2)
    np.testing.assert_allclose(here[0], there[0], atol=0.08)  # OpenCV interpolates in 1/32 texels


def test_there_is_no_seam():
    tile = textures.TILE_IDS["plaster"]
    edge = np.linspace(-0.02, 0.02, 41, dtype=np.float32)[None]
    shade, _ = textures.sample(tile, edge, np.full_like(edge, 0.3))
    inner, _ = textures.sample(tile, edge + np.float32(0.4), np.full_like(edge, 0.3))
    assert np.abs(np.diff(shade)).max() < 3 * np.abs(np.diff(inner)).max()


def test_from_far_away_a_texture_fades_to_its_mean():
    tile = textures.TILE_IDS["asphalt"]
    near, far = (
        textures.sample(tile, U, V, np.full_like(U, footprint))[0].std()
        for footprint in (1 / 512, 1 / 12)
    )
    assert far < 0.5 * near


def test_long_lists_of_points_are_folded():
    tile = textures.TILE_IDS["bricks"]
    count = 70_001  # more than the 32767 that OpenCV takes on a side
    u = np.linspace(0, 1, count, dtype=np.float32)
    shade, mix = textures.sample(tile, u, u)
    assert shade.shape == mix.shape == (count,)
    np.testing.assert_array_equal(
        shade[:50], textures.sample(tile, u[None, :50], u[None, :50])[0][0]
    )
    assert textures.sample(tile, u[:0], u[:0])[0].shape == (0,)
