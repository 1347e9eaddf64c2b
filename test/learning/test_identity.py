from __future__ import annotations

import numpy as np
import pytest

from unim2_core.errors import ModelError
from unim2_core.learning.identity import carried_over, kept_share, matched
from unim2_core.model.bundle import Label

torch = pytest.importorskip("torch")
USED = np.ones(3, np.bool_)


def test_clusters_that_come_in_another_order_keep_their_ids() -> None:
    old = np.repeat([0, 1, 2], [50, 30, 20])
    order = np.array([2, 0, 1])  # old class 0 is found as cluster 2, ...
    found = matched(old, order[old], 3, USED)
    assert found.ids[order].tolist() == [0, 1, 2]
    assert found.overlaps.tolist() == [1, 1, 1]
    assert not found.changed and found.vanished == ()


def test_a_new_class_gets_a_new_id_and_that_of_a_vanished_one_stays_reserved() -> None:
    old = np.repeat([0, 1, 2], [50, 40, 10])
    new = np.repeat([0, 1, 2, 0], [50, 20, 20, 10])  # class 1 is split, class 2 is swallowed
    found = matched(old, new, 3, USED, smallest=0.4)
    assert found.ids[0] == 0 and 1 in found.ids.tolist()
    assert found.fresh == (3,) and found.vanished == (2,)
    prototypes, valid = found.placed(torch.eye(3))
    assert prototypes.shape == (4, 3)
    assert valid.tolist() == [1, 1, 0, 1]
    assert not prototypes[2].any()
    later = matched(old, new, 3, valid.numpy() > 0, smallest=0.4)
    assert 2 not in later.ids.tolist()


def test_the_table_of_labels_only_grows() -> None:
    labels = tuple(Label(id=i, name=f"thing {i}", color=(i, i, i)) for i in range(3))
    old = np.repeat([0, 1, 2], 10)
    assert carried_over(labels, matched(old, old, 3, USED)) == labels
    split = np.concatenate([old[:25], np.full(5, 3)])
    grown = carried_over(labels, matched(old, split, 4, USED, smallest=0.5))
    assert grown[:3] == labels
    assert [(label.id, label.name) for label in grown[3:]] == [(3, "cluster 3")]


def test_ids_run_out_loudly() -> None:
    old = np.arange(254)
    with pytest.raises(ModelError, match="no ids left"):
        matched(old, old, 255, np.ones(254, np.bool_))


def test_places_that_one_model_does_not_assign_say_nothing() -> None:
    old, new = np.array([1, 1, 255, 2]), np.array([1, 3, 1, 255])
    assert kept_share(old, new) == 0.5
    assert kept_share(np.array([255]), np.array([1])) == 1.0
