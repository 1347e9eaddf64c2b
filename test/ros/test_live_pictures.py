"""Pictures out of topics: paced, newest first, and an end that says what was wrong."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed: pip install 'unim2[ros]'")

from rclpy.node import Node
from rclpy.time import Time
from scenes import rgb_image, thermal_image
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from unim2_core.errors import ModelError
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.rig import Rig
from unim2_ros.lifetime import spinning
from unim2_ros.live_pictures import QUEUE, LivePictures, LiveSets, with_rate
from unim2_ros.messages import image_message

pytestmark = pytest.mark.ros
START_S, PERIOD_MS = 1_700_000_000, 100
RIG = Rig.default(("rgb", "thermal"))


@pytest.fixture
def node() -> Iterator[Node]:
    os.environ["ROS_DOMAIN_ID"] = "86"
    rclpy.init()
    try:
        made = rclpy.create_node("pictures")
        yield made
        made.destroy_node()
    finally:
        rclpy.try_shutdown()


def _header(index: int) -> Header:
    stamp = Time(nanoseconds=START_S * 10**9 + index * PERIOD_MS * 10**6).to_msg()
    return Header(stamp=stamp, frame_id="camera")


def _thermal(index: int) -> Image:
    pixels = thermal_image(index)
    message = image_message(pixels.view(np.uint8), "mono16", _header(index))
    message.width = pixels.shape[1]
    return message


def _feed(sets: LiveSets, indices: range, **changes: object) -> None:
    """As its subscriptions do it."""
    streams = sets.streams
    for index in indices:
        rgb = image_message(rgb_image(index), "rgb8", _header(index))
        for name, value in changes.items():
            setattr(rgb, name, value)
        for source, message in zip(streams.inputs, (rgb, _thermal(index)), strict=True):
            source._receive(message)


def test_the_rate_is_that_of_the_reference_and_never_above_the_rigs() -> None:
    assert with_rate(RIG, 2.0).sensors["rgb"].max_rate_hz == 2.0
    own = RIG.model_copy(
        update={"sensors": {"rgb": RIG.sensors["rgb"].model_copy(update={"max_rate_hz": 1.0})}}
    )
    assert with_rate(own, 2.0).sensors["rgb"].max_rate_hz == 1.0
    assert with_rate(RIG, 2.0).sensors["thermal"].max_rate_hz == 0.0


def test_pictures_are_those_of_the_model(node: Node, model_path: Path) -> None:
    manifest = Bundle(model_path).manifest
    sets = LiveSets(node, with_rate(RIG, 5.0))  # images come with 10 Hz
    source = LivePictures(sets, manifest, limit=3, wait_s=0.2)
    assert (source.modalities, source.absent) == (("rgb", "thermal"), [])
    _feed(sets, range(4))  # before it begins: not wanted any more
    clear = sets.clear
    sets.clear = lambda: (clear(), _feed(sets, range(10, 22)))  # type: ignore[method-assign]
    pictures = list(source)
    assert source.taken == len(pictures) == 3
    stamps = [picture.stamp_ns for picture in pictures]
    assert stamps[0] == START_S * 10**9 + 10 * PERIOD_MS * 10**6
    assert all(b - a >= 200_000_000 for a, b in itertools.pairwise(stamps))
    for picture in pictures:
        assert set(picture.images) == {"rgb", "thermal"}
        assert all(i.shape == (*manifest.infer_size, 3) for i in picture.images.values())


def test_who_is_slow_gets_the_newest(node: Node, model_path: Path) -> None:
    sets = LiveSets(node, RIG)
    _feed(sets, range(QUEUE + 5))
    waiting = []
    while (matched := sets.within(0.01)) is not None:
        waiting.append(matched.stamp_ns)
    assert len(waiting) == QUEUE
    assert sets.behind + len(waiting) == sets.streams.counters["sets"]
    assert waiting == sorted(waiting)


def test_an_end_without_a_picture_says_why(node: Node, model_path: Path) -> None:
    sets = LiveSets(node, RIG)
    source = LivePictures(sets, Bundle(model_path).manifest, limit=3, wait_s=0.05)
    with spinning(node), pytest.raises(ModelError, match="no picture came in") as caught:
        list(source)
    assert caught.value.found == "no message"
    stream = iter(source)
    sets.clear = lambda: _feed(sets, range(4), encoding="sonar9")  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="no picture came in") as caught:
        next(stream)
    assert "unknown image encoding" in caught.value.found
