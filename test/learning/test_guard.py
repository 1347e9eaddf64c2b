from __future__ import annotations

import json
import math

import pytest

from unim2_core.learning.guard import CHECKS, Check, judged

CHECK = (
    Check("kept", "what is kept", True, 0.9, 0.8),
    Check("kept/thermal", "of thermal", True, 0.5),
    Check("drift", "how far it went", False, 1.0, 2.0),
)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(0.95, "accepted"), (0.9, "accepted"), (0.85, "review"), (0.8, "review"), (0.7, "rejected")],
)
def test_what_should_be_high_has_two_limits(value: float, verdict: str) -> None:
    assert judged({"kept": value}, CHECK).verdict == verdict


@pytest.mark.parametrize(
    ("value", "verdict"), [(0.5, "accepted"), (1.5, "review"), (2.5, "rejected")]
)
def test_what_should_be_low_has_them_the_other_way_round(value: float, verdict: str) -> None:
    assert judged({"drift": value}, CHECK).verdict == verdict


def test_the_worst_finding_decides_and_is_named_first() -> None:
    found = judged({"kept": 0.85, "drift": 3.0, "kept/rgb": 0.95}, CHECK)
    assert found.verdict == "rejected"
    assert [reason.partition(" ")[0] for reason in found.reasons] == ["drift", "kept"]


def test_a_modality_may_have_limits_of_its_own() -> None:
    assert judged({"kept/thermal": 0.6}, CHECK).verdict == "accepted"
    assert judged({"kept/rgb": 0.6}, CHECK).verdict == "rejected"


def test_what_is_not_a_number_is_refused_and_every_figure_is_kept() -> None:
    found = judged({"kept": math.nan, "speed": 3.0, "odd": math.inf}, CHECK)
    assert found.verdict == "rejected"
    content = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert content["figures"] == {"kept": None, "speed": 3.0, "odd": None}
    assert content["limits"] == {"kept": {"review": 0.9, "reject": 0.8}}


def test_the_second_limit_is_never_the_stricter_one() -> None:
    for check in CHECKS:
        sign = 1 if check.at_least else -1
        assert check.reject is None or sign * check.reject <= sign * check.review
