from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from unim2_core.model.texture import OPPONENT, ORIENTATIONS, TextureFeatures


@pytest.fixture
def network() -> TextureFeatures:
    return TextureFeatures().eval()


def test_one_vector_a_patch(network: TextureFeatures) -> None:
    tokens = network(torch.rand(2, 3, 64, 96))
    assert tokens.shape == (2, 8, 12, network.embed_dim)
    assert torch.isfinite(tokens).all()


def test_first_window_holds_mean_and_deviation_of_the_patch(network: TextureFeatures) -> None:
    image = torch.rand(1, 3, 16, 16)
    token = network(image)[0, 1, 0]
    patch = image[0, :, 8:, :8].reshape(3, -1).numpy()
    opponent = np.array(OPPONENT) @ patch
    np.testing.assert_allclose(token[:3], opponent.mean(1), atol=1e-5)
    np.testing.assert_allclose(token[3:6], opponent.std(1), atol=2e-3)


@pytest.mark.parametrize(("axis", "strongest"), [(3, 0), (2, ORIENTATIONS // 2)])
def test_stripes_fill_the_bin_of_their_gradient(
    network: TextureFeatures, axis: int, strongest: int
) -> None:
    image = torch.zeros(1, 3, 64, 64)
    stripes = torch.arange(64) // 4 % 2 == 0
    image.movedim(axis, 0)[stripes] = 1.0
    histogram = network(image)[0, 4, 4, 6 : 6 + ORIENTATIONS]
    assert histogram.argmax() == strongest
