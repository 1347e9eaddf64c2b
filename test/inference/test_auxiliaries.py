"""Auxiliary modalities at half resolution: a quarter of the pixels, in the same grid."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from scenes import frame_sets

from unim2_core.errors import ModelError
from unim2_core.inference.auxiliaries import TokenReader, doubled
from unim2_core.inference.pipeline import Pipeline
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.rig import Rig

RIG = Rig.default(("rgb", "thermal"))


@pytest.mark.parametrize("shape", [(1, 1, 4), (2, 5, 3), (6, 4, 2)])
def test_doubling_is_opencvs_bilinear_resizing(shape: tuple[int, int, int]) -> None:
    tokens = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    size = (2 * shape[1], 2 * shape[0])
    expected = cv2.resize(tokens, size, interpolation=cv2.INTER_LINEAR).reshape(*size[::-1], -1)
    found = doubled(doubled(tokens, 0), 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_only_other_sensors_than_the_reference_are_halved(
    model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels: dict[bool, list[int]] = {}
    frames = next(frame_sets(1))
    answers = {}
    for half in (False, True):
        pipeline = Pipeline(Bundle(model_path), RIG, "onnxruntime", half_auxiliaries=half)
        assert ("half" in pipeline.settings) is half
        tokens, seen = pipeline.engine.tokens, pixels.setdefault(half, [])
        monkeypatch.setattr(
            pipeline.engine,
            "tokens",
            lambda images, seen=seen, tokens=tokens: (
                seen.append(images.shape[1] * images.shape[2]) or tokens(images)
            ),
        )
        answers[half] = pipeline(frames)
    assert pixels[True] == [pixels[False][0], pixels[False][1] // 4]
    assert answers[True].used == answers[False].used == ("rgb", "thermal")
    assert (answers[True].classes == answers[False].classes).mean() > 0.8


def test_the_reference_answers_as_before(model_path: Path) -> None:
    frames = next(frame_sets(1))
    alone = replace(frames, frames={"rgb": frames.frames["rgb"]}, missing={"thermal": "down"})
    full, half = (
        Pipeline(Bundle(model_path), RIG, "onnxruntime", half_auxiliaries=half)(alone)
        for half in (False, True)
    )
    np.testing.assert_array_equal(full.classes, half.classes)


def test_a_size_that_cannot_be_halved_is_refused(model_path: Path) -> None:
    pipeline = Pipeline(Bundle(model_path), RIG, "onnxruntime")
    manifest = pipeline.bundle.manifest
    patch = manifest.backbone.patch_size
    size = (3 * patch, 4 * patch)
    TokenReader(pipeline.engine, manifest, size)
    with pytest.raises(ModelError, match=f"multiples of {2 * patch} pixels"):
        TokenReader(pipeline.engine, manifest, size, half_auxiliaries=True)
