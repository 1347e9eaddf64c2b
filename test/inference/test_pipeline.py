from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scenes import (
    HEIGHT,
    PERIOD_NS,
    START_NS,
    WIDTH,
    frame_sets,
    rgb_image,
    thermal_image,
    train_on,
)

from unim2_core.data.drives import synchronised
from unim2_core.errors import DecodeError, ModelError
from unim2_core.inference.pipeline import Encoded, Pipeline
from unim2_core.model.bundle import MANIFEST, Bundle
from unim2_core.sensing.bag_messages import camera_info_message, image_message
from unim2_core.sensing.bag_writer import BagWriter
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.frames import Frame, FrameSet
from unim2_core.sensing.intake import Intake
from unim2_core.sensing.rig import Rig


@pytest.fixture
def pipeline(model_path: Path) -> Pipeline:
    return Pipeline(Bundle(model_path), Rig.default(("rgb", "thermal")), "onnxruntime")


def _without(frames: FrameSet, sensor: str) -> FrameSet:
    left = {name: frame for name, frame in frames.frames.items() if name != sensor}
    return replace(frames, frames=left, missing={sensor: "down"})


def test_classes_have_the_reference_images_size_and_follow_the_scene(pipeline: Pipeline) -> None:
    result = pipeline(next(frame_sets(1)))
    assert result.classes.shape == result.confidence.shape == (HEIGHT, WIDTH)
    assert result.used == ("rgb", "thermal")
    above, below = result.classes[8:24].ravel(), result.classes[-16:, 40:].ravel()
    assert np.bincount(above).argmax() != np.bincount(below).argmax()


def test_a_missing_modality_is_named_and_not_fatal(pipeline: Pipeline) -> None:
    whole = next(frame_sets(1))
    result = pipeline(_without(whole, "thermal"))
    assert result.used == ("rgb",)
    assert result.missing == {"thermal": "down"}
    agreement = (result.classes == pipeline(whole).classes).mean()
    assert agreement > 0.5


def test_an_image_that_did_not_change_is_not_computed_again(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    tokens = pipeline.engine.tokens
    monkeypatch.setattr(
        pipeline.engine, "tokens", lambda images: calls.append(len(images)) or tokens(images)
    )
    first, second = frame_sets(2)
    held = replace(second, frames={**second.frames, "thermal": first.frames["thermal"]})
    pipeline(first)
    assert sum(calls) == 2
    kept = pipeline(held)
    assert sum(calls) == 3
    np.testing.assert_array_equal(
        kept.classes, Pipeline(pipeline.bundle, pipeline.rig, "onnxruntime")(held).classes
    )


def test_a_slow_auxiliary_costs_a_pass_for_each_of_its_images_alone(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RGB at 30 Hz, thermal at 10: with four such auxiliaries it is 7 passes of 15."""
    settling, frames, period_ns = 12, 36, PERIOD_NS // 3
    with BagWriter(tmp_path / "drive") as writer:
        for index in range(frames):
            stamp_ns = START_NS + index * period_ns
            message = image_message(rgb_image(index), "rgb8", stamp_ns, "rgb")
            writer.write("/rgb/image", message, stamp_ns + 5_000_000)
            if index % 3 == 0:
                message = image_message(thermal_image(index), "mono16", stamp_ns, "thermal")
                writer.write("/thermal/image", message, stamp_ns + 4_000_000)
    calls: list[int] = []
    tokens = pipeline.engine.tokens
    monkeypatch.setattr(
        pipeline.engine, "tokens", lambda images: calls.append(len(images)) or tokens(images)
    )
    intake = Intake(pipeline.rig)
    with BagReader(tmp_path / "drive") as reader:
        used = []
        for matched in synchronised(reader, intake):
            if len(used) == settling:  # until then the synchronizer learns how slow thermal is
                calls.clear()
            used.append(pipeline(intake.decode(matched)).used)
    assert used[settling:] == [("rgb", "thermal")] * (frames - settling)
    assert sum(calls) == (frames - settling) * 4 // 3


def test_a_rig_without_the_models_reference_is_refused(pipeline: Pipeline) -> None:
    rig = Rig.parse({"reference": "thermal", "sensors": {"thermal": {"topic": "/t/image"}}})
    with pytest.raises(ModelError, match="reference sensor rgb"):
        Pipeline(pipeline.bundle, rig)


def test_what_the_rig_can_never_give_is_said(pipeline: Pipeline) -> None:
    assert pipeline.shortcomings == []
    [sentence] = Pipeline(pipeline.bundle, Rig.default(("rgb",)), "onnxruntime").shortcomings
    assert "no sensor thermal" in sentence


def test_how_a_sensor_is_registered_is_said_once(pipeline: Pipeline) -> None:
    first, second = frame_sets(2)
    pipeline(first)
    [sentence] = pipeline.news()
    assert "thermal: taken as aligned with rgb" in sentence
    pipeline(second)
    assert pipeline.news() == []
    assert list(pipeline.registration) == ["thermal"]


@pytest.mark.parametrize(("rotation_xyzw", "seen"), [((0, 0, 0, 1), True), ((0, 1, 0, 0), False)])
def test_a_sensor_counts_only_where_it_looks(
    pipeline: Pipeline, rotation_xyzw: tuple[int, ...], seen: bool
) -> None:
    extrinsics = {"translation_m": [0, 0, 0], "rotation_xyzw": rotation_xyzw}
    sensors = {"rgb": {"topic": "/rgb"}, "thermal": {"topic": "/t", "extrinsics": extrinsics}}
    placed = Pipeline(pipeline.bundle, Rig.parse({"sensors": sensors}), "onnxruntime")
    frames = next(frame_sets(1))
    cameras = {
        "rgb": Intrinsics(fx=80, fy=80, cx=47.5, cy=31.5, width=WIDTH, height=HEIGHT),
        "thermal": Intrinsics(
            fx=40, fy=40, cx=23.5, cy=15.5, width=WIDTH // 2, height=HEIGHT // 2
        ),
    }
    calibrated = replace(
        frames,
        frames={
            name: replace(frame, camera=cameras[name]) for name, frame in frames.frames.items()
        },
    )
    expected = frames if seen else _without(frames, "thermal")
    np.testing.assert_array_equal(placed(calibrated).classes, pipeline(expected).classes)


def test_what_was_not_measured_counts_as_missing(pipeline: Pipeline) -> None:
    frames = next(frame_sets(1))
    thermal = frames.frames["thermal"]
    unseen = np.zeros(thermal.data.shape, np.bool_)
    nothing = replace(thermal, valid=unseen, stamp_ns=thermal.stamp_ns + 1)
    blind = replace(frames, frames={**frames.frames, "thermal": nothing})
    expected = pipeline(_without(frames, "thermal")).classes
    seen = pipeline(frames).classes
    found = pipeline(blind).classes
    np.testing.assert_array_equal(found, expected)
    assert (found != seen).any()


def test_depth_is_decoded_where_it_tells_how_others_are_registered(pipeline: Pipeline) -> None:
    extrinsics = {"translation_m": [0.1, 0, 0], "rotation_xyzw": [0, 0, 0, 1]}
    sensors = {name: {"topic": f"/{name}/image"} for name in ("rgb", "thermal", "depth", "nir")}
    assert set(Pipeline(pipeline.bundle, Rig.parse({"sensors": sensors})).rig.sensors) == {
        "rgb",
        "thermal",
    }
    sensors["thermal"]["extrinsics"] = extrinsics
    assert set(Pipeline(pipeline.bundle, Rig.parse({"sensors": sensors})).rig.sensors) == {
        "rgb",
        "thermal",
        "depth",
    }


def test_a_set_without_any_of_the_models_modalities_stays_unlabelled(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "encode", lambda _: Encoded({}, {"rgb": "no calibration"}))
    result = pipeline(next(frame_sets(1)))
    assert (result.classes == 255).all()
    assert not result.confidence.any()


def test_the_picture_of_a_reference_without_colours_is_what_the_model_saw(
    pipeline: Pipeline,
) -> None:
    frames = next(frame_sets(1))
    turned = replace(frames, reference="thermal")
    picture = pipeline(turned).picture(turned)
    assert (picture.shape, picture.dtype) == ((HEIGHT // 2, WIDTH // 2, 3), np.uint8)
    assert picture[-8:, 10:20].mean() > picture[:8].mean() + 10  # warm is brighter
    assert pipeline(frames).picture(frames) is frames.frames["rgb"].data


def test_a_modality_without_its_calibration_is_missing(pipeline: Pipeline, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    rig = Rig.default(("rgb", "depth"))
    k = np.array([[80, 0, 48], [0, 80, 32], [0, 0, 1]])
    with BagWriter(tmp_path / "drive") as bag:
        for index in range(3):
            stamp = START_NS + index * PERIOD_NS
            metres = np.linspace(2, 8, HEIGHT, dtype=np.float32)[:, None].repeat(WIDTH, axis=1)
            info = camera_info_message(WIDTH, HEIGHT, k, np.zeros(5), stamp, "depth")
            bag.write("/rgb/image", image_message(rgb_image(index), "rgb8", stamp, "c"), stamp)
            bag.write("/depth/camera_info", info, stamp)
            bag.write("/depth/image", image_message(metres, "32FC1", stamp, "depth"), stamp)
    model = train_on(tmp_path / "drive", rig, ("rgb", "hha"), tmp_path / "hha.unim2", clusters=3)
    frames = next(frame_sets(1))
    depth = Frame("depth", frames.stamp_ns, np.ones((HEIGHT, WIDTH), np.float32))
    result = Pipeline(Bundle(model), rig)(
        FrameSet("rgb", {"rgb": frames.frames["rgb"], "depth": depth})
    )
    assert result.used == ("rgb",)
    assert "camera_info" in result.missing["hha"]


def test_a_model_that_would_crop_the_image_says_so(model_path: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(model_path, tmp_path / "paper.unim2"))
    bundle = Bundle(copy)
    encoding = {"modality": "rgb", "preset": "paper"}
    entries = (bundle.manifest.modalities[0].model_copy(update={"encoding": encoding}),)
    rest = bundle.manifest.modalities[1:]
    manifest = bundle.manifest.model_copy(update={"modalities": entries + rest})
    (copy / MANIFEST).write_text(manifest.model_dump_json())
    pipeline = Pipeline(Bundle(copy), Rig.default(("rgb",)))

    def frames(image: np.ndarray) -> FrameSet:
        return FrameSet("rgb", {"rgb": Frame("rgb", START_NS, image)})

    assert pipeline(frames(rgb_image(0))).classes.shape == (HEIGHT, WIDTH)
    pipeline = Pipeline(Bundle(copy), Rig.default(("rgb",)))
    with pytest.raises(DecodeError, match="cut off"):
        pipeline(frames(rgb_image(0)[:, : WIDTH // 2]))
