"""What is written is what was learnt: graphs, weights, stored answers, manifest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from picture_samples import Pictures
from safetensors.torch import load_file

from unim2_core.data.pictures import Picture
from unim2_core.errors import ModelError
from unim2_core.inference import bundling
from unim2_core.inference.bundling import LOOKED_AT, Trained, write_bundle
from unim2_core.inference.engine import Engine
from unim2_core.learning.learner import Learned
from unim2_core.learning.methods import recipe
from unim2_core.learning.objective import Objective
from unim2_core.model.bundle import TRAINING, Bundle
from unim2_core.model.classifier import Classifier
from unim2_core.model.frozen import FrozenBackbone
from unim2_core.model.probes import resized
from unim2_core.sensing.modalities import Encoder

SIZE, CLUSTERS = (32, 48), 5
ENCODINGS = {name: Encoder(name).describe() for name in ("rgb", "thermal")}


def colors(draw: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Patches of one colour each, so that places differ: (H, W, 3) uint8."""
    patches = draw.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
    return patches.repeat(8, axis=0).repeat(8, axis=1)


class Late(Pictures):
    """Thermal comes with the third picture."""

    def picture(self, number: int) -> Picture:
        draw = np.random.default_rng(number)
        images = {name: colors(draw, SIZE) for name in ("rgb", "thermal")[: 1 + (number >= 2)]}
        return Picture(f"picture {number}", images)


def pictures(count: int = 10) -> Late:
    return Late(count=count, encodings=ENCODINGS, size=SIZE)


def learned(backbone: FrozenBackbone) -> Learned:
    """A network with random weights, whose places fall into several clusters."""
    how = recipe("unim2", ("rgb", "thermal"), backbone.embed_dim, CLUSTERS)
    torch.manual_seed(0)
    objective = Objective(how.network, how.objective, CLUSTERS)
    torch.nn.init.normal_(objective.segmenter.fusion.stand_in, std=0.1)
    shape = (2, backbone.embed_dim)
    classifier = Classifier(
        objective.segmenter,
        torch.randn(CLUSTERS, how.network.code_dim),
        torch.zeros(shape),
        torch.ones(shape),
    )
    images = [picture.images for picture in pictures() if len(picture.images) == 2]
    tokens = {
        name: torch.from_numpy(backbone(np.stack([each[name] for each in images])))
        for name in ("rgb", "thermal")
    }
    codes = classifier.codes(tokens).permute(0, 2, 3, 1).flatten(0, 2)
    mean = torch.nn.functional.normalize(codes.mean(dim=0), dim=0)
    across = codes - (codes @ mean)[:, None] * mean  # what places do not have in common
    chosen = across[:: len(across) // CLUSTERS][:CLUSTERS]
    classifier.prototypes = torch.nn.functional.normalize(chosen, dim=1)
    return Learned(classifier, 0.25, np.full(CLUSTERS, 0.2), objective, {"preset": "robot"})


@pytest.fixture(scope="module")
def backbone() -> FrozenBackbone:
    torch.set_num_threads(1)
    return FrozenBackbone("texture")


@pytest.fixture(scope="module")
def made(backbone: FrozenBackbone) -> Learned:
    return learned(backbone)


@pytest.fixture(scope="module")
def written(
    backbone: FrozenBackbone, made: Learned, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    return write_bundle(
        tmp_path_factory.mktemp("written") / "m.unim2",
        pictures(),
        backbone,
        Trained.network_of(made, backbone, "UniM2"),
        {"pictures": 10},
        {"thermal": "by a plane"},
    )


@pytest.mark.parametrize("missing", [None, "rgb", "thermal"])
@pytest.mark.parametrize("size", [SIZE, (40, 24)])
def test_the_engine_decides_as_what_was_learnt(
    written: Bundle,
    made: Learned,
    backbone: FrozenBackbone,
    missing: str | None,
    size: tuple[int, int],
) -> None:
    draw = np.random.default_rng(5)
    images = np.stack([colors(draw, size) for _ in range(2)])
    engine = Engine(written, threads=1)
    tokens = engine.tokens(images)
    presence = np.ones(tokens.shape[:3], np.float32)
    if missing:
        presence[("rgb", "thermal").index(missing)] = 0
    classes, *_ = engine.classify(tokens, presence)
    own = torch.from_numpy(backbone(images))
    named, seen = (
        {name: part[index : index + 1] for index, name in enumerate(("rgb", "thermal"))}
        for part in (own, torch.from_numpy(presence))
    )
    scores = resized(made.classifier.scores(named, seen), tuple(classes.shape))[0]
    best = scores.topk(2, dim=0).values
    clear = (best[0] - best[1] > 1e-3 * best[0].abs()).numpy()
    assert clear.mean() > 0.97
    assert (classes == scores.argmax(dim=0).numpy())[clear].all()
    if not missing:
        assert len(np.unique(classes)) > 2


def test_everything_that_was_learnt_is_in_it(written: Bundle, made: Learned) -> None:
    state = load_file(written.path / TRAINING)
    wanted = made.objective.state_dict()
    assert set(state) == set(wanted)
    assert all(state[name].equal(part) for name, part in wanted.items())
    loaded = Classifier.load(written)
    for name, part in made.classifier.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], part)
    weights = written.weights()
    for name, array in made.classifier.head_inputs(0.25).items():
        np.testing.assert_array_equal(weights[name], array)


def test_the_manifest_says_how_it_came_about(written: Bundle, backbone: FrozenBackbone) -> None:
    manifest = written.manifest
    assert (manifest.name, manifest.reference, manifest.method) == ("m", "rgb", "UniM2")
    assert [entry.encoding for entry in manifest.modalities] == list(ENCODINGS.values())
    assert manifest.infer_size == SIZE
    assert manifest.backbone.baseline and manifest.backbone.name == backbone.name
    assert (manifest.backbone.patch_size, manifest.backbone.embed_dim) == (8, backbone.embed_dim)
    assert [label.id for label in manifest.labels] == list(range(CLUSTERS))
    assert len({label.color for label in manifest.labels}) == CLUSTERS
    assert manifest.training == {
        "pictures": 10,
        "preset": "robot",
        "shares": [0.2] * CLUSTERS,
        "registration": {"thermal": "by a plane"},
    }


def test_answers_are_those_to_a_picture_with_every_modality(
    written: Bundle, backbone: FrozenBackbone
) -> None:
    stored = written.parity()
    third = pictures().picture(2).images
    np.testing.assert_array_equal(stored["images"], np.stack([third["rgb"], third["thermal"]]))
    np.testing.assert_allclose(stored["tokens"], backbone(stored["images"]), rtol=1e-5, atol=1e-6)


class Endless(Pictures):
    """Thermal never comes."""

    def __iter__(self) -> Iterator[Picture]:
        while True:
            self.decoded += 1
            yield Picture("one", {"rgb": np.full((*SIZE, 3), self.decoded, np.uint8)})


def test_a_picture_with_every_modality_is_not_looked_for_for_ever() -> None:
    source = Endless(encodings=ENCODINGS, size=SIZE)
    images = bundling._example(source, ["rgb", "thermal"])
    assert source.decoded == LOOKED_AT
    assert (images[0] == 1).all() and (images[1] == 0).all()  # the first of the best


def test_a_place_that_is_taken_and_a_source_without_pictures_are_refused(
    written: Bundle, made: Learned, backbone: FrozenBackbone, tmp_path: Path
) -> None:
    trained = Trained.network_of(made, backbone, "UniM2")
    with pytest.raises(ModelError, match="exists"):
        write_bundle(written.path, pictures(), backbone, trained)
    assert Bundle(written.path).version == written.version
    with pytest.raises(ModelError, match="no picture"):
        write_bundle(tmp_path / "n.unim2", pictures(0), backbone, trained)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_is_written_whole_or_not_at_all(
    made: Learned, backbone: FrozenBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bundling, "export_backbone", lambda *_, **__: None)
    monkeypatch.setattr(bundling, "export_head", full)
    trained = replace(Trained.network_of(made, backbone, "UniM2"), training={})
    with pytest.raises(Exception, match="No space left"):
        write_bundle(tmp_path / "n.unim2", pictures(), backbone, trained)
    assert list(tmp_path.iterdir()) == []
