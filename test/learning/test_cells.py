"""Running the network on drawn places only gives the loss that sampling whole maps there gives."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from torch import Tensor

from unim2_core.learning.correspondence import (
    CorrespondenceConfig,
    Draws,
    Shifts,
    correspondence_terms,
)

BATCH, SIDE, SAMPLES = 4, 6, 3
SHIFTS = Shifts(own=0.3, knn=0.2, random=0.1)


def gathered(maps: Tensor, cells: Tensor) -> Tensor:
    """(B, C, h, w) at cells (B, S * S) -> (B, C, S, S)."""
    flat = maps.flatten(2)
    drawn = torch.stack([part[:, own] for part, own in zip(flat, cells, strict=True)])
    return drawn.view(BATCH, -1, SAMPLES, SAMPLES)


def points_of(cells: Tensor) -> Tensor:
    """Cells (B, S * S) as points (B, S, S, 2), x and y in [-1, 1], the grid turned."""
    x, y = (part / (SIDE - 1) * 2 - 1 for part in (cells % SIDE, cells // SIDE))
    return torch.stack([x, y], dim=-1).view(BATCH, SAMPLES, SAMPLES, 2).transpose(1, 2)


@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize("same", [False, True])
def test_cells_are_points_on_the_grid(holes: bool, same: bool) -> None:
    torch.manual_seed(0)
    features = torch.randn(2, BATCH, 5, SIDE, SIDE)
    codes = torch.randn(2, BATCH, 4, SIDE, SIDE, requires_grad=True)
    there = (torch.rand(2, BATCH, SIDE, SIDE) < (0.6 if holes else 1.1)).float()
    # At random, cells are seen at p of the other image and points at q: equal where all are.
    cells = torch.randint(SIDE**2, (2, BATCH, SAMPLES**2))
    if same:
        cells[:] = cells[0, 0]
    sources = torch.stack([torch.arange(BATCH).roll(turn) for turn in (1, 2)])
    kind = CorrespondenceConfig(SAMPLES, 2)
    sampled = correspondence_terms(
        (features[0], features[1]),
        (codes[0], codes[1]),
        Draws(points_of(cells[0]), points_of(cells[1]), sources),
        SHIFTS,
        kind,
        presence=(there[0], there[1]),
    )
    a, b = ([gathered(part[i], cells[i]) for i in (0, 1)] for part in (features, codes))
    seen = [gathered(there[i][:, None], cells[i])[:, 0] for i in (0, 1)]
    drawn = correspondence_terms(
        (a[0], a[1]),
        (b[0], b[1]),
        Draws(None, None, sources),
        SHIFTS,
        CorrespondenceConfig(SAMPLES, 2, cells=True),
        presence=(seen[0], seen[1]),
    )
    terms = ("own", "knn", "random") if same else ("own", "knn")
    for name in terms:
        ours, theirs = getattr(drawn, name), getattr(sampled, name)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
        gradients = [torch.autograd.grad(t, codes, retain_graph=True)[0] for t in (ours, theirs)]
        torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    if not same:
        assert abs(float((drawn.random - sampled.random).detach())) > 1e-6
