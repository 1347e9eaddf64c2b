from __future__ import annotations

import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from scenes import HEIGHT, PERIOD_NS, START_NS, WIDTH, rgb_image, thermal_image

from unim2_core.errors import DecodeError, RigError
from unim2_core.sensing.bag_messages import camera_info_message, image_message
from unim2_core.sensing.intake import Intake
from unim2_core.sensing.rig import Rig

KELVIN = {"topic": "/thermal/image", "thermal": {"conversion": "centikelvin"}}


def _rig(**changes: object) -> Rig:
    sensors = {"rgb": {"topic": "/rgb/image"}, "thermal": KELVIN, **changes}
    return Rig.parse({"sensors": sensors})


def _rgb(index: int, stamp_ns: int | None = None) -> object:
    stamp_ns = START_NS + index * PERIOD_NS if stamp_ns is None else stamp_ns
    return image_message(rgb_image(index), "rgb8", stamp_ns, "rgb_frame")


def _thermal(index: int) -> object:
    return image_message(
        thermal_image(index), "mono16", START_NS + index * PERIOD_NS, "thermal_frame"
    )


def test_messages_become_a_decoded_set() -> None:
    intake = Intake(_rig())
    assert intake.add("/thermal/image", _thermal(0), START_NS) == []
    [matched] = intake.add("/rgb/image", _rgb(0), START_NS + 1)
    frames = intake.decode(matched)
    np.testing.assert_array_equal(frames.frames["rgb"].data, rgb_image(0))
    assert frames.frames["thermal"].unit == "K"
    np.testing.assert_allclose(
        frames.frames["thermal"].data, thermal_image(0) / np.float32(100), rtol=1e-6
    )
    assert frames.stamp_ns == START_NS
    assert frames.skew_s == {"thermal": 0.0}
    assert intake.topics == {"/rgb/image": "rgb", "/thermal/image": "thermal"}


def test_an_image_that_serves_again_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    intake = Intake(_rig())
    decoded = []
    decode = intake._decoder.decode
    monkeypatch.setattr(
        intake._decoder, "decode", lambda name, *rest: decoded.append(name) or decode(name, *rest)
    )
    intake.add("/thermal/image", _thermal(0), START_NS)
    [first] = intake.add("/rgb/image", _rgb(0), START_NS + 1)
    again = replace(first, members={**first.members})
    one, two = intake.decode(first), intake.decode(again)
    assert decoded == ["rgb", "thermal"]
    assert one.frames["thermal"].data is two.frames["thermal"].data
    intake.add("/thermal/image", _thermal(1), START_NS + PERIOD_NS)
    [later] = intake.add("/rgb/image", _rgb(1), START_NS + PERIOD_NS + 1)
    assert intake.decode(later).frames["thermal"].stamp_ns == START_NS + PERIOD_NS
    assert decoded == ["rgb", "thermal", "rgb", "thermal"]


def test_a_stamp_of_zero_is_counted() -> None:
    intake = Intake(_rig())
    assert intake.add("/rgb/image", _rgb(0, stamp_ns=0), START_NS) == []
    assert intake.counters["rgb/zero stamp"] == 1


def test_arrival_can_be_the_stamp() -> None:
    intake = Intake(_rig(rgb={"topic": "/rgb/image", "stamp": "arrival"}))
    intake.add("/rgb/image", _rgb(0, stamp_ns=0), START_NS + 7)
    [matched] = intake.flush()
    assert matched.stamp_ns == START_NS + 7


def test_an_auxiliary_that_cannot_be_decoded_is_left_out_and_counted() -> None:
    intake = Intake(_rig())
    broken = _thermal(0)
    broken.encoding = "yuv_of_a_kind"
    intake.add("/thermal/image", broken, START_NS)
    [matched] = intake.add("/rgb/image", _rgb(0), START_NS + 1)
    frames = intake.decode(matched)
    assert set(frames.frames) == {"rgb"}
    assert "thermal" in frames.missing
    assert frames.skew_s == {}
    assert intake.counters["thermal/not decodable"] == 1


@pytest.mark.parametrize("sensor", ["rgb", "thermal"])
def test_a_reference_or_required_image_that_cannot_be_decoded_is_an_error(sensor: str) -> None:
    intake = Intake(_rig(thermal={**KELVIN, "required": True}))
    messages = {"thermal": _thermal(0), "rgb": _rgb(0)}
    messages[sensor].step = 1
    intake.add("/thermal/image", messages["thermal"], START_NS)
    [matched] = intake.add("/rgb/image", messages["rgb"], START_NS + 1)
    with pytest.raises(DecodeError, match=sensor):
        intake.decode(matched)
    assert intake.counters[f"{sensor}/not decodable"] == 1


def test_calibration_reaches_the_frames_and_nonsense_is_counted() -> None:
    intake = Intake(_rig())
    assert set(intake.info_topics) == {"/rgb/camera_info", "/thermal/camera_info"}
    matrix = [50.0, 0, 48, 0, 50, 32, 0, 0, 1]
    info = camera_info_message(96, 64, matrix, np.zeros(5), START_NS, "rgb_frame")
    intake.add_camera_info("/rgb/camera_info", info)
    nothing = camera_info_message(96, 64, np.zeros(9), np.zeros(5), START_NS, "thermal_frame")
    intake.add_camera_info("/thermal/camera_info", nothing)
    intake.add("/thermal/image", _thermal(0), START_NS)
    [matched] = intake.add("/rgb/image", _rgb(0), START_NS + 1)
    frames = intake.decode(matched).frames
    assert frames["rgb"].camera is not None
    assert frames["rgb"].camera.fx == 50
    assert frames["thermal"].camera is None
    assert intake.counters["thermal/camera_info without calibration"] == 1


def test_sensors_in_one_namespace_share_its_calibration() -> None:
    intake = Intake(_rig(rgb={"topic": "/cam/rgb"}, nir={"topic": "/cam/nir"}))
    matrix = [50.0, 0, 48, 0, 50, 32, 0, 0, 1]
    info = camera_info_message(WIDTH, HEIGHT, matrix, [0] * 5, START_NS, "cam")
    intake.add_camera_info("/cam/camera_info", info)
    grey = image_message(np.zeros((HEIGHT, WIDTH), np.uint8), "mono8", START_NS, "cam")
    intake.add("/cam/nir", grey, START_NS)
    intake.add("/cam/rgb", _rgb(0), START_NS)
    [matched] = intake.flush()
    cameras = {name: frame.camera for name, frame in intake.decode(matched).frames.items()}
    assert cameras["rgb"] is not None
    assert cameras["rgb"] == cameras["nir"]


def test_one_topic_cannot_feed_two_sensors() -> None:
    with pytest.raises(RigError, match=r"image topic once.*/rgb/image"):
        _rig(nir={"topic": "/rgb/image"})


def test_counts_can_be_read_while_another_thread_decodes() -> None:
    intake = Intake(_rig())
    done = threading.Event()

    def decode() -> None:
        for index in range(200_000):
            if done.is_set():
                return
            intake.dropped[f"thermal/{index % 3000}"] += 1
            if index % 3000 == 2999:
                intake.dropped.clear()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=decode)
    thread.start()
    try:
        for _ in range(300):
            assert intake.counters["sets"] == 0
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(interval)


def test_four_topics_are_grouped_to_one_frame() -> None:
    topics = {str(angle): f"/polarization/a{angle}" for angle in (0, 45, 90, 135)}
    rig = _rig(
        polarization={"topics": topics, "polarization": {"layout": "quad_topics"}},
    )
    intake = Intake(rig)
    pixels = {"0": 200, "45": 150, "90": 100, "135": 150}
    for angle, topic in topics.items():
        image = np.full((4, 6), pixels[angle], np.uint8)
        assert intake.add(topic, image_message(image, "mono8", START_NS, "p"), START_NS) == []
    intake.add(topics["0"], image_message(image, "mono8", START_NS + PERIOD_NS, "p"), START_NS)
    intake.add("/rgb/image", _rgb(0), START_NS + 1)
    [matched] = intake.flush()
    frame = intake.decode(matched).frames["polarization"]
    s0, dolp, aolp = frame.data[0, 0]
    assert s0 == pytest.approx(150 / 255, abs=1e-3)
    assert dolp == pytest.approx(100 / 300, abs=1e-3)
    intake.reset()
    assert intake.counters["polarization/part 0 reset"] == 1
    assert min(aolp, np.pi - aolp) == pytest.approx(0, abs=1e-3)


def test_other_times_take_effect_and_counts_go_on() -> None:
    intake = Intake(_rig())
    intake.add("/thermal/image", _thermal(0), START_NS)
    assert len(intake.add("/rgb/image", _rgb(0), START_NS + 1)) == 1
    intake.add("/thermal/image", _thermal(1), START_NS + PERIOD_NS)
    before = intake.counters
    intake.retune(_rig(thermal={**KELVIN, "required": True}))
    assert intake.rig.sensors["thermal"].required
    assert intake.counters["sets"] == before["sets"] == 1
    assert intake.counters["thermal/reset"] == 1
    assert intake.add("/rgb/image", _rgb(2), START_NS + 2 * PERIOD_NS) + intake.flush() == []
    assert intake.counters["rgb/required thermal missing"] == 1
    assert intake.counters["sets"] == 1
