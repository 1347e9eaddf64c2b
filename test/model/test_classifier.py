"""A classifier out of a bundle is the one that went in."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

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
from unim2_core.model.classifier import PREFIX, Classifier
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
