"""How many images of a sensor are used."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import PERIOD_NS, START_NS, rgb_image, thermal_image

from unim2_core.errors import RigError
from unim2_core.sensing.bag_messages import image_message
from unim2_core.sensing.intake import TOO_MANY, Intake
from unim2_core.sensing.rate_limit import RateLimit
from unim2_core.sensing.rig import Rig

SECOND = 1_000_000_000


def _taken(rate_hz: float, limit_hz: float, jitter_ms: float, seconds: float = 20) -> list[int]:
    rng, limit = random.Random(0), RateLimit(limit_hz)
    stamps = [
        START_NS + round(index * SECOND / rate_hz + rng.uniform(-jitter_ms, jitter_ms) * 1e6)
        for index in range(round(seconds * rate_hz))
    ]
    return [stamp for stamp in stamps if limit.takes(stamp)]


@pytest.mark.parametrize("jitter_ms", [0.0, 2.0])
@pytest.mark.parametrize(("rate_hz", "limit_hz"), [(30, 10), (30, 20), (60, 7), (30, 29), (15, 5)])
def test_the_rate_is_reached_and_not_passed(rate_hz, limit_hz, jitter_ms):
    taken = _taken(rate_hz, limit_hz, jitter_ms)
    assert 0.95 * 20 * limit_hz <= len(taken) <= 20 * limit_hz + 1


@pytest.mark.parametrize("limit_hz", [0, 10, 200])
def test_what_is_slower_is_left_as_it_is(limit_hz):
    assert len(_taken(9, limit_hz, 2.0)) == 180


@settings(deadline=None)
@given(st.lists(st.integers(0, 3 * SECOND), min_size=1, max_size=60), st.floats(0.5, 100))
def test_never_more_than_the_rate_in_any_stretch(stamps, limit_hz):
    limit = RateLimit(limit_hz)
    taken = [stamp for stamp in sorted(stamps) if limit.takes(stamp)]
    for first, _ in enumerate(taken):
        for last in range(first, len(taken)):
            length_s = (taken[last] - taken[first]) / SECOND
            assert last - first + 1 <= length_s * limit_hz + 2 + 1e-6


def test_a_clock_that_goes_back_begins_anew():
    limit = RateLimit(10)
    assert limit.takes(START_NS)
    assert not limit.takes(START_NS + SECOND // 20)
    assert limit.takes(START_NS - 100 * SECOND)
    assert not limit.takes(START_NS - 100 * SECOND + SECOND // 20)


def test_what_is_over_the_rate_is_counted_and_costs_its_sensor_alone():
    limited = {"topic": "/thermal/image", "max_rate_hz": 5}  # it comes with 10 Hz
    rig = Rig.parse({"sensors": {"rgb": {"topic": "/rgb/image"}, "thermal": limited}})
    intake = Intake(rig)
    sets = []
    for index in range(20):
        stamp_ns = START_NS + index * PERIOD_NS
        for topic, image, encoding in (
            ("/thermal/image", thermal_image(index), "mono16"),
            ("/rgb/image", rgb_image(index), "rgb8"),
        ):
            sets += intake.add(topic, image_message(image, encoding, stamp_ns, ""), stamp_ns)
    sets += intake.flush()
    assert len(sets) == 20
    assert intake.counters[f"thermal/{TOO_MANY}"] == 10
    used = {one.members["thermal"].stamp_ns for one in sets if "thermal" in one.members}
    assert len(used) == 10
    intake.retune(rig.model_copy(update={"sensors": {**rig.sensors, "thermal": _free(rig)}}))
    later_ns = START_NS + 30 * PERIOD_NS
    intake.add("/thermal/image", image_message(thermal_image(0), "mono16", later_ns, ""), later_ns)
    assert intake.counters[f"thermal/{TOO_MANY}"] == 10, "counts go on, the limit does not"


def test_a_rate_is_a_number_of_zero_or_more():
    for wrong in (-1, "nan", float("inf")):
        with pytest.raises(RigError, match="max_rate_hz"):
            Rig.parse({"sensors": {"rgb": {"topic": "/rgb/image", "max_rate_hz": wrong}}})


def _free(rig: Rig):
    return rig.sensors["thermal"].model_copy(update={"max_rate_hz": 0.0})
