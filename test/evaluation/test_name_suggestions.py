from __future__ import annotations

import numpy as np
import pytest

from unim2_core.evaluation.name_suggestions import name_hints

CLASSES = ("road", "sky", "wall")


def test_each_class_goes_to_the_cluster_that_makes_most_pixels_right():
    table = np.array([[90, 5, 5], [80, 10, 0], [0, 70, 10], [5, 0, 45], [0, 0, 0]])
    hints = name_hints(table, CLASSES, 5)
    assert set(hints) == {0, 1, 2, 3}  # the last cluster met no label
    assert [(hints[k].name, hints[k].assigned) for k in range(4)] == [
        ("road", True),
        ("road", False),  # no class of its own is left: what most of its pixels are
        ("sky", True),
        ("wall", True),
    ]
    assert hints[0].share == pytest.approx(0.9)
    assert hints[1].share == pytest.approx(8 / 9)


def test_rows_of_classes_without_a_cluster_are_no_clusters():
    table = np.array([[5, 0, 0], [0, 4, 1], [0, 0, 0]])  # two clusters, three classes
    assert set(name_hints(table, CLASSES, 2)) == {0, 1}


def test_a_class_that_a_cluster_never_meets_is_not_suggested():
    table = np.array([[10, 0, 0], [8, 0, 0], [0, 3, 0]])
    hints = name_hints(table, CLASSES, 3)
    assert (hints[1].name, hints[1].assigned) == ("road", False)
