"""Rates, candidates and settings that make no sense."""

from __future__ import annotations

from dataclasses import replace

import pytest

pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from unim2_core.errors import ModelError
from unim2_core.learning.schedule import TrainerConfig, rate_multipliers

CONFIG = TrainerConfig(steps=100, rate=1e-3)


def test_the_paper_keeps_its_rates() -> None:
    assert {rate_multipliers(CONFIG, step) for step in range(100)} == {(1.0, 1.0)}
    assert (CONFIG.clip_norm, CONFIG.ema_decay, CONFIG.precision) == (None, 0.0, "fp32")


def test_warm_up_leads_the_network_alone() -> None:
    config = replace(CONFIG, warmup_steps=4)
    network, probes = zip(*(rate_multipliers(config, step) for step in range(6)), strict=True)
    assert network == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert set(probes) == {1.0}


def test_a_cosine_brings_both_to_rest() -> None:
    config = replace(CONFIG, schedule="cosine", warmup_steps=10)
    assert rate_multipliers(config, 10) == (1.0, 1.0)
    assert rate_multipliers(config, 55) == pytest.approx((0.5, 0.5))
    for step in range(10, 99):
        assert rate_multipliers(config, step) > rate_multipliers(config, step + 1)
    assert 0 < rate_multipliers(config, 99)[0] < 1e-3


@pytest.mark.parametrize(("steps", "count"), [(100, 20), (7, 3), (5, 5), (3334, 20), (9, 1)])
def test_candidates_are_spread_evenly_up_to_the_last_step(steps: int, count: int) -> None:
    found = TrainerConfig(steps=steps, rate=1, candidates=count).candidate_steps
    gaps = {b - a for a, b in zip((0, *found), found, strict=False)}
    assert len(found) == len(set(found)) == count
    assert found[-1] == steps and max(gaps) - min(gaps) <= 1 and min(gaps) >= 1


def test_what_is_due_is_due_after_the_last_step_too() -> None:
    assert [n for n in range(1, 101) if CONFIG.due(n, 30)] == [30, 60, 90, 100]
    assert [n for n in range(1, 101) if CONFIG.due(n, 0)] == [100]


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"rate": 0.0},
        {"rate": float("nan")},
        {"warmup_steps": 100},
        {"schedule": "linear"},
        {"clip_norm": 0.0},
        {"ema_decay": 1.0},
        {"precision": "fp16"},
        {"device": "tpu"},
        {"seed": -1},
        {"candidates": 101},
        {"candidates": 0},
        {"log_every": 0},
        {"reset_probes_at": 100},
    ],
)
def test_settings_that_make_no_sense_are_named(wrong: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=next(iter(wrong))):
        replace(CONFIG, **wrong)
