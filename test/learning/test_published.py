from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unim2_core.data.data_sets import PUBLISHED_MODALITIES
from unim2_core.errors import ModelError
from unim2_core.learning.objective import Objective
from unim2_core.learning.published import PublishedConfig, published
from unim2_core.model.release_keys import segmenter_state

MODELS = {
    "nyu_small_rgb_depth": ("nyu", "S"),
    "nyu_base_rgb_depth": ("nyu", "B"),
    "mfnet_base_rgb_thermal": ("mfnet", "B"),
    "mfnet_small_rgb_thermal": ("mfnet", "S"),
    "mcubes_small_rgb_aolp": ("mcubes", "IA"),
    "mcubes_small_rgb_nir_dolp": ("mcubes", "IND"),
    "mcubes_small_rgb_nir_aolp_dolp": ("mcubes", "INAD"),
    "nyu_small_rgb_only": ("nyu", "S"),
}


@pytest.fixture(scope="module")
def shapes(parity_dir: Path) -> dict[str, dict[str, Any]]:
    text = (parity_dir.parent / "state_dict_keys.json").read_text(encoding="utf-8")
    return {
        model: {name: tuple(shape) for name, (shape, _) in tensors.items()}
        for model, tensors in json.loads(text).items()
    }


def test_every_published_model_is_tried(shapes: dict[str, Any]) -> None:
    assert set(MODELS) == set(shapes)


@pytest.mark.parametrize("model", MODELS)
def test_networks_and_probes_have_the_release_s_shapes(
    shapes: dict[str, dict[str, Any]], model: str
) -> None:
    theirs = shapes[model]
    config = published(*MODELS[model])
    segmenter = config.segmenter
    if model.endswith("rgb_only"):
        segmenter = replace(segmenter, modalities=("rgb",))
    objective = Objective(segmenter, config.objective, config.classes)
    trained = {
        name: shape
        for name, shape in theirs.items()
        if name.startswith("net.") and not name.startswith("net.model.")
    }
    ours = {name: tuple(t.shape) for name, t in objective.segmenter.state_dict().items()}
    assert ours == segmenter_state(trained, "net.")
    probes = objective.cluster_probe.centers, objective.linear_probe.weight
    wanted = theirs["cluster_probe.clusters"], theirs["linear_probe.weight"]
    assert tuple(tuple(probe.shape) for probe in probes) == wanted
    width = theirs["net.model.cls_token"][-1]
    assert config.segmenter.feature_dim == width
    assert config.backbone == {384: "dinov3_vits16", 768: "dinov3_vitb16"}[width]


def test_the_table() -> None:
    """A second copy of the published table, in its own order: knn, self, random; w."""
    rows = {
        "nyu": ((0.1671, 0.0957, 0.9005), 0.1356, (0.2995, 0.6550, 0.0550), 0.8889),
        "mfnet": ((0.3334, 0.0606, 0.9262), 0.0478, (0.9124, 0.2388, 0.5064), 0.4922),
        "mcubes": ((0.0705, 0.2237, 0.7443), 0.4046, (0.5528, 0.5756, 0.4637), 0.3052),
    }
    shifts = {  # random, knn, self
        "nyu": ((0.5664, 0.6222, 0.7199), (0.2440, 0.4318, 0.1328)),
        "mfnet": ((0.7760, 0.7800, 0.9607), (0.5540, 0.2864, 0.0096)),
        "mcubes": ((0.6375, 0.2830, 0.7865), (0.3037, 0.6230, 0.4694)),
    }
    training = {
        "nyu": (13, 70, 5e-4, 3334),
        "mfnet": (8, 90, 7.88e-5, 4334),
        "mcubes": (20, 320, 1.59e-5, 1334),
    }
    for data, (rgb, rgb_weight, other, weight) in rows.items():
        config = published(data)
        assert config.own_numbers and config.batch == 32
        assert (config.classes, config.code_dim, config.rate, config.steps) == training[data]
        assert config.modalities == PUBLISHED_MODALITIES[data]
        losses = [config.objective.modalities[name] for name in config.modalities]
        assert [(loss.terms.knn, loss.terms.own, loss.terms.random) for loss in losses] == [
            rgb,
            other,
        ]
        assert [(loss.shifts.random, loss.shifts.knn, loss.shifts.own) for loss in losses] == list(
            shifts[data]
        )
        assert [loss.weight for loss in losses] == [rgb_weight, weight]
        assert config.objective.correspondence.samples == 11
        assert config.objective.correspondence.negatives == 5


@pytest.mark.parametrize("variant", ["IN", "ID", "IND", "INAD"])
def test_other_modalities_count_as_the_published_one(variant: str) -> None:
    config, aolp = published("mcubes", variant), published("mcubes")
    names = {"I": "rgb", "N": "nir", "A": "aolp", "D": "dolp"}
    assert config.modalities == tuple(names[letter] for letter in variant)
    assert not config.own_numbers and config.segmenter.fusion == "progressive"
    for name in config.modalities[1:]:
        assert config.objective.modalities[name] == aolp.objective.modalities["aolp"]


def test_four_classes_and_what_is_not_there() -> None:
    four = published("nyu4")
    assert isinstance(four, PublishedConfig)
    assert four.classes == 4 and four.segmenter == published("nyu").segmenter
    for data, variant in (("kitti", None), ("nyu", "L"), ("mcubes", "S")):
        with pytest.raises(ModelError, match="mcubes: IA, IN, ID, IND, INAD"):
            published(data, variant)
