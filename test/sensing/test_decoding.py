from __future__ import annotations

from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_messages import LAYOUTS, compressed_message, image_message

from unim2_core.errors import DecodeError, RigError
from unim2_core.sensing.decoding import Decoder
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.rig import SENSORS, Rig

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (4, 6), dtype=np.uint8)
COUNTS = RANDOM.integers(1, 65536, (4, 6), dtype=np.uint16)
RGB = RANDOM.integers(0, 256, (4, 6, 3), dtype=np.uint8)
STAMP_NS = 1_700_000_000_123_456_789


def decoder(sensor: str, **options: object) -> Decoder:
    options = {"topics": {}, **options} if "topics" in options else {"topic": "/x", **options}
    return Decoder(Rig.parse({"reference": sensor, "sensors": {sensor: options}}))


def decode(sensor: str, message: object, **options: object) -> Frame:
    return decoder(sensor, **options).decode(sensor, {"image": message}, STAMP_NS)


def gray_as_rgb(gray: np.ndarray) -> np.ndarray:
    return np.repeat(gray[..., None], 3, axis=-1)


def png_message(image: np.ndarray, format_: str) -> SimpleNamespace:
    return compressed_message(cv2.imencode(".png", image)[1].tobytes(), format_)


def test_frame_says_where_it_comes_from():
    frame = decode("rgb", image_message(RGB, "rgb8"))
    assert (frame.sensor, frame.stamp_ns, frame.topic) == ("rgb", STAMP_NS, "/x")
    assert frame.frame_id == "camera"
    assert (frame.unit, frame.valid) == ("", None)


def test_rig_overrides_the_frame_id():
    assert decode("rgb", image_message(RGB, "rgb8"), frame_id="optical").frame_id == "optical"


def test_rgb_is_not_copied():
    message = image_message(RGB, "rgb8")
    frame = decode("rgb", message)
    np.testing.assert_array_equal(frame.data, RGB)
    assert np.shares_memory(frame.data, np.frombuffer(message.data, np.uint8))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (image_message(GREY, "mono8"), GREY),
        (image_message(COUNTS, "mono16"), (COUNTS // 256).astype(np.uint8)),
        (png_message(GREY, "mono8; png compressed "), GREY),
    ],
)
def test_rgb_of_a_monochrome_camera(message, expected):
    data = decode("rgb", message).data
    assert data.dtype == np.uint8
    np.testing.assert_array_equal(data, gray_as_rgb(expected))


def test_rgb_is_not_depth():
    with pytest.raises(DecodeError, match=r"rgb image on /x: .*\n.*colour.*\n.*float32"):
        decode("rgb", image_message(GREY.astype(np.float32), "32FC1"))


def test_depth_of_counts():
    counts = COUNTS.copy()
    counts[1, 2] = 0
    for message in (
        image_message(counts, "16UC1"),
        image_message(counts, "mono16", big_endian=True, padding=2),
        png_message(counts, "16UC1; png compressed "),
    ):
        frame = decode("depth", message, depth={"unit_m": 0.002})
        assert frame.data.dtype == np.float32
        assert frame.unit == "m"
        np.testing.assert_allclose(frame.data, counts * 0.002, rtol=1e-6)
        np.testing.assert_array_equal(frame.valid, counts > 0)


def test_depth_of_signed_counts():
    counts = np.array([[-5, 0, 1500]], np.int16)
    frame = decode("depth", image_message(counts, "16SC1"))
    np.testing.assert_allclose(frame.data, [[0, 0, 1.5]])
    np.testing.assert_array_equal(frame.valid, [[False, False, True]])


def test_depth_of_metres():
    metres = np.array([[np.nan, np.inf, -1.0, 0.0, 2.5]], np.float32)
    frame = decode("depth", image_message(metres, "32FC1"))
    np.testing.assert_array_equal(frame.data, [[0, 0, 0, 0, 2.5]])
    np.testing.assert_array_equal(frame.valid, [[False, False, False, False, True]])


def test_depth_is_not_a_picture():
    with pytest.raises(DecodeError, match=r"depth image on /x: .*\n.*16UC1 or 32FC1"):
        decode("depth", image_message(GREY, "mono8"))


def test_thermal_in_kelvin():
    options = {"conversion": "centikelvin"}
    frame = decode("thermal", image_message(COUNTS, "16UC1"), thermal=options)
    assert frame.unit == "K"
    np.testing.assert_allclose(frame.data, COUNTS * 0.01, rtol=1e-6)


@pytest.mark.parametrize("conversion", ["centikelvin", "decikelvin"])
@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_eight_bits_of_thermal_are_no_kelvin(conversion, encoding):
    with pytest.raises(DecodeError, match=r"mono16, 16UC1 or 32FC1; eight bits .*relative"):
        decode("thermal", image_message(GREY, encoding), thermal={"conversion": conversion})


@pytest.mark.parametrize("sensor", ["thermal", "nir"])
@pytest.mark.parametrize("big_endian", [False, True])
def test_both_names_of_sixteen_bits_mean_the_same(sensor, big_endian):
    first, second = (
        decode(sensor, image_message(COUNTS, name, big_endian=big_endian, padding=6)).data
        for name in ("mono16", "16UC1")
    )
    np.testing.assert_array_equal(first, second)
    assert len(np.unique(first)) == len(np.unique(COUNTS)), "no count was cut to eight bits"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (image_message(COUNTS, "mono16"), COUNTS),
        (image_message(GREY, "mono8"), GREY),
        (image_message(gray_as_rgb(GREY), "bgr8"), GREY),
        (png_message(gray_as_rgb(GREY), "rgb8; png compressed bgr8"), GREY),
    ],
)
def test_thermal_in_counts(message, expected):
    frame = decode("thermal", message)
    assert frame.data.dtype == np.float32
    assert frame.unit == "counts"
    np.testing.assert_array_equal(frame.data, expected)


@pytest.mark.parametrize("sensor", ["depth", "thermal", "nir"])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_false_colors_are_refused(sensor, channel):
    image = gray_as_rgb(GREY)
    image[3, 5, channel] ^= 1
    with pytest.raises(DecodeError, match=f"{sensor} image on /x: one channel is needed"):
        decode(sensor, image_message(image, "rgb8"))


@pytest.mark.parametrize(
    ("samples", "encoding", "full_scale", "expected"),
    [
        ([[0, 51, 255]], "mono8", 0, [[0, 0.2, 1]]),
        ([[0, 51, 255]], "mono8", 102, [[0, 0.5, 1]]),
        ([[0, 13107, 65535]], "mono16", 0, [[0, 0.2, 1]]),
        ([[0, 1023, 4095]], "16UC1", 1023, [[0, 1, 1]]),
        ([[-9, 0, 32767]], "16SC1", 0, [[0, 0, 1]]),
        ([[-0.5, 0.25, 1.5]], "32FC1", 0, [[0, 0.25, 1]]),
    ],
)
def test_nir_is_a_share_of_full_scale(samples, encoding, full_scale, expected):
    dtype = {"B": np.uint8, "H": np.uint16, "h": np.int16, "f": np.float32}[LAYOUTS[encoding][0]]
    message = image_message(np.array(samples, dtype), encoding)
    frame = decode("nir", message, full_scale=full_scale)
    assert frame.data.dtype == np.float32
    np.testing.assert_allclose(frame.data, expected, atol=1e-7)


def test_nir_that_is_not_finite_is_not_valid():
    samples = np.array([[np.nan, np.inf, -np.inf, 0.5]], np.float32)
    frame = decode("nir", image_message(samples, "32FC1"))
    np.testing.assert_array_equal(frame.data, [[0, 0, 0, 0.5]])
    np.testing.assert_array_equal(frame.valid, [[False, False, False, True]])


S0, DOLP, AOLP = 0.4, 0.6, 2.0
"""Light whose four intensities are, by Malus' law, S0 / 2 (1 + DoLP cos(2 (angle - AoLP)))."""


def intensity(angle_deg: int) -> float:
    return S0 / 2 * (1 + DOLP * np.cos(2 * (np.radians(angle_deg) - AOLP)))


def constant(value: float, shape: tuple[int, int] = (4, 8)) -> np.ndarray:
    return np.full(shape, np.rint(value * 65535), np.uint16)


def assert_is_the_light(frame: Frame, s0: float) -> None:
    assert frame.data.dtype == np.float32
    assert frame.data.shape[2] == 3
    np.testing.assert_allclose(frame.data[..., 0], s0, atol=1e-3)
    np.testing.assert_allclose(frame.data[..., 1], DOLP, atol=1e-3)
    np.testing.assert_allclose(frame.data[..., 2], AOLP, atol=1e-3)


ANGLES = (0, 135, 45, 90)
MOSAIC = np.empty((4, 8), np.uint16)
for _place, _angle in enumerate(ANGLES):
    MOSAIC[_place // 2 :: 2, _place % 2 :: 2] = constant(intensity(_angle), (2, 4))


@pytest.mark.parametrize(
    "message",
    [
        image_message(MOSAIC, "mono16"),
        image_message(MOSAIC, "bayer_rggb16", big_endian=True),  # some drivers call it so
        png_message(MOSAIC, "mono16; png compressed "),
        png_message(MOSAIC, "bayer_rggb16; png compressed "),
    ],
)
@pytest.mark.parametrize(("layout", "pixels"), [("mosaic_2x2", 2), ("mosaic_bayer_4x4", 4)])
def test_polarization_mosaic(message, layout, pixels):
    how = {"layout": layout, "angles_deg": ANGLES, "bayer": "gbrg"}
    frame = decode("polarization", message, polarization=how)
    assert frame.data.shape[:2] == (4 // pixels, 8 // pixels)
    assert_is_the_light(frame, S0 / 2)  # a polarizer passes half


def test_polarization_full_scale_of_the_rig():
    how = {"angles_deg": ANGLES}
    message = image_message(MOSAIC, "mono16")
    frame = decode("polarization", message, polarization=how, full_scale=65535 / 2)
    assert_is_the_light(frame, S0)


def test_polarization_from_four_topics():
    names = ("90", "0", "135", "45")
    parts = {name: image_message(constant(intensity(int(name))), "mono16") for name in names}
    parts["45"] = png_message(constant(intensity(45)), "mono16; png compressed ")
    quad = decoder(
        "polarization",
        topics={name: f"/angle{name}" for name in names},
        polarization={"layout": "quad_topics"},
    )
    frame = quad.decode("polarization", parts, STAMP_NS)
    assert_is_the_light(frame, S0 / 2)
    assert (frame.topic, frame.frame_id) == ("/angle90", "camera")
    del parts["135"]
    with pytest.raises(DecodeError, match=r"part 135 is missing\n.*/angle135"):
        quad.decode("polarization", parts, STAMP_NS)


def test_polarization_from_stokes():
    values = {"s0": S0, "s1": S0 * DOLP * np.cos(2 * AOLP), "s2": S0 * DOLP * np.sin(2 * AOLP)}
    parts = {
        name: image_message(np.full((2, 3), value, np.float32), "32FC1")
        for name, value in values.items()
    }
    stokes = decoder(
        "polarization",
        topics={name: f"/{name}" for name in parts},
        polarization={"layout": "stokes"},
    )
    assert_is_the_light(stokes.decode("polarization", parts, STAMP_NS), S0)


@pytest.mark.parametrize("with_s0", [True, False])
def test_polarization_from_degree_and_angle(with_s0):
    parts = {
        "dolp": image_message(constant(DOLP), "mono16"),
        "aolp": image_message(np.full((4, 8), np.degrees(AOLP), np.float32), "32FC1"),
    }
    if with_s0:
        parts["s0"] = image_message(constant(S0), "mono16")
    both = decoder(
        "polarization",
        topics={name: f"/{name}" for name in parts},
        polarization={"layout": "dolp_aolp", "aolp_unit": "deg"},
    )
    assert_is_the_light(both.decode("polarization", parts, STAMP_NS), S0 if with_s0 else 1.0)


def test_polarization_parts_of_different_size():
    sizes = {"0": (4, 8), "45": (4, 8), "90": (4, 8), "135": (4, 6)}
    parts = {name: image_message(constant(0.5, size), "mono16") for name, size in sizes.items()}
    quad = decoder(
        "polarization",
        topics={name: f"/angle{name}" for name in sizes},
        polarization={"layout": "quad_topics"},
    )
    with pytest.raises(DecodeError, match=r"polarization image on /angle0: .*\n(.*\n)*.*\(4, 6\)"):
        quad.decode("polarization", parts, STAMP_NS)


def test_rig_without_the_parts_of_its_layout():
    with pytest.raises(RigError, match=r"polarization lacks topics\n.*s0, s1, s2\n.*s0, s1, s2"):
        decoder("polarization", polarization={"layout": "stokes"})
    with pytest.raises(RigError, match=r"rgb lacks topics\n.*a topic"):
        decoder("rgb", topics={"left": "/left"})


def test_no_message():
    with pytest.raises(DecodeError, match="part image is missing"):
        decoder("rgb").decode("rgb", {}, STAMP_NS)


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize(
    "message", [None, 3, "image", SimpleNamespace(), SimpleNamespace(format=1)]
)
def test_not_an_image_message(sensor, message):
    with pytest.raises(DecodeError, match=f"{sensor} image on /x"):
        decode(sensor, message)


@given(sensor=st.sampled_from(SENSORS), encoding=st.sampled_from(sorted(LAYOUTS)), data=st.data())
@settings(max_examples=200, deadline=None)
def test_any_encoding_gives_the_documented_frame_or_a_decode_error(sensor, encoding, data):
    code, channels = LAYOUTS[encoding]
    shape = (4, 8) if channels == 1 else (4, 8, channels)
    bits = {"B": (0, 255), "H": (0, 65535), "h": (-32768, 32767)}
    if code == "f":
        number = st.floats(width=32)
        dtype = np.dtype(np.float32)
    else:
        number = st.integers(*bits[code])
        dtype = np.dtype({"B": np.uint8, "H": np.uint16, "h": np.int16}[code])
    few = data.draw(st.lists(number, min_size=1, max_size=4))
    message = image_message(np.resize(np.array(few, dtype), shape), encoding)
    try:
        frame = decode(sensor, message)
    except DecodeError:
        return
    three = sensor in ("rgb", "polarization")
    assert frame.data.dtype == (np.uint8 if sensor == "rgb" else np.float32)
    assert frame.data.ndim == 3 if three else frame.data.ndim == 2
    assert np.isfinite(frame.data).all()
    if frame.valid is not None:
        assert frame.valid.shape == (frame.height, frame.width)
        assert (frame.data[~frame.valid] == 0).all()
