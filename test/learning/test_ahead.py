"""Batches that are read beforehand are those that are asked for."""

from __future__ import annotations

import threading

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from training_samples import batches

from unim2_core.learning.ahead import Ahead
from unim2_core.learning.objective import Batch


class Source:
    """Batches; says which were begun, and fails in one."""

    def __init__(self, bad: int = -1) -> None:
        self.bad, self.begun = bad, dict[int, threading.Event]()

    def event(self, step: int) -> threading.Event:
        return self.begun.setdefault(step, threading.Event())

    def __call__(self, step: int) -> Batch:
        self.event(step).set()
        if step == self.bad:
            raise ValueError("the network is gone")
        return batches(step)


def test_whatever_is_asked_for_is_given() -> None:
    ahead = Ahead(Source(), 8)
    for step in (0, 1, 2, 7, 3, 3, 4):
        assert ahead(step).anchors["rgb"].equal(batches(step).anchors["rgb"])


def test_the_next_one_is_read_meanwhile_and_fails_in_its_own_step() -> None:
    source = Source(bad=6)
    ahead = Ahead(source, 8)
    ahead(5)
    assert source.event(6).wait(10)
    with pytest.raises(ValueError, match="gone"):
        ahead(6)
    source.bad = -1
    assert ahead(6).anchors["rgb"].equal(batches(6).anchors["rgb"])
    ahead(7)
    assert set(source.begun) == {5, 6, 7}  # there is no step 8
