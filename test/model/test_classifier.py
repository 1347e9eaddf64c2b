"""A classifier decides as its network does, and one out of a bundle is the one that went in."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from safetensors.torch import save_file

from unim2_core.errors import ModelError
from unim2_core.model.bundle import (
    TRAINING,
    BackboneEntry,
    Bundle,
    Label,
    Manifest,
    ModalityEntry,
)
from unim2_core.model.classifier import PREFIX, Classifier, full_margin
from unim2_core.model.segmenter import Segmenter, SegmenterConfig

NAMES, DIM, CLUSTERS = ("rgb", "thermal"), 6, 4
CONFIG = SegmenterConfig(NAMES, DIM, 5, stand_in=True)


def classifier() -> Classifier:
    torch.manual_seed(0)
    mean, scale = torch.randn(2, DIM), torch.rand(2, DIM) + 0.5
    return Classifier(Segmenter(CONFIG), torch.randn(CLUSTERS, 5), mean, scale)


def bundle(path: Path, made: Classifier, network: dict | None, state: dict | None) -> Bundle:
    manifest = Manifest(
        name="m",
        reference="rgb",
        modalities=tuple(ModalityEntry(name=name, sensor=name, encoding={}) for name in NAMES),
        backbone=BackboneEntry(name="b", patch_size=8, embed_dim=DIM, sha256="", baseline=True),
        method="by hand",
        infer_size=(16, 24),
        stride=2,
        labels=tuple(Label(id=i, name=str(i), color=(0, 0, 0)) for i in range(CLUSTERS)),
        network=network,
    )

    def fill(folder: Path) -> tuple[Manifest, dict]:
        if state is not None:
            save_file(state, folder / TRAINING)
        return manifest, {}

    return Bundle.write(path, fill, made.head_inputs(1.0))


def state_of(made: Classifier) -> dict:
    own = {f"{PREFIX}{name}": part for name, part in made.segmenter.state_dict().items()}
    return {**own, "cluster_probe.centers": torch.zeros(CLUSTERS, 5)}


def test_what_was_written_is_what_is_loaded(tmp_path: Path) -> None:
    made = classifier()
    loaded = Classifier.load(bundle(tmp_path / "m.unim2", made, asdict(CONFIG), state_of(made)))
    assert loaded.segmenter.config == CONFIG
    assert not loaded.segmenter.training
    tokens = {name: torch.randn(2, 3, 4, DIM) for name in NAMES}
    presence = {name: (torch.rand(2, 3, 4) < 0.7).float() for name in NAMES}
    torch.testing.assert_close(loaded.scores(tokens, presence), made.scores(tokens, presence))
    assert loaded.scores(tokens).shape == (2, CLUSTERS, 3, 4)


@pytest.mark.parametrize(
    ("network", "change", "expected"),
    [
        (None, {}, "holds no network"),
        (asdict(CONFIG), None, "No such file"),
        (asdict(CONFIG) | {"code_dim": 7}, {}, "size mismatch|Error"),
        (asdict(CONFIG) | {"attention": True}, {}, "attention"),
        (asdict(CONFIG) | {"fusion": "sum"}, {}, "Unexpected|Error"),
    ],
)
def test_what_cannot_be_loaded_is_explained(
    tmp_path: Path, network: dict | None, change: dict | None, expected: str
) -> None:
    made = classifier()
    state = None if change is None else state_of(made)
    written = bundle(tmp_path / "m.unim2", made, network, state)
    with pytest.raises(ModelError, match=expected):
        Classifier.load(written)


def test_scores_are_those_of_places_one_by_one() -> None:
    made = classifier()
    torch.nn.init.normal_(made.segmenter.fusion.stand_in)
    tokens = {name: torch.randn(2, 3, 4, DIM) for name in NAMES}
    presence = {name: torch.rand(2, 3, 4) < 0.6 for name in NAMES}
    scores, margins = made.scores(tokens, presence), made.margins(tokens, presence)
    codes = made.codes(tokens, presence)
    assert (codes.shape, scores.shape) == ((2, 5, 3, 4), (2, CLUSTERS, 3, 4))
    assert margins.shape == (2, 3, 4)
    for image, y, x in np.ndindex(2, 3, 4):
        features = {}
        for index, name in enumerate(NAMES):
            token = (tokens[name][image, y, x] - made.mean[index]) * made.scale[index]
            features[name] = token[None, :, None, None]
        there = {name: presence[name][image, y, x].float()[None, None, None] for name in NAMES}
        with torch.no_grad():
            code = made.segmenter(features, presence=there).code[0, :, 0, 0]
        torch.testing.assert_close(codes[image, :, y, x], code, rtol=1e-4, atol=1e-5)
        cosines = [float(code @ p / (code.norm() * p.norm())) for p in made.prototypes]
        expected = [cosine * float(code.norm()) for cosine in cosines]
        found = scores[image, :, y, x]
        torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-5)
        best, second = sorted(cosines)[:-3:-1]
        assert float(margins[image, y, x]) == pytest.approx(best - second, abs=1e-5)


def test_what_is_not_seen_says_nothing() -> None:
    made = classifier()
    tokens = {name: torch.randn(1, 2, 2, DIM) for name in NAMES}
    nowhere = {"rgb": torch.ones(1, 2, 2), "thermal": torch.zeros(1, 2, 2)}
    other = {**tokens, "thermal": torch.full((1, 2, 2, DIM), 1e4)}
    assert made.codes(other, nowhere).equal(made.codes(tokens, nowhere))
    assert not made.codes(other).equal(made.codes(tokens))


def test_prototypes_count_by_direction_alone_and_nothing_trains() -> None:
    torch.manual_seed(0)
    segmenter = Segmenter(CONFIG).train()
    prototypes = torch.randn(CLUSTERS, 5, requires_grad=True)
    lengths = torch.tensor([[0.1], [1.0], [7.0], [30.0]])
    zeros, ones = torch.zeros(2, DIM), torch.ones(2, DIM)
    made = Classifier(segmenter, prototypes * lengths, zeros, ones)
    same = Classifier(segmenter, prototypes, zeros, ones)
    torch.testing.assert_close(made.prototypes, same.prototypes)
    torch.testing.assert_close(made.prototypes.norm(dim=1), torch.ones(CLUSTERS))
    assert not made.segmenter.training
    tokens = {name: torch.randn(1, 2, 2, DIM) for name in NAMES}
    assert not made.scores(tokens).requires_grad


def test_the_inputs_of_the_head_are_float32_and_its_own() -> None:
    made = classifier()
    inputs = made.head_inputs(0.25)
    assert all(array.dtype == np.float32 for array in inputs.values())
    assert all(array.flags.c_contiguous for array in inputs.values())
    assert inputs["full_margin"] == np.float32(0.25) and inputs["full_margin"].shape == ()
    assert made.head_inputs(0.0)["full_margin"] > 0  # it divides
    np.testing.assert_array_equal(inputs["valid"], np.ones(CLUSTERS))
    np.testing.assert_array_equal(inputs["mean"], made.mean)
    np.testing.assert_array_equal(inputs["scale"], made.scale)
    np.testing.assert_array_equal(inputs["prototypes"], made.prototypes)


def test_nine_places_in_ten_are_below_the_full_margin() -> None:
    margins = np.random.default_rng(0).random(10_000).astype(np.float32)
    assert (margins < full_margin(margins)).mean() == pytest.approx(0.9, abs=1e-3)
    assert full_margin(np.zeros(0, np.float32)) == 1.0
