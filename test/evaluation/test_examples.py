"""Best, median and worst pictures of a model, with labels and without."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from unim2_core.data.labels import Classes
from unim2_core.data.pictures import Picture
from unim2_core.errors import DataError
from unim2_core.evaluation.examples import CONFIDENCE, IOU, examples
from unim2_core.inference.engine import Classified
from unim2_core.model.bundle import BackboneEntry, Label, Manifest, ModalityEntry

SIZE = (8, 8)


class Pictures:
    """Some pictures, grey by their number; the labels are a left and a right half."""

    size = label_size = SIZE
    modalities = ("rgb",)

    def __init__(self, count: int, labelled: bool) -> None:
        self.limit = count
        self.classes = Classes(("left", "right"), ((0, 0, 0),) * 2, (0, 1)) if labelled else None

    def __iter__(self) -> Iterator[Picture]:
        labels = np.zeros(SIZE, np.uint8)
        labels[:, 4:] = 1
        for index in range(self.limit):
            image = np.full((*SIZE, 3), index, np.uint8)
            given = labels if self.classes else None
            yield Picture(f"picture {index}", {"rgb": image}, labels=given)


class Engine:
    """Takes the classes for swapped, is wrong in as many rows as the picture's number says."""

    batched = False

    def tokens(self, images: np.ndarray) -> np.ndarray:
        return np.full((len(images), 2, 2, 1), float(images[0, 0, 0, 0]), np.float32)

    def classify(self, tokens: np.ndarray, presence: np.ndarray) -> Classified:
        wrong = int(tokens[0, 0, 0, 0])
        classes = np.ones(SIZE, np.uint8)
        classes[:, 4:] = 0
        classes[:wrong] = 1 - classes[:wrong]
        return Classified(classes, np.full(SIZE, 200 - wrong, np.uint8), "version")


MANIFEST = Manifest(
    name="halves",
    reference="rgb",
    modalities=(ModalityEntry(name="rgb", sensor="rgb", encoding={}),),
    backbone=BackboneEntry(name="none", patch_size=4, embed_dim=1, sha256="", baseline=True),
    method="by hand",
    infer_size=SIZE,
    stride=1,
    labels=tuple(Label(id=i, name=f"cluster {i}", color=(0, 0, 0)) for i in range(2)),
)


def shown(count: int, labelled: bool) -> list:
    return examples(Engine(), MANIFEST, Pictures(count, labelled), ["rgb"])


@pytest.mark.parametrize("labelled", [True, False])
def test_the_best_the_middle_and_the_worst_are_picked(labelled):
    found = shown(5, labelled)
    assert [(one.place, one.name) for one in found] == [
        ("best", "picture 0"),
        ("median", "picture 2"),
        ("worst", "picture 4"),
    ]
    assert {one.measure for one in found} == {IOU if labelled else CONFIDENCE}


def test_figures_are_those_of_one_matching_for_all():
    best, _, worst = shown(3, labelled=True)
    assert best.figure == 1.0
    # Two of eight rows are wrong: 24 right of 40 in the union of each class.
    assert worst.figure == pytest.approx(24 / 40)
    # Cluster 1 means left: the truth is drawn in the model's own ids.
    assert best.truth[0, 0] == 1 and best.truth[0, 7] == 0
    np.testing.assert_array_equal(best.truth, best.classes)


def test_a_set_of_one_is_all_of_it():
    (only,) = shown(1, labelled=False)
    assert only.place == "best and median and worst"
    assert only.truth is None
    assert only.figure == pytest.approx(200 / 255)


def test_an_empty_set_is_refused():
    with pytest.raises(DataError, match="no picture to show"):
        shown(0, labelled=False)
