from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unim2_core.data.world.materials import CLASSES, MATERIALS, PALETTE, TABLE
from unim2_core.data.world.people import Pedestrian
from unim2_core.data.world.solids import Sculptor, Solid
from unim2_core.data.world.street import BLOCK_M


def one_of_each() -> Solid:
    s = Sculptor()
    s.ellipsoid((1, 2, 3), (0.5, 1.0, 2.0), "cloth", pitch=0.4)
    s.quad((0, 0, 0), (2, 0, 0), (0, 0, 3), "brick")
    return s.solid()


@settings(deadline=None, max_examples=30)
@given(yaw=st.floats(-4, 4), x=st.floats(-50, 50), y=st.floats(-50, 50))
def test_moving_keeps_shape_and_texture(yaw, x, y):
    solid = one_of_each()
    moved = solid.moved(yaw, (x, y, 0.0))
    # A point on the surface stays on the surface.
    point = np.linalg.solve(solid.shapes[0], np.array([0.6, 0.0, 0.8])) + solid.centres[0]
    c, s = np.cos(yaw), np.sin(yaw)
    there = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ point + (x, y, 0)
    on_surface = moved.shapes[0] @ (there - moved.centres[0])
    assert np.linalg.norm(on_surface) == pytest.approx(1, abs=1e-3)
    # Corners keep their texture coordinates.
    for before, after in ((solid, moved),):
        u = np.einsum("cj,j->c", before.corners[0] - before.coat.origin[0], before.coat.u[0])
        w = np.einsum("cj,j->c", after.corners[0] - after.coat.origin[0], after.coat.u[0])
        np.testing.assert_allclose(u, w, atol=1e-3)


def test_joined_coats_follow_their_primitives():
    first, second = one_of_each(), one_of_each().moved(0.0, (10, 0, 0))
    both = Solid.join([first, second])
    assert both.polygons == 2
    assert len(both.coat.material) == 4
    np.testing.assert_array_equal(both.coat.origin[:2, 0], [0, 10])  # polygons come first
    np.testing.assert_array_equal(both.coat.origin[2:, 0], [1, 11])


def test_walls_of_a_box_face_outwards():
    s = Sculptor()
    s.box((-1, -2, 0), (1, 2, 3), "paint")
    corners = s.solid().corners
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 1])
    outwards = corners.mean(1) - (0, 0, 1.5)
    assert np.all(np.einsum("pi,pi->p", normal, outwards) > 0)


def test_polygons_take_three_to_eight_corners():
    s = Sculptor()
    angle = np.arange(8) * np.pi / 4
    s.polygon(np.stack([np.cos(angle), np.sin(angle), 0 * angle], 1), "hub")
    s.polygon([(0, 0, 0), (1, 0, 0), (0, 1, 0)], "hub")
    assert s.solid().corners.shape == (2, 8, 3)


def test_a_stride_swings_limbs_about_their_joints():
    person = Pedestrian(np.random.default_rng(3), 290.0)
    standing, walking = person.posed(0.0, 0.5), person.posed(np.pi / 2, 0.5)
    moved = np.abs(walking.centres - standing.centres).max(1) > 1e-3
    assert moved.sum() == 8 and len(moved) == 11  # arms, legs, hands, feet; not the trunk
    volume = [np.abs(np.linalg.det(body.shapes)) for body in (standing, walking)]
    np.testing.assert_allclose(*volume, rtol=1e-4)
    left, right = walking.centres[0, 0], walking.centres[4, 0]
    assert left == pytest.approx(-right, abs=1e-5) and abs(left) > 0.1


def test_every_class_has_a_material_and_a_colour():
    assert {m.label for m in MATERIALS.values()} == set(CLASSES)
    assert PALETTE.shape == (len(CLASSES), 3)
    assert len(np.unique(PALETTE, axis=0)) == len(CLASSES) >= 12
    assert TABLE.rgb.shape == (3, len(MATERIALS))


@pytest.mark.parametrize("name", MATERIALS)
def test_textures_go_on_from_one_block_to_the_next(name):
    repeats = BLOCK_M / MATERIALS[name].period_m
    assert repeats == pytest.approx(round(repeats), abs=1e-9)
