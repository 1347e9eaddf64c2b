"""The average against the formula, and that serving it leaves no trace."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from unim2_core.learning.averaging import Average, serving


def module() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))


def set_all(net: torch.nn.Module, value: float) -> None:
    for parameter in net.parameters():
        parameter.data.fill_(value)


def test_average_is_that_of_the_formula() -> None:
    net = module()
    set_all(net, 4.0)
    average = Average(net, 0.5)
    expected = 4.0
    for step, value in enumerate([1.0, 7.0, -2.0, 3.0] * 4, start=1):
        set_all(net, value)
        average.update(net, step)
        decay = min(0.5, step / (step + 9))
        expected = decay * expected + (1 - decay) * value
        for tensor in average.values.values():
            torch.testing.assert_close(tensor, torch.full_like(tensor, expected))


def test_restart_forgets_some() -> None:
    net = module()
    average = Average(net, 0.9)
    before = {name: value.clone() for name, value in average.values.items()}
    set_all(net, 5.0)
    average.restart(net, ["1."])
    for name, value in average.values.items():
        assert value.equal(torch.full_like(value, 5.0) if name[0] == "1" else before[name])


def test_serving_puts_everything_back_even_after_an_error() -> None:
    net = module().train()
    average = Average(net, 0.9)
    set_all(net, 5.0)
    with pytest.raises(RuntimeError, match="on purpose"), serving(net, average):
        assert not net.training
        assert net.state_dict()["0.weight"].equal(average.values["0.weight"])
        assert not (net[0].weight == 5).any()
        raise RuntimeError("on purpose")
    assert net.training
    assert all((parameter == 5).all() for parameter in net.parameters())
    with serving(net, None):
        assert (net[0].weight == 5).all()
