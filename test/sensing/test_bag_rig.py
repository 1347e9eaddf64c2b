"""Rigs that are guessed from bags of robots as they are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from bag_samples import START_NS, Sample, images, robot, write_mcap, write_ros1
from hypothesis import given, settings
from hypothesis import strategies as st

from unim2_core.errors import BagError
from unim2_core.sensing.bag_messages import (
    Transform,
    camera_info_message,
    transform_message,
)
from unim2_core.sensing.bag_rig import RigGuess, guess_rig, reference_topic
from unim2_core.sensing.bag_summary import summarize
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.rig import Rig, Sensor
from unim2_core.sensing.static_transforms import TransformTree

GREY: dict[str, Any] = {"shape": (12, 16), "encoding": "mono8"}
DEPTH: dict[str, Any] = {
    "shape": (12, 16),
    "encoding": "16UC1",
    "dtype": np.uint16,
    "low": 500,
    "high": 5000,
}
MONO16: dict[str, Any] = {"shape": (12, 16), "encoding": "mono16", "dtype": np.uint16}
CENTIKELVIN = {"low": 28_500, "high": 31_000}


def rig_of(folder: Path, *streams: list[Sample]) -> RigGuess:
    samples = sorted((s for stream in streams for s in stream), key=lambda s: s.log_ns)
    with BagReader(write_mcap(folder / "drive.mcap", samples)) as reader:
        return guess_rig(summarize(reader), TransformTree.from_bag(reader), "drive")


def sensor_of(folder: Path, topic: str, **options: Any) -> tuple[str, Sensor]:
    """What the only topic of a bag is taken for."""
    ((name, sensor),) = rig_of(folder, images(topic, 3, **options)).rig.sensors.items()
    return name, sensor


@pytest.mark.parametrize(
    ("topic", "frame", "form", "sensor"),
    [
        ("/camera/color/image_raw", "", {}, "rgb"),
        ("/camera/image_raw", "", {}, "rgb"),
        ("/cam0/image_raw", "", GREY, "rgb"),
        ("/camera/image_raw", "", {"encoding": "bayer_rggb8", "shape": (12, 16)}, "rgb"),
        ("/camera/depth/image_rect_raw", "", DEPTH, "depth"),
        ("/camera/aligned_depth_to_color/image_raw", "color", DEPTH, "depth"),
        ("/stereo/image", "", DEPTH, "depth"),
        (
            "/zed/points/image",
            "",
            {"shape": (12, 16), "encoding": "32FC1", "dtype": np.float32, "low": 1, "high": 9},
            "depth",
        ),
        ("/thermal/image_raw", "", MONO16, "thermal"),
        ("/lwir/image_raw", "", GREY, "thermal"),
        ("/flir_boson/image_raw", "", {**MONO16, **CENTIKELVIN}, "thermal"),
        ("/cam2/image_raw", "", {**MONO16, **CENTIKELVIN}, "thermal"),
        ("/cam2/image_raw", "", {**DEPTH, **CENTIKELVIN}, "thermal"),
        ("/cam2/image_raw", "thermal_optical", MONO16, "thermal"),
        ("/ir/image_raw", "", {**MONO16, **CENTIKELVIN}, "thermal"),
        ("/ir/image_raw", "", MONO16, "thermal"),
        ("/ir/image_raw", "", GREY, "nir"),
        ("/camera/infra1/image_rect_raw", "", GREY, "nir"),
        ("/nir/image", "", MONO16, "nir"),
        ("/polarization/image_raw", "", GREY, "polarization"),
        ("/polar_cam/image_raw", "", MONO16, "polarization"),
        ("/x/y", "camera_color_optical_frame", GREY, "rgb"),
    ],
)
def test_sensor_of_a_topic(
    tmp_path: Path, topic: str, frame: str, form: dict[str, Any], sensor: str
) -> None:
    name, options = sensor_of(tmp_path, topic, frame_id=frame, **form)
    assert name == sensor
    assert options.topic == topic


@pytest.mark.parametrize(
    ("topic", "form", "reason"),
    [
        ("/thermal/image_color", {}, "in colour"),
        ("/depth/preview", GREY, "a picture of depth"),
        ("/polarization/rgb", {}, "not the mosaic"),
        ("/rgb/image", {**DEPTH, "encoding": "32FC1", "dtype": np.float32}, "neither 8 nor 16"),
    ],
)
def test_images_that_are_not_what_the_topic_says(
    tmp_path: Path, topic: str, form: dict[str, Any], reason: str
) -> None:
    guessed = rig_of(tmp_path, images("/cam/color", 3), images(topic, 3, **form))
    assert list(guessed.rig.sensors) == ["rgb"]
    (text,) = guessed.unused
    assert topic in text
    assert reason in text
    assert text in guessed.dump()


@pytest.mark.parametrize(
    ("form", "conversion"),
    [
        ({**MONO16, **CENTIKELVIN}, "centikelvin"),
        ({**MONO16, "low": 2_850, "high": 3_100}, "decikelvin"),
        ({**MONO16, "low": 7_000, "high": 9_000}, "relative"),
        (GREY, "relative"),
    ],
)
def test_thermal_conversion(tmp_path: Path, form: dict[str, Any], conversion: str) -> None:
    _, sensor = sensor_of(tmp_path, "/thermal/image", **form)
    assert sensor.thermal.conversion == conversion


@pytest.mark.parametrize(("low", "high", "offset"), [(280, 310, 0.0), (5, 40, 273.15)])
def test_thermal_floats(tmp_path: Path, low: int, high: int, offset: float) -> None:
    form: dict[str, Any] = {"shape": (12, 16), "encoding": "32FC1", "dtype": np.float32}
    _, sensor = sensor_of(tmp_path, "/thermal/image", **form, low=low, high=high)
    assert (sensor.thermal.conversion, sensor.thermal.offset) == ("scale_offset", offset)
    assert sensor.thermal.scale == 1


@pytest.mark.parametrize(("high", "white"), [(1000, 1023), (4000, 4095), (60_000, 0)])
def test_full_scale_of_near_infrared(tmp_path: Path, high: int, white: int) -> None:
    _, sensor = sensor_of(tmp_path, "/nir/image", **MONO16, high=high)
    assert sensor.full_scale == white


def test_colour_polarization_mosaic(tmp_path: Path) -> None:
    name, sensor = sensor_of(
        tmp_path, "/polarization/image", shape=(12, 16), encoding="bayer_grbg8"
    )
    assert name == "polarization"
    assert (sensor.polarization.layout, sensor.polarization.bayer) == ("mosaic_bayer_4x4", "grbg")


@pytest.mark.parametrize(
    ("parts", "layout"),
    [
        (("0", "45", "90", "135"), "quad_topics"),
        (("s0", "s1", "s2"), "stokes"),
        (("dolp", "aolp"), "dolp_aolp"),
        (("s0", "dolp", "aolp"), "dolp_aolp"),
    ],
)
def test_polarization_in_several_topics(
    tmp_path: Path, parts: tuple[str, ...], layout: str
) -> None:
    streams = [images(f"/polarization/{part}/image_raw", 3, **GREY) for part in parts]
    guessed = rig_of(tmp_path, images("/rgb/image", 3), *streams)
    sensor = guessed.rig.sensors["polarization"]
    assert sensor.polarization.layout == layout
    assert sensor.topics == {part: f"/polarization/{part}/image_raw" for part in parts}
    assert guessed.unused == []


def test_angles_in_other_words(tmp_path: Path) -> None:
    streams = [images(f"/polar/i{angle}", 3, **GREY) for angle in (0, 45, 90, 135)]
    sensor = rig_of(tmp_path, *streams).rig.sensors["polarization"]
    assert sensor.topics["135"] == "/polar/i135"


def test_a_whole_robot(tmp_path: Path) -> None:
    streams = [
        images("/cam/color/image_raw", 60, 33_000_000, frame_id="color"),
        images("/cam/color/image_raw/compressed_copy", 60, 33_000_000, frame_id="color"),
        images("/cam/aligned_depth_to_color/image_raw", 60, 33_000_000, frame_id="color", **DEPTH),
        images("/cam/depth/image_rect_raw", 60, 33_000_000, frame_id="depth", **DEPTH),
        images("/cam/infra1/image", 60, 33_000_000, frame_id="infra1", **GREY),
        images("/cam/infra2/image", 60, 33_000_000, frame_id="infra2", **GREY),
        images("/thermal/image", 18, 111_000_000, frame_id="flir", **MONO16, **CENTIKELVIN),
    ]
    infos = [
        Sample(
            topic,
            camera_info_message(16, 12, np.eye(3), [], START_NS, frame),
            START_NS + 6_000_000,
        )
        for topic, frame in (
            ("/cam/color/camera_info", "color"),
            ("/cam/aligned_depth_to_color/camera_info", "color"),
            ("/elsewhere/info", "flir"),
        )
    ]
    half = np.sqrt(0.5)
    transforms = [
        # The mast carries both; the thermal camera is turned by 90 degrees about its own z.
        Transform("mast", "color", (1.0, 0.0, 0.5)),
        Transform("mast", "plate", (1.0, 0.2, 0.5), (0.0, 0.0, half, half)),
        Transform("plate", "flir", (0.0, 0.0, 0.1)),
    ]
    static = [
        Sample("/tf_static", transform_message([transform], START_NS), START_NS)
        for transform in transforms
    ]
    guessed = rig_of(tmp_path, *streams, infos, static)
    text = guessed.dump()
    rig = Rig.parse(yaml.safe_load(text))
    assert rig == guessed.rig
    assert (rig.name, rig.reference) == ("drive", "rgb")
    rgb, depth, thermal, nir = (rig.sensors[name] for name in ("rgb", "depth", "thermal", "nir"))
    assert rgb.required
    assert rgb.extrinsics is None
    assert depth.topic == "/cam/aligned_depth_to_color/image_raw"
    assert depth.extrinsics is None
    assert depth.max_age_s == 0.05
    assert thermal.max_age_s == 0.17
    assert thermal.info_topic == "/elsewhere/info"
    assert thermal.extrinsics is not None
    assert thermal.extrinsics.translation_m == (0.0, 0.2, 0.1)
    np.testing.assert_allclose(thermal.extrinsics.rotation_xyzw, (0, 0, half, half), atol=1e-9)
    assert nir.topic == "/cam/infra1/image"
    assert "(?) or /cam/infra2/image" in text
    assert "does not connect 'infra1' and 'color'" in text
    assert "/cam/depth/image_rect_raw" in text
    assert "the topic says depth; depth is /cam/aligned_depth_to_color/image_raw" in text
    assert "taken as aligned" in text


def test_raw_images_go_before_compressed_ones(tmp_path: Path) -> None:
    import cv2

    from unim2_core.sensing.bag_messages import compressed_image_message

    jpeg = cv2.imencode(".jpg", np.zeros((12, 16, 3), np.uint8))[1].tobytes()
    compressed = [
        Sample(
            "/a/rgb/compressed",
            compressed_image_message(jpeg, "rgb8; jpeg compressed bgr8", sample.log_ns, "rgb"),
            sample.log_ns,
        )
        for sample in images(count=3)
    ]
    assert rig_of(tmp_path, images("/b/rgb", 3), compressed).rig.sensors["rgb"].topic == "/b/rgb"
    (tmp_path / "alone").mkdir()
    alone = rig_of(tmp_path / "alone", compressed)
    assert alone.rig.sensors["rgb"].topic == "/a/rgb/compressed"


def test_without_colour_another_sensor_is_the_reference(tmp_path: Path) -> None:
    guessed = rig_of(
        tmp_path, images("/thermal/image", 3, **MONO16), images("/nir/image", 3, **GREY)
    )
    assert guessed.rig.reference == "thermal"
    assert guessed.rig.sensors["thermal"].required
    assert not guessed.rig.sensors["nir"].required


def test_stamps_of_zero_and_clocks_that_differ(tmp_path: Path) -> None:
    zero, other = images("/nir/image", **GREY), images("/thermal/image", **MONO16)
    for sample in zero:
        sample.message.header.stamp.sec = sample.message.header.stamp.nanosec = 0
    for sample in other:
        sample.message.header.stamp.sec -= 5000
    guessed = rig_of(tmp_path, images(), zero, other)
    assert guessed.rig.sensors["rgb"].stamp == "header"
    assert guessed.rig.sensors["nir"].stamp == "arrival"
    assert guessed.rig.sensors["thermal"].stamp == "arrival"
    assert "its clock is not that of the reference" in guessed.dump()


def test_ros1(tmp_path: Path) -> None:
    with BagReader(write_ros1(tmp_path / "drive.bag", robot())) as reader:
        summary = summarize(reader)
        guessed = guess_rig(summary, TransformTree.from_bag(reader))
    assert list(guessed.rig.sensors) == ["rgb", "depth"]
    extrinsics = guessed.rig.sensors["depth"].extrinsics
    assert extrinsics is not None
    assert extrinsics.translation_m == (0.05, 0.0, 0.0)
    first = reference_topic(summary)
    assert first is not None
    assert first.info.name == "/rgb/image"


def test_a_bag_without_images(tmp_path: Path) -> None:
    static = Sample("/tf_static", transform_message([Transform("a", "b")], 1), 1)
    with pytest.raises(BagError, match="no image topic"):
        rig_of(tmp_path, [static])


unit = st.lists(st.floats(-1, 1), min_size=4, max_size=4).filter(lambda q: np.linalg.norm(q) > 0.1)
metres = st.tuples(*[st.floats(-5, 5)] * 3)


@settings(deadline=None, max_examples=80)
@given(unit, metres, unit, metres, metres)
def test_extrinsics_move_points_as_the_chain_does(
    q1: list[float],
    t1: tuple[float, float, float],
    q2: list[float],
    t2: tuple[float, float, float],
    point: tuple[float, float, float],
) -> None:
    """Against the sandwich product q p q*, frame by frame."""

    def turn(q: Any, p: Any) -> Any:
        x, y, z, w = np.asarray(q) / np.linalg.norm(q)
        v = np.array([x, y, z])
        return p + 2 * np.cross(v, np.cross(v, p) + w * p)

    a, b = np.asarray(q1) / np.linalg.norm(q1), np.asarray(q2) / np.linalg.norm(q2)
    tree = TransformTree()
    tree.add(transform_message([Transform("base", "ref", t1, tuple(a))], 0).transforms)
    tree.add(transform_message([Transform("/base", "/cam", t2, tuple(b))], 0).transforms)
    found = tree.extrinsics("cam", "ref")
    assert found is not None
    moved = turn(found.rotation_xyzw, np.asarray(point)) + found.translation_m
    in_base = turn(b, np.asarray(point)) + t2
    conjugate = a * [-1, -1, -1, 1]
    np.testing.assert_allclose(moved, turn(conjugate, in_base - t1), atol=2e-5)


def test_transforms_that_go_in_circles() -> None:
    tree = TransformTree()
    tree.add(transform_message([Transform("a", "b"), Transform("b", "a")], 0).transforms)
    tree.add(transform_message([Transform("x", "cam")], 0).transforms)
    assert tree.extrinsics("cam", "a") is None


def test_a_quaternion_of_zeros_is_no_turn() -> None:
    tree = TransformTree()
    transform = Transform("base", "cam", (1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0))
    tree.add(transform_message([transform], 0).transforms)
    found = tree.extrinsics("cam", "base")
    assert found is not None
    assert found.rotation_xyzw == (0, 0, 0, 1)
