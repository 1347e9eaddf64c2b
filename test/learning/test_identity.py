from __future__ import annotations

import numpy as np
import pytest

from unim2_core.errors import ModelError
from unim2_core.learning.identity import carried_over, kept_share, matched
from unim2_core.model.bundle import Label

torch = pytest.importorskip("torch")
USED = np.ones(3, np.bool_)


def match(old, new, clusters, in_use=USED, began=None, free=0, **options):
    """Match clusters that began as no class, where nothing else is said."""
    began = np.full(clusters, -1) if began is None else np.asarray(began)
    return matched(old, new, clusters, in_use, began, free, **options)


def test_clusters_that_come_in_another_order_keep_their_ids() -> None:
    old = np.repeat([0, 1, 2], [50, 30, 20])
    order = np.array([2, 0, 1])  # old class 0 is found as cluster 2, ...
    found = match(old, order[old], 3)
    assert found.ids[order].tolist() == [0, 1, 2]
    assert found.overlaps.tolist() == [1, 1, 1]
    assert not found.changed and found.vanished == ()


def test_a_new_class_gets_a_new_id_and_that_of_a_vanished_one_stays_reserved() -> None:
    old = np.repeat([0, 1, 2], [50, 40, 10])
    new = np.repeat([0, 1, 2, 0], [50, 20, 20, 10])  # class 1 is split, class 2 is swallowed
    found = match(old, new, 3, smallest=0.4)
    assert found.ids[0] == 0 and 1 in found.ids.tolist()
    assert found.fresh == (3,) and found.vanished == (2,)
    prototypes, valid = found.placed(torch.eye(3))
    assert prototypes.shape == (4, 3)
    assert valid.tolist() == [1, 1, 0, 1]
    assert not prototypes[2].any()
    later = match(old, new, 3, valid.numpy() > 0, smallest=0.4)
    assert 2 not in later.ids.tolist()


def test_the_table_of_labels_only_grows() -> None:
    labels = tuple(Label(id=i, name=f"thing {i}", color=(i, i, i)) for i in range(3))
    old = np.repeat([0, 1, 2], 10)
    assert carried_over(labels, match(old, old, 3)) == labels
    split = np.concatenate([old[:25], np.full(5, 3)])
    grown = carried_over(labels, match(old, split, 4, smallest=0.5))
    assert grown[:3] == labels
    assert [(label.id, label.name) for label in grown[3:]] == [(3, "cluster 3")]


def test_a_small_class_of_which_the_old_model_said_too_much_keeps_its_id() -> None:
    """It overlaps little with what it was, since most of that was wrong; it is the same class."""
    old = np.repeat([0, 1, 2], [400, 400, 200])
    new = np.repeat([0, 1, 0, 2], [400, 400, 190, 10])
    found = match(old, new, 3, began=[0, 1, 2])
    assert found.ids.tolist() == [0, 1, 2] and not found.fresh and not found.vanished
    assert found.overlaps[2] < 0.1
    assert match(old, new, 3).fresh == (3,), "what began as none is new"
    # What took the place of another class is that class, and no two clusters are one.
    swapped = match(np.repeat([0, 1], 50), np.repeat([1, 0], 50), 2, USED[:2], began=[0, 1])
    assert swapped.ids.tolist() == [1, 0]


def test_a_new_id_is_one_that_no_version_has_given_out() -> None:
    old = np.repeat([0, 1, 2], 10)
    new = np.concatenate([old[:25], np.full(5, 3)])
    found = match(old, new, 4, smallest=0.5, free=7)
    assert found.fresh == (7,) and found.count == 8
    _, valid = found.placed(torch.eye(4))
    assert valid.tolist() == [1, 1, 1, 0, 0, 0, 0, 1]
    assert match(old, old, 3, free=7).count == 3
    with pytest.raises(ModelError, match="no ids left"):
        match(old, new, 4, smallest=0.5, free=254)


def test_merged_classes_get_no_second_label() -> None:
    labels = tuple(Label(id=i, name=f"thing {i}", color=(i, i, i)) for i in (0, 2))  # 1 is in 0
    old = np.repeat([0, 1, 2], 10)
    assert carried_over(labels, match(old, old, 3)) == labels
    grown = carried_over(
        labels, match(old, np.concatenate([old[:25], np.full(5, 3)]), 4, smallest=0.5)
    )
    assert [label.id for label in grown] == [0, 2, 3]


def test_ids_run_out_loudly() -> None:
    old = np.arange(254)
    with pytest.raises(ModelError, match="no ids left"):
        match(old, old, 255, np.ones(254, np.bool_))


def test_places_that_one_model_does_not_assign_say_nothing() -> None:
    old, new = np.array([1, 1, 255, 2]), np.array([1, 3, 1, 255])
    assert kept_share(old, new) == 0.5
    assert kept_share(np.array([255]), np.array([1])) == 1.0
