"""The cheap form of the protocol against the literal one, and the dense CRF where it is there."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from unim2_core.errors import ModelError
from unim2_core.evaluation import crf
from unim2_core.evaluation.protocol import CRF_ALPHA, log_probabilities, predictions
from unim2_core.model.probes import ClusterProbe, LinearProbe, resized


@given(
    classes=st.integers(2, 8),
    code_dim=st.integers(2, 6),  # in one dimension all cosines are one
    side=st.integers(2, 5),
    scale=st.integers(1, 5),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=30)
def test_scores_may_be_resized_in_place_of_codes(
    classes: int, code_dim: int, side: int, scale: int, seed: int
) -> None:
    torch.manual_seed(seed)
    code = torch.randn(2, code_dim, side, side + 1, dtype=torch.float64)
    size = (side * scale, side * scale + 3)
    cluster, linear = ClusterProbe(code_dim, classes), LinearProbe(code_dim, classes)
    large = resized(code, size)  # the published form: codes at the size of the labels
    for probe, scores in ((cluster.double(), cluster.cosines), (linear.double(), linear)):
        expected = scores(large).argmax(1)
        assert predictions(code, probe, size).equal(expected)


def test_log_probabilities_are_those_of_the_published_form() -> None:
    code = torch.randn(2, 4, 3, 3)
    cluster, linear = ClusterProbe(4, 5), LinearProbe(4, 5)
    large = resized(code, (9, 6))
    for probe, scores in ((cluster, CRF_ALPHA * cluster.cosines(large)), (linear, linear(large))):
        found = log_probabilities(code, probe, (9, 6))
        torch.testing.assert_close(found, scores.log_softmax(1))
        torch.testing.assert_close(found.exp().sum(1), torch.ones(2, 9, 6))


def test_a_crf_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crf, "installed", lambda: False)
    with pytest.raises(ModelError, match="pydensecrf"):
        crf.marginals(np.zeros((4, 4, 3), np.uint8), np.full((2, 4, 4), 0.5, np.float32))


def test_a_crf_mends_a_hole() -> None:
    pytest.importorskip("pydensecrf", reason="pydensecrf is not installed")
    image = np.zeros((24, 24, 3), np.uint8)
    image[:, 12:] = 255
    right = (image[..., 0] > 0) * 0.6 + 0.2  # of the second class
    right[10:13, 4:7] = 0.8
    found = crf.marginals(image, np.stack([1 - right, right]).astype(np.float32))
    np.testing.assert_array_equal(found.argmax(0), image[..., 0] > 0)
