from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unim2_core.errors import DecodeError, ModelError, RigError
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.modalities import MODALITIES, Encoder
from unim2_core.sensing.rig import SENSORS

SHAPE = (48, 64)
CAMERA = Intrinsics(60.0, 60.0, 31.5, 23.5, 64, 48)
SECOND = 1_000_000_000
PAPER = ("rgb", "hha", "thermal", "nir", "aolp", "dolp")


def frame(sensor: str, data: Any = None, **fields: Any) -> Frame:
    rng = np.random.default_rng(1)
    if data is None:
        data = {
            "rgb": lambda: rng.integers(0, 256, (*SHAPE, 3), np.uint8),
            "depth": lambda: rng.uniform(0.5, 20, SHAPE),
            "thermal": lambda: rng.uniform(0, 255, SHAPE),
            "nir": lambda: rng.uniform(0, 1, SHAPE),
            "polarization": lambda: rng.uniform(0, 1, (*SHAPE, 3)),
        }[sensor]()
    data = data if data.dtype == np.uint8 else data.astype(np.float32)
    return Frame(sensor, fields.pop("stamp_ns", SECOND), data, **fields)


def constant(sensor: str, value: Any, **fields: Any) -> Frame:
    return frame(sensor, np.full((*SHAPE, *np.shape(value)), value, np.float32), **fields)


def pixel(modality: str, image: Frame, **options: Any) -> list[int]:
    """The one colour of the encoding of a uniform image."""
    pixels, valid = Encoder(modality, **options).encode(image, (16, 24), CAMERA)
    assert valid is None
    assert (pixels == pixels[0, 0]).all()
    return [int(value) for value in pixels[0, 0]]


def test_registry() -> None:
    assert {modality.sensor for modality in MODALITIES.values()} == set(SENSORS)
    assert all(name == modality.name for name, modality in MODALITIES.items())
    fed = [name for name, modality in MODALITIES.items() if modality.sensor == "polarization"]
    assert fed == ["aolp", "dolp", "intensity"]


def test_normalize_and_neutral() -> None:
    rgb = MODALITIES["rgb"]
    image = np.zeros((2, 3, 3), np.uint8)
    image[..., 1] = 255
    found = rgb.normalize(image)
    assert (found.shape, found.dtype) == ((3, 2, 3), np.float32)
    np.testing.assert_allclose(found[0], -0.485 / 0.229, rtol=1e-6)
    np.testing.assert_allclose(found[1], (1 - 0.456) / 0.224, rtol=1e-6)
    neutral = np.broadcast_to(rgb.neutral, (1, 1, 3))
    assert np.abs(rgb.normalize(neutral)).max() < 0.01


@settings(deadline=None, max_examples=40)
@given(
    modality=st.sampled_from(sorted(MODALITIES)),
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    some_invalid=st.booleans(),
)
def test_robot_gives_exactly_the_size(
    modality: str, size: tuple[int, int], some_invalid: bool
) -> None:
    valid = np.ones(SHAPE, np.bool_)
    valid[10:30, 5:50] = False
    image = frame(MODALITIES[modality].sensor, valid=valid if some_invalid else None, unit="K")
    pixels, mask = Encoder(modality).encode(image, size, CAMERA)
    assert (pixels.shape, pixels.dtype) == ((*size, 3), np.uint8)
    if mask is not None:
        assert some_invalid or modality == "hha"  # a tiny image has no planes
        assert mask.shape == size
        assert (pixels[~mask] == MODALITIES[modality].neutral).all()


@pytest.mark.parametrize("modality", PAPER)
@pytest.mark.parametrize("size", [(32, 32), (96, 96), (20, 40)])
def test_paper_gives_exactly_the_size(modality: str, size: tuple[int, int]) -> None:
    image = frame(MODALITIES[modality].sensor, unit="counts")
    pixels, valid = Encoder(modality, "paper").encode(image, size, CAMERA)
    assert (pixels.shape, pixels.dtype, valid) == ((*size, 3), np.uint8, None)


def test_rgb_is_averaged_by_robot_and_picked_by_paper() -> None:
    board = np.indices(SHAPE).sum(axis=0) % 2 * 255
    image = frame("rgb", np.repeat(board[..., None], 3, 2).astype(np.uint8))
    averaged, _ = Encoder("rgb").encode(image, (24, 32))
    assert set(np.unique(averaged)) <= {127, 128}
    picked, _ = Encoder("rgb", "paper").encode(image, (24, 24))
    assert set(np.unique(picked)) <= {0, 255}


@pytest.mark.parametrize(
    ("depth_m", "level"), [(0.1, 255), (0.3, 255), (60.0, 0), (200.0, 0), (18**0.5, 128)]
)
def test_depth_is_logarithmic_over_a_fixed_range(depth_m: float, level: int) -> None:
    assert pixel("depth", constant("depth", depth_m)) == [level] * 3


def test_depth_levels_are_relative_steps() -> None:
    levels = [pixel("depth", constant("depth", depth))[0] for depth in (0.5, 1, 2, 4, 8, 16, 32)]
    steps = -np.diff(levels)
    assert steps.max() - steps.min() <= 1
    assert steps.mean() == pytest.approx(255 * np.log(2) / np.log(200), abs=0.5)
    narrow = pixel("depth", constant("depth", 2.0), depth_range_m=(1.0, 4.0))
    assert narrow == [128] * 3


def test_depth_of_a_hole_is_masked_and_does_not_bleed() -> None:
    depth = np.full(SHAPE, 2.0, np.float32)
    depth[8:40, 10:50] = 0.0
    expected = pixel("depth", constant("depth", 2.0))[0]
    for image in (frame("depth", depth, valid=depth > 0), frame("depth", depth)):
        pixels, valid = Encoder("depth").encode(image, (20, 30))
        assert valid is not None
        assert 0.4 < valid.mean() < 0.7
        assert (pixels[valid] == expected).all()
        assert (pixels[~valid] == (124, 116, 104)).all()


def test_depth_of_a_slanted_plane_is_exact_where_areas_are_averaged() -> None:
    inverse = np.broadcast_to(np.linspace(0.1, 1.0, SHAPE[1]), SHAPE)
    pixels, _ = Encoder("depth").encode(frame("depth", 1 / inverse), (12, 16))
    centre = inverse[0].reshape(16, 4).mean(axis=1)
    expected = 255 * np.log(60 * centre) / np.log(200)
    np.testing.assert_allclose(pixels[0, :, 0], expected, atol=0.51)


def test_hha_is_valid_only_where_a_plane_was_found() -> None:
    depth = np.full(SHAPE, 2.0, np.float32)
    depth[:24] = 0.0
    depth[10, 10] = 2.0  # measured, but alone
    _, plain = Encoder("depth").encode(frame("depth", depth), SHAPE)
    pixels, valid = Encoder("hha").encode(frame("depth", depth), SHAPE, CAMERA)
    assert plain is not None
    assert valid is not None
    assert plain[10, 10]
    assert not valid[10, 10]
    assert valid[30:].all()
    assert (pixels[~valid] == MODALITIES["hha"].neutral).all()


def test_hha_needs_a_camera() -> None:
    with pytest.raises(RigError, match="camera_info"):
        Encoder("hha").encode(frame("depth"), (16, 16))


@pytest.mark.parametrize("preset", ["robot", "paper"])
@pytest.mark.parametrize("camera", [CAMERA, CAMERA.scaled((480, 640))])
def test_hha_of_a_wall_whatever_size_the_camera_is_given_for(
    preset: Any, camera: Intrinsics
) -> None:
    pixels, _ = Encoder("hha", preset).encode(constant("depth", 4.0), (24, 24), camera)
    inner = pixels[4:-4, 4:-4]
    assert (np.abs(inner[..., 0].astype(int) - 310 / 4) <= 1).all()
    assert (inner[..., 2] == 38 + 90).all()
    height = inner[:, 10, 1].astype(int)  # centimetres, from the top row down
    rows = np.arange(24)[4:-4]
    pixels_per_row = 48 / 24
    step = 100 * 4.0 / 60.0 * pixels_per_row
    assert np.polyfit(rows[4:], height[4:], 1)[0] == pytest.approx(-step, rel=0.1)


@pytest.mark.parametrize(
    ("kelvin", "level"), [(200.0, 0), (253.15, 0), (293.2, 128), (333.15, 255), (400.0, 255)]
)
def test_kelvin_over_a_fixed_window(kelvin: float, level: int) -> None:
    assert pixel("thermal", constant("thermal", kelvin, unit="K")) == [level] * 3


def test_relative_thermal_follows_the_stream() -> None:
    encoder = Encoder("thermal")
    counts = np.linspace(3000, 4000, SHAPE[0] * SHAPE[1]).reshape(SHAPE)
    first, _ = encoder.encode(frame("thermal", counts, unit="counts"), SHAPE)
    assert first.min() == 0
    assert first.max() == 255
    again, _ = encoder.encode(frame("thermal", counts, unit="counts"), SHAPE)
    assert np.array_equal(first, again)
    hot = frame("thermal", counts + 500, unit="counts", stamp_ns=SECOND + SECOND // 30)
    brighter, _ = encoder.encode(hot, SHAPE)
    assert brighter.mean() > first.mean() + 60  # the range has hardly moved in a 30th second
    encoder.reset()
    fresh, _ = encoder.encode(hot, SHAPE)
    assert np.abs(fresh.astype(int) - first).max() <= 1


def test_constant_relative_thermal_is_grey() -> None:
    assert pixel("thermal", constant("thermal", 4711.0, unit="counts")) == [128] * 3


def test_nir_intensity_and_polarization() -> None:
    assert pixel("nir", constant("nir", 0.4)) == [102] * 3
    assert pixel("nir", constant("nir", 0.4), preset="paper") == [102] * 3
    light = (0.6, 0.2, np.pi / 4)
    assert pixel("intensity", constant("polarization", light)) == [153] * 3
    assert pixel("dolp", constant("polarization", light)) == [51] * 3
    assert pixel("aolp", constant("polarization", (0.6, 0.2, np.pi / 12))) == [191, 238, 51]
    assert pixel("aolp", constant("polarization", (0.6, 0.0, 0.0))) == [128, 128, 0]
    assert pixel("aolp", constant("polarization", (0.0, 0.0, 0.0))) == [128, 128, 0]
    assert pixel("dolp", constant("polarization", (0.0, 0.0, 0.0))) == [0] * 3


def test_angles_on_both_sides_of_the_wrap_encode_alike() -> None:
    angles = np.full(SHAPE, 0.05)
    angles[:, ::2] = np.pi - 0.05
    light = np.stack((np.full(SHAPE, 0.5), np.full(SHAPE, 0.5), angles), axis=-1)
    pixels, _ = Encoder("aolp").encode(frame("polarization", light), (24, 32))
    assert (np.abs(pixels[..., 0].astype(int) - 128) <= 1).all()  # sin 2a = 0
    assert (pixels[..., 1] == 255).all()  # cos 2a = 1


def test_paper_stretches_each_image() -> None:
    light = np.zeros((*SHAPE, 3))
    light[..., 1] = np.linspace(0.1, 0.3, SHAPE[1])
    dolp, _ = Encoder("dolp", "paper").encode(frame("polarization", light), (48, 48))
    assert dolp[0, 0, 0] > 25  # stretched before the crop
    full, _ = Encoder("dolp", "paper").encode(frame("polarization", light), SHAPE)
    unit = light[0, :, 1].astype(np.float32)
    expected = ((unit - unit.min()) / (unit.max() - unit.min()) * 255).astype(np.uint8)
    assert np.array_equal(full[0, :, 0], expected)
    assert pixel("dolp", constant("polarization", (0.5, 0.3, 0.1)), preset="paper") == [0, 0, 0]


def test_paper_thermal_takes_eight_bits_as_they_are() -> None:
    assert pixel("thermal", constant("thermal", 77.0, unit="counts"), preset="paper") == [77] * 3
    with pytest.raises(DecodeError, match="radiometric"):
        Encoder("thermal", "paper").encode(constant("thermal", 300.0, unit="K"), (8, 8))


def test_frames_are_left_alone() -> None:
    for name, modality in MODALITIES.items():
        valid = np.ones(SHAPE, np.bool_)
        valid[:20] = False
        image = frame(modality.sensor, unit="counts", valid=valid)
        before = image.data.copy()
        image.data.flags.writeable = False  # as an array over the bytes of a message is
        for size in (SHAPE, (20, 30)):
            Encoder(name).encode(image, size, CAMERA)
        assert np.array_equal(image.data, before)


@pytest.mark.parametrize("preset", ["robot", "paper"])
def test_descriptions_survive_json(preset: Any) -> None:
    for name in MODALITIES if preset == "robot" else PAPER:
        encoder = Encoder(
            name,
            preset,
            depth_range_m=(0.5, 20.0),
            thermal_window_k=(270.0, 310.0),
            thermal_half_life_s=2.0,
        )
        description = json.loads(json.dumps(encoder.describe()))
        assert description["modality"] == name
        again = Encoder.from_description(description)
        assert again.describe() == encoder.describe()
        image = frame(MODALITIES[name].sensor, unit="counts")
        expected, _ = encoder.encode(image, (16, 16), CAMERA)
        assert np.array_equal(again.encode(image, (16, 16), CAMERA)[0], expected)


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"modality": "rgb"},
        {"modality": "rgb", "preset": "robot", "gamma": 2.2},
        {"modality": "radar", "preset": "robot"},
        {"modality": "rgb", "preset": "printed"},
        {"modality": "depth", "preset": "paper"},
        {"modality": "depth", "preset": "robot", "depth_range_m": [1.0]},
        {"modality": "depth", "preset": "robot", "depth_range_m": [2.0, 1.0]},
        {"modality": "depth", "preset": "robot", "depth_range_m": [0.0, 1.0]},
        {"modality": "thermal", "preset": "robot", "thermal_window_k": ["cold", "hot"]},
        {"modality": "thermal", "preset": "robot", "thermal_half_life_s": -1.0},
    ],
)
def test_impossible_descriptions(description: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="expected"):
        Encoder.from_description(description)


def test_impossible_frames() -> None:
    with pytest.raises(DecodeError, match="a frame of depth"):
        Encoder("depth").encode(frame("rgb"), (8, 8))
    with pytest.raises(DecodeError, match="size greater than zero"):
        Encoder("rgb").encode(frame("rgb"), (0, 8))
    with pytest.raises(DecodeError):
        Encoder("rgb").encode(frame("rgb", np.zeros((0, 8, 3), np.uint8)), (8, 8))


@pytest.mark.parametrize(
    ("image", "size", "cut"),
    [
        ((480, 640), (240, 320), False),
        ((1080, 1920), (288, 512), False),
        ((320, 320), (320, 320), False),
        ((480, 640), (320, 320), True),
        ((640, 480), (240, 320), True),
        ((720, 1280), (240, 320), True),
    ],
)
def test_only_the_published_rules_cut_and_only_at_another_aspect(
    image: tuple[int, int], size: tuple[int, int], cut: bool
) -> None:
    assert Encoder("rgb", "paper").crops(image, size) == cut
    assert not Encoder("rgb", "robot").crops(image, size)
