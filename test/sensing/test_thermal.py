from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unim2_core.sensing.rig import ThermalDecode
from unim2_core.sensing.thermal import RunningRange, thermal_values

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("options", "count", "expected", "unit"),
    [
        ({"conversion": "centikelvin"}, 29_315, 293.15, "K"),
        ({"conversion": "decikelvin"}, 2_932, 293.2, "K"),
        ({"conversion": "scale_offset", "scale": 0.04, "offset": 0.0}, 7_329, 293.16, "K"),
        ({"conversion": "scale_offset", "scale": 1.0, "offset": 273.15}, 20, 293.15, "K"),
        ({"conversion": "relative"}, 4_711, 4_711.0, "counts"),
    ],
)
def test_counts(options: dict[str, Any], count: int, expected: float, unit: str) -> None:
    values, found = thermal_values(np.full((2, 3), count, np.uint16), ThermalDecode(**options))
    assert found == unit
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_float_counts_that_are_not_finite() -> None:
    counts = np.array([[np.nan, np.inf, -np.inf, 20.0]], np.float32)
    decode = ThermalDecode(conversion="scale_offset", scale=1.0, offset=273.15)
    values, _ = thermal_values(counts, decode)
    np.testing.assert_allclose(values, [[0.0, 0.0, 0.0, 293.15]], rtol=1e-6)


def test_counts_are_not_changed_in_place() -> None:
    counts = np.full((2, 2), 100.0, np.float32)
    thermal_values(counts, ThermalDecode(conversion="decikelvin"))
    assert (counts == 100.0).all()


def ramp(low: float, high: float) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.linspace(low, high, 60 * 80, dtype=np.float32).reshape(60, 80)


def test_first_image_sets_the_range_and_outliers_do_not() -> None:
    image = ramp(1000, 2000)
    image[0, 0], image[0, 1] = 60_000, 0  # a dead and a hot pixel
    running = RunningRange()
    running.update(image, 0)
    assert running.bounds == pytest.approx((1010, 1990), abs=2)
    unit = running.normalize(image)
    assert unit.min() == 0.0
    assert unit.max() == 1.0
    assert running.normalize(np.float32([[1500]]))[0, 0] == pytest.approx(0.5, abs=1e-3)


def test_half_of_the_way_in_one_half_life_at_any_rate() -> None:
    def high_after_five_seconds(rate_hz: int) -> float:
        running = RunningRange(half_life_s=5.0)
        running.update(ramp(0, 1000), 7 * SECOND)
        for i in range(1, 5 * rate_hz + 1):
            running.update(ramp(0, 2000), 7 * SECOND + i * SECOND // rate_hz)
        assert running.bounds is not None
        return running.bounds[1]

    assert high_after_five_seconds(1) == pytest.approx(990 + 990 / 2, abs=1)
    assert high_after_five_seconds(20) == pytest.approx(high_after_five_seconds(1), abs=1e-3)


def test_same_stamp_leaves_the_range() -> None:
    running = RunningRange()
    running.update(ramp(0, 1000), SECOND)
    before = running.bounds
    running.update(ramp(0, 9000), SECOND)
    assert running.bounds == before


def test_clock_back_and_reset_start_again() -> None:
    running, fresh = RunningRange(), RunningRange()
    fresh.update(ramp(500, 900), 0)
    running.update(ramp(0, 9000), 100 * SECOND)
    running.update(ramp(500, 900), 2 * SECOND)
    assert running.bounds == fresh.bounds
    running.reset()
    assert running.bounds is None
    assert (running.normalize(ramp(0, 1)) == 0.5).all()


def test_no_memory_with_half_life_zero() -> None:
    running, fresh = RunningRange(half_life_s=0.0), RunningRange()
    running.update(ramp(0, 9000), 0)
    running.update(ramp(500, 900), 0)
    fresh.update(ramp(500, 900), 0)
    assert running.bounds == fresh.bounds


def test_constant_image_is_grey_and_noise_of_a_count_is_not_stretched() -> None:
    running = RunningRange()
    constant = np.full((60, 80), 3000, np.float32)
    running.update(constant, 0)
    assert (running.normalize(constant) == 0.5).all()
    assert np.abs(running.normalize(constant + 1) - 0.5).max() < 0.2


def test_invalid_pixels_do_not_count() -> None:
    image = ramp(1000, 2000)
    valid = np.ones(image.shape, np.bool_)
    valid[:30] = False
    image[:30] = 0
    running = RunningRange()
    running.update(image, 0, np.zeros_like(valid))
    assert running.bounds is None
    running.update(image, 0, valid)
    assert running.bounds is not None
    assert running.bounds[0] == pytest.approx(1505, abs=3)
