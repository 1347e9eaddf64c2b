from __future__ import annotations

import threading

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from unim2_ros.worker import LatestWorker

pytestmark = pytest.mark.ros


def test_only_the_newest_waits_and_the_others_are_counted() -> None:
    started, go_on = threading.Event(), threading.Event()
    done = []

    def work(item: int) -> None:
        done.append(item)
        started.set()
        assert go_on.wait(10)

    worker = LatestWorker(work, lambda error: None)
    worker.put(0)
    assert started.wait(10)
    for item in (1, 2, 3):
        worker.put(item)
    go_on.set()
    worker.stop()
    assert done[0] == 0
    assert worker.finished + worker.superseded == 4
    assert set(done) <= {0, 3}


def test_an_exception_is_counted_and_the_next_item_served() -> None:
    seen: list[Exception] = []
    served = threading.Event()

    def work(item: str) -> None:
        if item == "bad":
            raise RuntimeError("bad item")
        served.set()

    worker = LatestWorker(work, seen.append)
    worker.put("bad")
    while not worker.failed:
        pass
    worker.put("good")
    assert served.wait(10)
    worker.stop()
    assert [str(error) for error in seen] == ["bad item"]
    assert (worker.failed, worker.finished) == (1, 1)
