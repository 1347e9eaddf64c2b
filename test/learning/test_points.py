"""Sampling at points against grid_sample, and who is compared with whom."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

import torch.nn.functional as F

from unim2_core.learning.points import Maps, negatives, sampled


def test_sampling_reads_x_then_y_and_turns_the_grid() -> None:
    image = torch.arange(12.0).view(1, 1, 3, 4)
    points = torch.tensor([[[[-1.0, -1.0], [1.0, -1.0]], [[-1.0, 1.0], [3.0, 0.0]]]])
    # places (r, t) use points[t, r]: corners, and the right border for what lies outside.
    expected = torch.tensor([[[[0.0, 8.0], [3.0, 7.0]]]])
    torch.testing.assert_close(sampled(image, points), expected)


@given(
    batch=st.integers(1, 4),
    channels=st.integers(1, 9),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    samples=st.integers(1, 5),
    last=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(deadline=None, max_examples=60)
def test_sampling_equals_grid_sample(
    batch: int, channels: int, height: int, width: int, samples: int, last: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(batch, channels, height, width, generator=generator)
    if last:
        maps = maps.contiguous(memory_format=torch.channels_last)
    maps.requires_grad_()
    points = torch.rand(batch, samples, samples, 2, generator=generator) * 2.4 - 1.2
    points[0, 0, 0] = torch.tensor([1.0, -1.0])  # a corner
    images = torch.randint(batch, (batch,), generator=generator)
    found = sampled(maps, points, images)
    expected = F.grid_sample(
        maps[images], points.transpose(1, 2), padding_mode="border", align_corners=True
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    toward = torch.randn(found.shape, generator=generator)
    ours, theirs = (torch.autograd.grad(out, maps, toward)[0] for out in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_a_point_is_seen_where_half_of_its_cells_are() -> None:
    present = torch.tensor([[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]])  # (1, 2, 3)
    maps = Maps(torch.randn(1, 4, 2, 3), torch.randn(1, 2, 2, 3), present=present)
    x = torch.tensor([[-1.0, -0.51], [-0.49, 1.0]])
    points = torch.stack([x, torch.zeros(2, 2)], dim=-1)[None]
    assert maps.at(points).present.tolist() == [[1, 0, 1, 0]]  # the grid is turned


def test_negatives_are_other_anchors_at_the_points_of_the_positives() -> None:
    maps = Maps(torch.randn(3, 4, 2, 2), torch.randn(3, 5, 2, 2), torch.rand(3, 1, 2, 2))
    sources, points = torch.tensor([2, 0, 1]), torch.rand(3, 3, 3, 2) * 2 - 1
    found = negatives(maps, maps.at(None), points, sources)
    other = Maps(*(None if part is None else part[sources] for part in maps)).at(points)
    for ours, theirs in zip(found[:3], other[:3], strict=True):
        torch.testing.assert_close(ours, theirs)
    cells = negatives(maps, maps.at(None), None, sources)
    assert cells.features.equal(maps.at(None).features[sources])
    assert cells.present is None
