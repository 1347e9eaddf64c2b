"""``sync: approximate``: the library's sets, what it drops, and what is said where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from live_node import talking
from sensor_msgs.msg import Image

from unim2_core.sensing.bag_messages import stamp_ns
from unim2_core.sensing.intake import Intake
from unim2_core.sensing.rig import Rig
from unim2_core.sensing.synchronizer import MatchedSet

pytestmark = pytest.mark.ros
DOMAIN = 75
START_NS, PERIOD_NS, MS = 1_700_000_000_000_000_000, 33_000_000, 1_000_000
RIG = Rig.parse({"sensors": {"rgb": {"topic": "a"}, "thermal": {"topic": "b"}}})
BLOCKED = """
import sys
sys.modules["message_filters"] = None  # as where it is not installed
from unim2_ros.segment_node import main
sys.exit(main())
"""


@pytest.fixture
def intake() -> Intake:
    pytest.importorskip(
        "message_filters", reason="message_filters comes with a ROS workspace only"
    )
    from unim2_ros.approximate import ApproximateSynchronizer

    return Intake(RIG, lambda rig: ApproximateSynchronizer(rig, slop_s=0.01, queue=4))


def _add(intake: Intake, topic: str, at_ns: int) -> list[MatchedSet[Any]]:
    message = Image()
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(at_ns, 1_000_000_000)
    return intake.add(topic, message, at_ns)


def test_images_within_the_slop_are_a_set(intake: Intake) -> None:
    found = []
    for index in range(10):
        at_ns = START_NS + index * PERIOD_NS
        found += _add(intake, "a", at_ns)
        found += _add(intake, "b", at_ns + 6 * MS)
    assert [one.stamp_ns for one in found] == [START_NS + i * PERIOD_NS for i in range(10)]
    assert {one.skew_s["thermal"] for one in found} == {0.006}
    assert {one.wait_s for one in found} == {0.006}
    payload = found[3].members["thermal"].payload["image"]
    assert stamp_ns(payload.header) == START_NS + 3 * PERIOD_NS + 6 * MS
    assert intake.counters["sets"] == 10


def test_without_a_sensor_there_is_nothing_and_the_reason_is_counted(intake: Intake) -> None:
    found = [one for i in range(10) for one in _add(intake, "a", START_NS + i * PERIOD_NS)]
    assert not found
    assert intake.counters["rgb/not matched, none of thermal"] == 6, "4 still wait"
    intake.flush()
    counts = intake.counters
    assert counts["rgb/not matched"] == 4
    assert counts["sets"] == 0


def test_images_too_far_apart_are_counted(intake: Intake) -> None:
    for index in range(10):
        assert not _add(intake, "a", START_NS + index * PERIOD_NS)
        assert not _add(intake, "b", START_NS + index * PERIOD_NS + 15 * MS)
    intake.flush()
    counts = intake.counters
    assert counts["rgb/not matched"] == counts["thermal/not matched"] == 10


def test_it_begins_anew_when_the_clock_goes_back(intake: Intake) -> None:
    for index in range(10):
        _add(intake, "a", START_NS + index * PERIOD_NS)  # the queue is full of the future
    found = []
    for index in range(10):
        at_ns = START_NS - 1000 * PERIOD_NS + index * PERIOD_NS
        found += _add(intake, "a", at_ns) + _add(intake, "b", at_ns)
    assert len(found) == 10
    assert intake.counters["resets"] == 1


def test_offsets_are_added(intake: Intake) -> None:
    late = RIG.sensors["thermal"].model_copy(update={"offset_s": -0.1})
    intake.retune(RIG.model_copy(update={"sensors": {**RIG.sensors, "thermal": late}}))
    assert not _add(intake, "a", START_NS)
    [found] = _add(intake, "b", START_NS + 100 * MS)
    assert found.skew_s == {"thermal": 0.0}


def test_the_node_segments_what_the_library_matched(model_path: Path, tmp_path: Path) -> None:
    pytest.importorskip(
        "message_filters", reason="message_filters comes with a ROS workspace only"
    )
    settings = (f"model:={model_path}", "sync:=approximate", "sync_queue:=3")
    with talking(tmp_path, DOMAIN, *settings) as talker:
        masks = talker.listen("/segment/segmentation", Image)
        assert talker.until(lambda: len(masks) >= 3, talker.send)
        talker.says("sync approximate waits for thermal", step=lambda: talker.send(("rgb",)))
        masks.clear()
        assert talker.until(lambda: len(masks) >= 3, talker.send)


def test_where_it_is_not_installed_configuring_fails_and_says_what_to_do(
    model_path: Path, tmp_path: Path
) -> None:
    program = tmp_path / "blocked.py"
    program.write_text(BLOCKED)
    settings = (f"model:={model_path}", "sync:=approximate", "autostart:=false")
    with talking(tmp_path, DOMAIN, *settings, program=str(program)) as talker:
        assert not talker.change_state("configure")
        assert talker.state() == "unconfigured"
        said = talker.says("not configured: sync: approximate needs message_filters").message
        assert "apt install ros-$ROS_DISTRO-message-filters" in said
        assert talker.set_parameter("sync", "unim2").successful
        assert talker.change_state("configure")
