from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F

from unim2_core.learning import outcome
from unim2_core.learning.outcome import balance, regrouped
from unim2_core.model.classifier import Classifier
from unim2_core.model.segmenter import Segmenter, SegmenterConfig


def served(valid: list[float] | None = None) -> Classifier:
    network = Segmenter(SegmenterConfig(("rgb",), feature_dim=4, code_dim=3))
    marks = None if valid is None else torch.tensor(valid)
    return Classifier(network, torch.eye(3), torch.zeros(1, 4), torch.ones(1, 4), marks)


def centres(*arguments) -> torch.Tensor:
    """Of ``regrouped``, whatever they began as."""
    return regrouped(*arguments)[0]


def codes(*axes: int) -> tuple[torch.Tensor, np.ndarray]:
    """Codes near axes, and their numbers."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.tensor(axes).repeat_interleave(50)
    noise = 0.1 * torch.randn((len(ids), 3), generator=generator)
    return F.normalize(torch.eye(3)[ids] + noise, dim=1), ids.numpy()


def test_classes_go_where_their_codes_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "ROUNDS", 0)
    before, ids = codes(0, 1, 2)
    model = served()
    still = centres(model, before, (before,), (ids,), 0)
    torch.testing.assert_close(still, torch.eye(3))
    means = torch.stack([before[torch.from_numpy(ids == number)].mean(0) for number in range(3)])
    model.prototypes = F.normalize(means, dim=1)
    turn = torch.tensor([[0.0, 1, 0], [0, 0, 1], [1, 0, 0]])
    moved = centres(model, before, (before @ turn,), (ids,), 0)
    torch.testing.assert_close(moved, model.prototypes @ turn)


def test_centres_go_a_share_of_the_way_to_their_places() -> None:
    before, ids = codes(0, 1, 2)
    model = served()
    ways = [centres(model, before, (before,), (ids,), 0, share) for share in (0, 0.5, 1)]
    torch.testing.assert_close(ways[0], torch.eye(3))
    torch.testing.assert_close(ways[2], centres(model, before, (before,), (ids,), 0))
    near, far = ((way - ways[0]).norm(dim=1) for way in ways[1:])
    assert (near > 0.4 * far).all() and (near < 0.6 * far).all() and (far > 0).all()


def test_a_class_that_nothing_belongs_to_stays_where_it_is_and_a_reserved_one_has_no_centre() -> (
    None
):
    before, ids = codes(0, 1)
    found, began = regrouped(served(), before, (before,), (ids,), 0)
    torch.testing.assert_close(found[2], torch.eye(3)[2])
    assert began.tolist() == [0, 1, 2]
    every, numbers = codes(0, 1, 2)
    found, began = regrouped(served([1, 0, 1]), every, (every,), (numbers,), 0)
    assert began.tolist() == [0, 2]


def test_places_that_fit_no_class_make_a_new_one_where_that_is_allowed() -> None:
    before, ids = codes(0, 1)
    strange, _ = codes(2)
    parts, numbers = (before, strange), (ids, np.zeros(len(strange), np.int64))
    model = served([1, 1, 0])
    assert len(centres(model, before, parts, numbers, 0)) == 2
    found, began = regrouped(model, before, parts, numbers, 3)
    assert began.tolist() == [0, 1, -1]
    assert float(found[2] @ torch.tensor([0.0, 0, 1])) > 0.95


def test_a_reserved_class_is_never_given() -> None:
    model = served([1, 0, 1])
    assert (model._to_classes(torch.eye(3).T[None, :, None])[0].argmax(0) != 1).all()
    assert model.head_inputs(0.1)["valid"].tolist() == [1, 0, 1]


def test_balance_is_one_for_equal_use_and_nought_for_one_class() -> None:
    assert balance(np.repeat([0, 1, 2, 3], 5), 4) == pytest.approx(1)
    assert balance(np.zeros(9, np.int64), 4) == pytest.approx(0)
