"""The z-buffer against casting a ray through every pixel, one primitive after the other."""

from __future__ import annotations

import numpy as np
import pytest

from unim2_core.data.world import ellipsoids
from unim2_core.data.world.cameras import Camera, View
from unim2_core.data.world.rasterizer import rasterize
from unim2_core.data.world.solids import Sculptor, Solid
from unim2_core.data.world.street import rotation_rpy

AHEAD = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def view_of(width=90, height=70, rpy=(0.0, 0.0, 0.0), position=(0.0, 0.0, 1.5)):
    rotation = rotation_rpy(*rpy) @ AHEAD
    camera = Camera.of_view(width, height, 75)
    return View(camera, rotation.astype(np.float32), np.array(position, np.float32))


def cast_rays(solid: Solid, view: View):
    """Depth and primitive of every pixel, slowly: (H, W) each."""
    camera = view.camera
    x, y = np.meshgrid(camera.x.astype(float), camera.y.astype(float))
    rays = np.stack([x, y, np.ones_like(x)], -1) @ view.rotation.astype(float).T
    best, row = np.full(x.shape, np.inf), np.zeros(x.shape, int)
    position = view.position.astype(float)
    for number, corners in enumerate(solid.corners.astype(float)):
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[1])
        if (position - corners[0]) @ normal <= 0 and not solid.two_sided[number]:
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = ((corners[0] - position) @ normal) / (rays @ normal)
            point = position + rays * depth[..., None]
            sides = [
                np.cross(b - a, point - a) @ normal
                for a, b in zip(corners, np.roll(corners, -1, axis=0), strict=True)
                if np.any(a != b)
            ]
            hit = np.all(np.array(sides) >= 0, axis=0) & (depth > 0.25) & (depth < best)
        best[hit], row[hit] = depth[hit], number + 1
    for number, (centre, shape) in enumerate(zip(solid.centres, solid.shapes, strict=True)):
        d = rays @ shape.astype(float).T
        o = shape.astype(float) @ (position - centre)
        a, b, c = (d * d).sum(-1), d @ o, o @ o - 1
        root = b * b - a * c
        depth = (-b - np.sqrt(np.maximum(root, 0))) / a
        hit = (root > 0) & (depth > 0) & (depth < best)
        best[hit], row[hit] = depth[hit], solid.polygons + number + 1
    return best, row


def scene_of(rng: np.random.Generator) -> Solid:
    """Boxes and balls in front of the camera, partly behind each other, and the ground."""
    s = Sculptor()
    s.quad((-50, -50, 0), (150, 0, 0), (0, 100, 0), "lawn")
    for _ in range(6):
        x, y = rng.uniform(3, 14), rng.uniform(-6, 6)
        w, d, h = rng.uniform(0.3, 2.5, 3)
        s.box((x, y, 0), (x + w, y + d, h), "paint")
        s.ellipsoid((x + 1, -y, 1.2), (0.4 + w / 3, 0.3, 0.3 + h / 2), "cloth", pitch=d)
    return s.solid()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("small_area", [0, 900, 10**9])
def test_agrees_with_ray_casting(seed, small_area, monkeypatch):
    # Both ways of drawing ellipsoids, and the mixture.
    monkeypatch.setattr(ellipsoids, "_SMALL_AREA", small_area)
    rng = np.random.default_rng(seed)
    solid = scene_of(rng).moved(rng.uniform(-0.3, 0.3), (1.0, 0.5, 0.0))
    view = view_of(rpy=rng.uniform(-0.12, 0.12, 3))
    seen = rasterize(solid, view)
    depth, row = cast_rays(solid, view)
    same = seen.primitive == row
    # OpenCV also fills the pixels that an outline touches, hence differences along edges.
    assert same.mean() > 0.93
    known = same & (row > 0)
    assert known.any()
    np.testing.assert_allclose(1 / seen.inverse_depth[known], depth[known], rtol=2e-3)
    assert np.all(seen.inverse_depth[seen.primitive == 0] == 0)
    inner = np.zeros_like(same)
    for axis, step in ((0, 1), (0, -1), (1, 1), (1, -1)):
        inner |= np.roll(row, step, axis) != row
    assert same[~inner][:].mean() > 0.995


def test_what_faces_away_is_not_drawn():
    s = Sculptor()
    s.quad((5, 1, 0), (0, -2, 0), (0, 0, 3), "paint")  # faces the camera, to -x
    s.quad((3, -1, 0), (0, 2, 0), (0, 0, 3), "door")  # nearer, faces away
    seen = rasterize(s.solid(), view_of())
    assert set(np.unique(seen.primitive)) == {0, 1}


def test_ground_is_clipped_in_front_of_the_camera():
    s = Sculptor()
    s.quad((-50, -50, 0), (150, 0, 0), (0, 100, 0), "lawn")
    seen = rasterize(s.solid(), view_of())
    below = np.arange(seen.primitive.shape[0]) > 36
    assert np.all(seen.primitive[below] == 1)
    assert np.all(seen.primitive[:34] == 0)


def test_bars_let_the_background_through():
    s = Sculptor()
    s.quad((4, 3, 0), (0, -6, 0), (0, 0, 3), "metal", gaps=(0.5, 0.3))
    primitive = rasterize(s.solid(), view_of(200, 80)).primitive[40]
    assert 0.25 < (primitive == 1)[60:140].mean() < 0.42
    assert np.count_nonzero(np.diff(primitive[60:140])) >= 6


def test_bars_are_solid_where_they_cannot_be_told_apart():
    s = Sculptor()
    s.quad((60, 30, -30), (0, -60, 0), (0, 0, 60), "metal", gaps=(0.5, 0.3))
    assert np.all(rasterize(s.solid(), view_of(64, 48)).primitive[20:28, 20:40] == 1)


def test_a_leafy_crown_has_a_ragged_outline_and_holes():
    def crown(ragged):
        s = Sculptor()
        s.ellipsoid((8, 0, 1.5), (2, 2, 2), "foliage", ragged=ragged, pattern=5)
        return rasterize(s.solid(), view_of(200, 160)).primitive > 0

    smooth, leafy = crown(0.0), crown(1.0)
    assert np.all(smooth[leafy])
    assert 0.5 < leafy.sum() / smooth.sum() < 0.95


def test_bands_look_the_same_as_the_whole():
    solid = scene_of(np.random.default_rng(9))
    view = view_of()
    rows = slice(20, 55)
    whole = rasterize(solid, view).primitive[rows]
    band = rasterize(solid, view.band(rows)).primitive
    assert (whole == band).mean() > 0.99
