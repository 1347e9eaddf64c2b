"""How each sensor is registered, what is said about it, and how well it fits the truth."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace

import numpy as np
import pytest
from checkout import ROOT, needs_checkout

from unim2_core.data.synthetic import DriveConfig, default_rig
from unim2_core.errors import RigError
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.frames import Frame, FrameSet
from unim2_core.sensing.registrar import Registrar
from unim2_core.sensing.registration import Assumption
from unim2_core.sensing.rig import Extrinsics, Rig, Sensor

CAMERA = Intrinsics(100.0, 100.0, 63.5, 47.5, 128, 96)
GRID = (12, 16)
UNTURNED = (0.0, 0.0, 0.0, 1.0)
SHIFTED = Extrinsics(translation_m=(0.2, 0.0, 0.0), rotation_xyzw=UNTURNED)
TOGETHER = Extrinsics(translation_m=(0.0, 0.0, 0.0), rotation_xyzw=UNTURNED)


def rig(**extrinsics: Extrinsics | None) -> Rig:
    names = ("rgb", "depth", "thermal")
    return Rig(
        sensors={
            name: Sensor(topic=f"/{name}/image", extrinsics=extrinsics.get(name)) for name in names
        }
    )


def frame(sensor: str, value: float = 5.0, camera: Intrinsics | None = CAMERA) -> Frame:
    return Frame(sensor, 1, np.full((96, 128), value, np.float32), camera=camera)


def frames(*without: str, **changes: Frame) -> FrameSet:
    every = {name: frame(name) for name in ("rgb", "depth", "thermal")} | changes
    return FrameSet("rgb", {name: kept for name, kept in every.items() if name not in without})


def shift_of(grid_map) -> float:
    """Mean shift to the right, cells."""
    twins = np.broadcast_to(np.arange(GRID[1]), GRID)
    return float((grid_map.coordinates[..., 0] - twins)[grid_map.valid].mean())


def test_through_depth() -> None:
    registrar = Registrar(rig(depth=TOGETHER, thermal=SHIFTED))
    found = registrar(frames(), GRID)
    # 12.5 pixels focal length at the grid's size, 20 cm, 5 m.
    assert shift_of(found.maps["thermal"]) == pytest.approx(-12.5 * 0.2 / 5, abs=1e-4)
    assert found.maps["depth"] is None
    assert found.measured is not None and found.measured.all()
    near = registrar(frames(depth=frame("depth", 2.0)), GRID)
    assert shift_of(near.maps["thermal"]) == pytest.approx(-12.5 * 0.2 / 2, abs=1e-4)
    assert registrar.methods["thermal"].startswith("registered through depth")
    assert registrar.methods["depth"].startswith("aligned with rgb, as its extrinsics say")


@pytest.mark.parametrize(
    "fallen",
    [
        frames("depth"),
        frames(depth=frame("depth", camera=None)),
    ],
    ids=["no depth", "depth without camera_info"],
)
def test_without_usable_depth_the_assumption_holds(fallen) -> None:
    registrar = Registrar(rig(depth=TOGETHER, thermal=SHIFTED), Assumption(range_m=4.0))
    registrar(frames(), GRID)
    found = registrar(fallen, GRID)
    assert shift_of(found.maps["thermal"]) == pytest.approx(-12.5 * 0.2 / 4, abs=1e-4)
    assert found.measured is None
    assert "without depth" in registrar.methods["thermal"]
    assert "4 m away" in registrar.methods["thermal"]


def test_cells_without_depth_are_where_they_are_assumed() -> None:
    registrar = Registrar(rig(depth=TOGETHER, thermal=SHIFTED), Assumption(range_m=10.0))
    half = np.full((96, 128), 2.0, np.float32)
    half[:, 64:] = np.nan
    found = registrar(frames(depth=replace(frame("depth"), data=half)), GRID)
    assert found.measured is not None
    assert found.measured[:, :7].all() and not found.measured[:, 10:].any()
    coordinates = found.maps["thermal"].coordinates
    shift = coordinates[..., 0] - np.arange(16)
    np.testing.assert_allclose(shift[:, 3:7], -1.25, atol=1e-4)
    np.testing.assert_allclose(shift[:, 10:], -0.25, atol=1e-4)


@pytest.mark.parametrize(
    ("extrinsics", "changes", "reason"),
    [
        (None, {}, "no extrinsics of thermal"),
        (SHIFTED, {"thermal": frame("thermal", camera=None)}, "no camera_info of thermal"),
        (SHIFTED, {"rgb": frame("rgb", camera=None)}, "no camera_info of rgb"),
    ],
)
def test_what_is_not_known_is_taken_as_aligned_and_said(extrinsics, changes, reason) -> None:
    registrar = Registrar(rig(depth=TOGETHER, thermal=extrinsics))
    assert registrar(frames(**changes), GRID).maps["thermal"] is None
    [said] = [sentence for sentence in registrar.news() if sentence.startswith("thermal")]
    assert said == f"thermal: taken as aligned with rgb and scaled to its size: {reason}"


def test_every_sentence_comes_once() -> None:
    registrar = Registrar(rig(depth=TOGETHER, thermal=SHIFTED))
    registrar(frames(), GRID)
    assert len(registrar.news()) == 2
    registrar(frames("depth"), GRID)
    assert len(registrar.news()) == 1
    registrar(frames(), GRID)
    registrar(frames("depth"), GRID)
    assert registrar.news() == []


def test_a_grid_of_another_size_is_stretched_where_it_is_aligned() -> None:
    registrar = Registrar(rig(thermal=TOGETHER))
    for name in ("depth", "thermal"):  # without extrinsics, and aligned
        found = registrar(frames(), GRID, {name: (6, 8)}).maps[name]
        assert found.source == (6, 8) and found.valid.all()
        np.testing.assert_allclose(found.coordinates[0, :3, 0], [-0.25, 0.25, 0.75])


def test_what_hides_behind_something_near_is_not_valid() -> None:
    """A box 1 m away in the middle, a wall at 8 m; the sensor is 20 cm to the right."""
    scene = np.full((96, 128), 8.0, np.float32)
    scene[24:72, 48:80] = 1.0
    registrar = Registrar(rig(depth=TOGETHER, thermal=SHIFTED))
    found = registrar(frames(depth=replace(frame("depth"), data=scene)), GRID).maps["thermal"]
    # In the sensor the box covers 48 - 20 to 80 - 20 pixels: what the reference sees there of
    # the wall, at 2.5 pixels more, is hidden: 30.5 to 48 pixels, cells 4 and 5.
    assert not found.valid[4:8, 4:6].any()
    assert found.valid[4:8, 6:10].all()  # the box
    assert found.valid[4:8, 1:3].all() and found.valid[4:8, 11:].all()
    assert found.valid[:2, 1:].all()


def test_placing_a_sensor() -> None:
    registrar = Registrar(rig(depth=TOGETHER))
    assert registrar(frames(), GRID).maps["thermal"] is None
    registrar.place("thermal", SHIFTED)
    first = registrar(frames("depth"), GRID).maps["thermal"]
    assert first is not None
    with pytest.raises(RigError):
        registrar.place("thermal", Extrinsics(translation_m=(0, 0, 0), rotation_xyzw=(0,) * 4))
    registrar.place("thermal", SHIFTED.model_copy())
    assert registrar(frames("depth"), GRID).maps["thermal"] is first  # nothing computed anew
    registrar.place("thermal", None)
    assert registrar(frames(), GRID).maps["thermal"] is None


def test_bad_extrinsics_and_grids() -> None:
    bad = Extrinsics(translation_m=(float("nan"), 0, 0), rotation_xyzw=UNTURNED)
    with pytest.raises(RigError, match="rigid motion"):
        Registrar(rig(thermal=bad))
    for grid, grids in (((0, 4), {}), (GRID, {"thermal": (3, 0)})):
        with pytest.raises(RigError, match="without cells"):
            Registrar(rig())(frames(), grid, grids)


def test_depth_as_the_reference() -> None:
    turned = rig(rgb=SHIFTED, depth=None).model_copy(update={"reference": "depth"})
    found = Registrar(turned)(replace(frames(), reference="depth"), GRID)
    assert set(found.maps) == {"rgb", "thermal"}
    assert shift_of(found.maps["rgb"]) == pytest.approx(-0.5, abs=1e-4)


def test_a_set_around_another_sensor_is_registered_into_that() -> None:
    """As if the rig had been given with that sensor as its reference."""
    back = SHIFTED.model_copy(
        update={"translation_m": tuple(-metres for metres in SHIFTED.translation_m)}
    )
    turned = rig(rgb=back, depth=back, thermal=None).model_copy(update={"reference": "thermal"})
    around = replace(frames(), reference="thermal")
    registrar = Registrar(rig(depth=TOGETHER, thermal=SHIFTED))
    before = registrar(frames(), GRID).maps["thermal"]
    expected, found = Registrar(turned)(around, GRID), registrar(around, GRID)
    assert set(found.maps) == {"rgb", "depth"}
    for name, own in expected.maps.items():
        np.testing.assert_allclose(found.maps[name].coordinates, own.coordinates)
        np.testing.assert_array_equal(found.maps[name].valid, own.valid)
    assert shift_of(found.maps["rgb"]) == pytest.approx(-shift_of(before), abs=1e-4)
    kept = registrar(frames(), GRID).maps["thermal"]  # and back
    np.testing.assert_array_equal(kept.coordinates, before.coordinates)

    registrar.place("thermal", None)
    assert registrar(around, GRID).maps["rgb"] is None
    assert any("no extrinsics of thermal" in said for said in registrar.news())


# Against the truth of the synthetic world


@pytest.fixture(scope="module")
def measuring():
    path = ROOT / "benchmarks" / "registration.py"
    spec = importlib.util.spec_from_file_location("benchmark_registration", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def scenes(measuring):
    return [
        measuring.scene(DriveConfig(seed=seed, width=320, height=240), 2.0)
        for seed in (20, 21, 22)
    ]


@needs_checkout
@pytest.mark.parametrize("sensor", ["thermal", "polarization"])
@pytest.mark.parametrize("size", [(30, 40), None], ids=["tokens", "image"])
def test_labels_agree_with_the_reference(measuring, scenes, sensor, size) -> None:
    found = measuring.agreements(scenes, default_rig(DriveConfig()), sensor, size)
    nothing, rotation, depth = found["nothing"], found["rotation"], found["depth"]
    assert nothing.everywhere + 0.06 < rotation.everywhere < depth.everywhere - 0.015
    assert nothing.textured + 0.06 < rotation.textured < depth.textured - 0.015
    # As good as the truth: noise and holes of the depth camera cost next to nothing.
    assert depth.textured > found["true depth"].textured - 0.005
    # Of a token grid, mixing tokens costs about 2 % even with the true depth.
    assert depth.textured > (0.97 if size else 0.98)
    assert depth.coverage > 0.75
