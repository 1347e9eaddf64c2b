from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unim2_core.data.world import optics
from unim2_core.data.world.optics import REFRACTIVE_INDEX as INDEX
from unim2_core.data.world.optics import Fresnel


def at(degrees: float) -> Fresnel:
    return Fresnel.at(np.array([[np.cos(np.deg2rad(degrees))]], np.float32))


def test_at_right_angles_both_polarizations_reflect_alike():
    expected = ((INDEX - 1) / (INDEX + 1)) ** 2
    assert at(0).s.item() == pytest.approx(expected, rel=1e-4)
    assert at(0).p.item() == pytest.approx(expected, rel=1e-4)


def test_at_brewsters_angle_only_one_polarization_reflects():
    brewster = np.rad2deg(np.arctan(INDEX))
    assert at(brewster).p.item() < 1e-6
    assert at(brewster).s.item() > 0.1


def test_at_grazing_incidence_everything_reflects():
    assert at(90).mean.item() == pytest.approx(1, abs=1e-4)


@settings(deadline=None, max_examples=50)
@given(st.floats(0, 89.9))
def test_light_from_within_a_body_is_polarized_as_transmission_says(degrees):
    """The body's light is refracted out: its polarization is that of what is let through."""
    fresnel = at(degrees)
    # Transmittances from inside at the conjugate angle equal those from outside.
    through_s, through_p = 1 - fresnel.s, 1 - fresnel.p
    expected = ((through_p - through_s) / (through_p + through_s)).item()
    cosine = np.array([[np.cos(np.deg2rad(degrees))]], np.float32)
    assert optics._body_polarization(cosine).item() == pytest.approx(expected, abs=2e-3)
