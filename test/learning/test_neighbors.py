"""Nearest neighbours against sorting everything, in blocks of any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from unim2_core.errors import ModelError
from unim2_core.learning import neighbors
from unim2_core.learning.neighbors import nearest, pooled


@given(
    count=st.integers(2, 40),
    wanted=st.integers(1, 8),
    block=st.integers(1, 5000),
    size=st.integers(0, 4),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=40)
def test_neighbours_equal_sorting(
    count: int, wanted: int, block: int, size: int, seed: int
) -> None:
    maps = torch.randn(count, 6, 2, 3, generator=torch.Generator().manual_seed(seed))
    descriptors = pooled(maps)
    index = torch.arange(count)
    first = index // size * size if size else index
    spans = torch.stack([first, (first + size).clamp(max=count)], dim=1) if size else None
    similarity = descriptors.double().numpy() @ descriptors.double().numpy().T
    expected = []
    for i in range(count):
        others = [j for j in range(count) if not size or i // size != j // size]
        expected.append(sorted(others, key=lambda j: -similarity[i, j])[:wanted])
    if min(map(len, expected)) < wanted:
        with pytest.raises(ModelError, match="too few images"):
            nearest(descriptors, wanted, spans)
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "BLOCK_BYTES", block)
        found = nearest(descriptors, wanted, spans)
    rows = np.arange(count)[:, None]
    np.testing.assert_allclose(
        similarity[rows, found.numpy()], similarity[rows, np.array(expected)], atol=1e-6
    )
    if not size:
        assert found[:, 0].tolist() == list(range(count))


def test_descriptors_are_unit_means() -> None:
    maps = torch.randn(5, 4, 3, 2)
    found = pooled(maps)
    for image, vector in zip(maps, found, strict=True):
        mean = torch.stack([image[:, y, x] for y in range(3) for x in range(2)]).mean(0)
        torch.testing.assert_close(vector, mean / mean.norm())
    masks = torch.tensor([1.0, 0.0, 1.0, 1.0]).expand(5, 4)
    dropped = pooled(maps, masks)
    assert dropped[:, 1].abs().max() == 0
    torch.testing.assert_close(dropped.norm(dim=1), torch.ones(5))
