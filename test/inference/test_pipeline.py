from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scenes import HEIGHT, WIDTH, frame_sets

from unim2_core.errors import ModelError
from unim2_core.inference.pipeline import Pipeline
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.frames import Frame, FrameSet
from unim2_core.sensing.rig import Rig


@pytest.fixture
def pipeline(model_path: Path) -> Pipeline:
    return Pipeline(Bundle(model_path))


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
    np.testing.assert_array_equal(kept.classes, Pipeline(pipeline.bundle)(held).classes)


def test_a_rig_without_the_models_reference_is_refused(pipeline: Pipeline) -> None:
    rig = Rig.parse({"reference": "thermal", "sensors": {"thermal": {"topic": "/t/image"}}})
    with pytest.raises(ModelError, match="reference sensor rgb"):
        pipeline.assumptions(rig)


def test_assumptions_are_said(pipeline: Pipeline) -> None:
    assert any("aligned" in text for text in pipeline.assumptions(Rig.default()))
    rig = Rig.default(("rgb",))
    assert any("no sensor thermal" in text for text in pipeline.assumptions(rig))


def test_a_set_without_any_of_the_models_modalities_stays_unlabelled(pipeline: Pipeline) -> None:
    frames = next(frame_sets(1))
    nir = Frame("nir", frames.stamp_ns, np.zeros((HEIGHT, WIDTH), np.float32))
    result = pipeline(FrameSet("nir", {"nir": nir}))
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
    from unim2_core.inference.bundling import train_on
    from unim2_core.learning.training_free import KMeansConfig

    def with_depth(camera: Intrinsics | None) -> Iterator[FrameSet]:
        for frames in frame_sets(3):
            metres = np.linspace(2, 8, HEIGHT, dtype=np.float32)[:, None].repeat(WIDTH, axis=1)
            depth = Frame("depth", frames.stamp_ns, metres, camera=camera)
            yield FrameSet("rgb", {"rgb": frames.frames["rgb"], "depth": depth})

    camera = Intrinsics(fx=80, fy=80, cx=48, cy=32, width=WIDTH, height=HEIGHT)
    config = KMeansConfig(modalities=("rgb", "hha"), clusters=3)
    calibrated = train_on(with_depth(camera), tmp_path / "hha.unim2", config)
    result = Pipeline(calibrated)(next(with_depth(None)))
    assert result.used == ("rgb",)
    assert "camera_info" in result.missing["hha"]
