"""A served model on pictures: what it is told, what is counted, and the published last step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from picture_samples import CLASSES, DIM, PATCH, Means, Pictures, picture

pytest.importorskip("scipy", reason="scipy is not installed: pip install 'unim2[train]'")

from unim2_core.data.pictures import Picture
from unim2_core.errors import DataError
from unim2_core.evaluation.measurement import measure
from unim2_core.evaluation.report import LABELS, NO_CLASS, confusion_shares, figures
from unim2_core.evaluation.runner import Tally
from unim2_core.model.bundle import BackboneEntry, Label, Manifest, ModalityEntry

COUNT = 10


def manifest(clusters: int = 3, names: tuple[str, ...] = ("thermal", "rgb", "nir")) -> Manifest:
    return Manifest(
        name="m",
        reference="rgb",
        modalities=tuple(ModalityEntry(name=name, sensor=name, encoding={}) for name in names),
        backbone=BackboneEntry(
            name="means", patch_size=PATCH, embed_dim=DIM, sha256="", baseline=True
        ),
        method="by hand",
        infer_size=(16, 24),
        stride=PATCH,
        labels=tuple(
            Label(id=index, name=f"cluster {index}", color=(0, 0, 0)) for index in range(clusters)
        ),
    )


class Engine:
    """Cluster 2 where the red mean is above a half, 0 below, 255 where nothing is seen."""

    batched = False

    def __init__(self) -> None:
        self.backbone, self.told = Means(), []

    def tokens(self, images: np.ndarray) -> np.ndarray:
        return self.backbone(images)

    def classify(self, tokens: np.ndarray, presence: np.ndarray) -> tuple[np.ndarray, None]:
        self.told.append((tokens, presence))
        mean = tokens[..., 0].sum(0) / np.maximum(presence.sum(0), 1)
        found = np.where(mean > np.median(mean), 2, 0)
        return np.where(presence.sum(0) > 0, found, 255).astype(np.uint8), None


def test_the_head_is_told_of_the_members_of_a_subset_only() -> None:
    engine, steps = Engine(), []
    subsets = {"both": ("rgb", "thermal"), "rgb": ("rgb",), "warm": ("thermal",)}
    found = measure(engine, manifest(), Pictures(), subsets, progress=steps.append)
    assert steps == list(range(1, COUNT + 1))
    labelled = [number for number in range(COUNT) if picture(number).labels is not None]
    assert (found.pictures, found.unlabelled) == (len(labelled), COUNT - len(labelled))
    there = [number for number in labelled if "thermal" in picture(number).images]
    assert found.seen == {"thermal": len(there), "rgb": len(labelled), "nir": 0}
    assert engine.backbone.images == len(labelled) + len(there)  # once, not once a subset
    assert len(engine.told) == len(labelled) * len(subsets)
    for number, both, only_rgb, warm in zip(
        labelled, *(engine.told[part::3] for part in range(3)), strict=True
    ):
        thermal = float(number in there)
        for (tokens, presence), expected in (
            (both, (thermal, 1, 0)),
            (only_rgb, (0, 1, 0)),
            (warm, (thermal, 0, 0)),
        ):
            assert presence.min((1, 2)).tolist() == presence.max((1, 2)).tolist() == [*expected]
            assert (tokens != 0).any(axis=3).tolist() == (presence > 0).tolist()
    coverage = {name: tally.coverage for name, tally in found.tallies.items()}
    assert coverage == {"both": 1, "rgb": 1, "warm": pytest.approx(len(there) / len(labelled))}


def test_tokens_are_those_that_a_store_would_hold(tmp_path: Path) -> None:
    """Maps, holes and missing images: one rule for training, robot and measurement."""

    class Labelled(Pictures):
        def picture(self, number: int) -> Picture:
            made = super().picture(number)
            labels = np.zeros(self.size, np.uint8)
            return Picture(made.name, made.images, made.valid, made.maps, labels, number)

    pytest.importorskip("torch", reason="the cache runs a backbone")
    from unim2_core.learning.feature_cache import open_features

    engine = Engine()
    names = ("rgb", "thermal")
    measure(engine, manifest(names=names), Labelled(), {"both": names})
    store = open_features(Labelled(), Means(), tmp_path)
    for row, (tokens, presence) in enumerate(engine.told):
        for index, name in enumerate(names):
            np.testing.assert_array_equal(store.presence[name][row], presence[index] > 0)
            kept = tokens[index].astype(np.float16)
            np.testing.assert_array_equal(store.tokens[name][row], kept)


@pytest.mark.parametrize(
    "lacking",
    [{"classes": None}, {"label_size": None}, {"count": 0}],
)
def test_without_labels_nothing_is_measured(lacking: dict) -> None:
    with pytest.raises(DataError, match="nothing to measure"):
        measure(Engine(), manifest(), Pictures(**lacking), {"all": ("rgb",)})


def test_what_is_in_no_picture_is_not_measured() -> None:
    with pytest.raises(DataError, match=r"nothing to measure on(.|\n)*pictures of nir"):
        measure(Engine(), manifest(), Pictures(), {"all": ("nir",)})


def test_the_report_adds_up() -> None:
    found = measure(Engine(), manifest(), Pictures(), {"all": ("rgb", "thermal")})
    tally = found.tallies["all"]
    report = figures(tally, CLASSES.names, ["cluster 0", "cluster 1", "cluster 2"])
    assert set(report["clusters"].values()) == {"a", "b", None}
    assert report["confusion"]["names"] == ["a", "b", NO_CLASS]
    pixels = np.array(report["confusion"]["pixels"])
    assert pixels.sum() == report["labelled_pixels"] == sum(c["pixels"] for c in report["classes"])
    assert report["accuracy"] == pytest.approx(np.trace(pixels[:2, :2]) / pixels.sum(), abs=1e-6)
    assert report["pixels_without_class"] == pixels[2].sum()
    for entry in report["classes"]:
        assert report["clusters"][entry["cluster"]] == entry["name"]
    shares = confusion_shares(tally.scores, 2)
    assert shares.shape == (2, 3)
    np.testing.assert_allclose(shares.sum(1), 1)
    assert "only report" in LABELS


def test_published_answers_are_the_published_form(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="the published form needs torch")
    from unim2_core.evaluation import published_answers
    from unim2_core.evaluation.published_answers import PublishedAnswers
    from unim2_core.model.classifier import Classifier
    from unim2_core.model.segmenter import Segmenter, SegmenterConfig

    torch.manual_seed(0)
    network = Segmenter(SegmenterConfig(("rgb", "thermal"), DIM, 4, stand_in=True))
    model = Classifier(network, torch.randn(3, 4), torch.zeros(2, DIM), torch.ones(2, DIM))
    tokens = torch.randn(2, 2, 3, DIM)
    presence = torch.ones(2, 2, 3)
    presence[:, 0, 0] = 0
    one = picture(0)
    code = model.codes(
        {"rgb": tokens[:1], "thermal": tokens[1:]},
        {"rgb": presence[:1], "thermal": presence[1:]},
    )
    large = torch.nn.functional.interpolate(code, one.labels.shape, mode="bilinear")
    cosines = torch.einsum("kd,dhw->khw", model.prototypes, large[0] / large[0].norm(dim=0))
    expected = cosines.argmax(0).numpy()
    expected[:PATCH, :PATCH] = 255
    found = PublishedAnswers(model)(tokens.numpy(), presence.numpy(), one)
    np.testing.assert_array_equal(found, expected)

    def smoothed(image: np.ndarray, chances: np.ndarray) -> np.ndarray:
        np.testing.assert_array_equal(image, one.images["rgb"])
        np.testing.assert_allclose(chances, (2 * cosines).softmax(0).numpy(), atol=1e-6)
        return chances[::-1]

    monkeypatch.setattr(published_answers, "marginals", smoothed)
    with_crf = PublishedAnswers(model, crf=True)
    found = with_crf(tokens.numpy(), presence.numpy(), one)
    np.testing.assert_array_equal(found, np.where(expected == 255, 255, 2 - expected))
    blind = Picture("p", {"thermal": one.images["rgb"]}, labels=one.labels)
    with pytest.raises(DataError, match="edges"):
        with_crf(tokens.numpy(), presence.numpy(), blind)


def test_clusters_that_are_left_over_are_named_in_the_figures() -> None:
    tally = Tally(clusters=3, classes=2)
    tally.add(np.array([[[0, 0, 1, 2]]]), np.array([[[0, 0, 1, 1]]], np.uint8))
    report = figures(tally, CLASSES.names, ["x", "y", "z"])
    assert report["pixels_without_class"] == 1
    assert report["clusters"]["x"] == "a"
    assert list(report["clusters"].values()).count(None) == 1
    assert report["mean_iou"] == pytest.approx((1 + 0.5 + 0) / 3, abs=1e-6)
    assert confusion_shares(tally.scores, 2).tolist() == [[1, 0, 0], [0, 0.5, 0.5]]
