"""The correspondence loss against loops over every pair of points, and its draws."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.learning.correspondence import (
    CorrespondenceConfig,
    Draws,
    Shifts,
    centered,
    correspondence_terms,
    draw,
    sampled,
    self_avoiding,
)


def bilinear(image: Tensor, x: float, y: float) -> Tensor:
    """One vector of a (C, h, w) map at (x, y) in [-1, 1]: corner pixels at the ends."""
    height, width = image.shape[1:]
    row, column = (y + 1) / 2 * (height - 1), (x + 1) / 2 * (width - 1)
    row, column = min(max(row, 0), height - 1), min(max(column, 0), width - 1)
    top, left = math.floor(row), math.floor(column)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    a, b = row - top, column - left
    upper = (1 - b) * image[:, top, left] + b * image[:, top, right]
    lower = (1 - b) * image[:, below, left] + b * image[:, below, right]
    return (1 - a) * upper + a * lower


def slow_term(
    f: Tensor,
    g: Tensor,
    c: Tensor,
    d: Tensor,
    p: Tensor,
    q: Tensor,
    shift: float,
    config: CorrespondenceConfig,
    weighted: bool,
) -> Tensor:
    """l of the method's description, one pair of points at a time."""
    batch, s = p.shape[:2]

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        return a @ b / (a.norm() * b.norm())

    def weight(image: Tensor, point: Tensor) -> Tensor:
        magnitude = image.abs().mean(0, keepdim=True)
        active = magnitude.tanh() if config.weighting == "tanh" else magnitude.sigmoid()
        return bilinear(active, *point.tolist())[0]

    places = [(r, t) for r in range(s) for t in range(s)]
    fd, sd, ww = {}, {}, {}
    for i in range(batch):
        for x in places:
            for u in places:
                at_p, at_q = p[i, x[1], x[0]], q[i, u[1], u[0]]
                key = (i, x, u)
                fd[key] = cosine(bilinear(f[i], *at_p.tolist()), bilinear(g[i], *at_q.tolist()))
                sd[key] = cosine(bilinear(c[i], *at_p.tolist()), bilinear(d[i], *at_q.tolist()))
                ww[key] = weight(f[i], at_p) * weight(g[i], at_q) if weighted else 1.0
    if config.pointwise:
        mu = sum(fd.values()) / len(fd)
        rows = {(i, x): sum(fd[i, x, u] for u in places) / s**2 for i, x, _ in fd}
        fd = {(i, x, u): value - rows[i, x] for (i, x, u), value in fd.items()}
        new = sum(fd.values()) / len(fd)
        fd = {key: value - new + mu for key, value in fd.items()}
    total = torch.zeros((), dtype=f.dtype)
    for key, code in sd.items():
        low = 0.0 if config.clamp_negative else -2.0
        high = 2.0 if config.clamp_above is None else config.clamp_above
        total = total - code.clamp(low, high) * (fd[key] - shift) * ww[key]
    return total / len(sd)


@settings(deadline=None, max_examples=20)
@given(
    batch=st.integers(2, 3),
    side=st.integers(2, 4),
    samples=st.integers(1, 3),
    pointwise=st.booleans(),
    clamp_negative=st.booleans(),
    clamp_above=st.sampled_from([None, 0.3]),
    weighting=st.sampled_from(["none", "tanh", "sigmoid"]),
    seed=st.integers(0, 1000),
)
def test_terms_and_gradients_equal_those_of_loops(
    batch: int,
    side: int,
    samples: int,
    pointwise: bool,
    clamp_negative: bool,
    clamp_above: float | None,
    weighting: str,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def maps(channels: int) -> Tensor:
        shape = (batch, channels, side, side + 1)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    config = CorrespondenceConfig(
        samples,
        2,
        pointwise,
        clamp_negative,
        clamp_above,
        weighting,  # type: ignore[arg-type]
    )
    drawn = draw(batch, config, generator=generator)
    draws = Draws(drawn.anchor.double(), drawn.positive.double(), drawn.sources)
    f, g, c, d = maps(5), maps(5), maps(3).requires_grad_(), maps(3).requires_grad_()
    shifts, weighted = Shifts(0.1, -0.2, 0.3), config.weights(reference=False)
    terms = correspondence_terms((f, g), (c, d), draws, shifts, config, weighted=weighted)
    p, q = draws.anchor, draws.positive
    random = [slow_term(f, f[i], c, c[i], p, q, 0.3, config, weighted) for i in draws.sources]
    expected = (
        slow_term(f, f, c, c, p, p, 0.1, config, weighted),
        slow_term(f, g, c, d, p, q, -0.2, config, weighted),
        sum(random) / len(random),
    )
    for found, slow in zip(terms, expected, strict=True):
        torch.testing.assert_close(found, slow, rtol=1e-9, atol=1e-9)
    ours = torch.autograd.grad(sum(terms), (c, d))
    theirs = torch.autograd.grad(sum(expected), (c, d))
    for found, slow in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, slow, rtol=1e-8, atol=1e-8)


def test_sampling_reads_x_then_y_and_turns_the_grid() -> None:
    image = torch.arange(12.0).view(1, 1, 3, 4)
    points = torch.tensor([[[[-1.0, -1.0], [1.0, -1.0]], [[-1.0, 1.0], [3.0, 0.0]]]])
    # places (r, t) use points[t, r]: corners, and the right border for what lies outside.
    expected = torch.tensor([[[[0.0, 8.0], [3.0, 7.0]]]])
    torch.testing.assert_close(sampled(image, points), expected)


def test_centering_keeps_the_mean_and_levels_the_rows() -> None:
    values = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    found = centered(values)
    torch.testing.assert_close(found.mean(), values.mean())
    torch.testing.assert_close(found.mean(dim=2), values.mean().expand(3, 5))


@given(st.integers(2, 40), st.integers(0, 100))
@settings(deadline=None, max_examples=30)
def test_no_image_is_its_own_negative(batch: int, seed: int) -> None:
    permutation = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    found = self_avoiding(permutation).tolist()
    for index, source in enumerate(permutation.tolist()):
        assert found[index] == ((source + 1) % batch if source == index else source)
        assert found[index] != index


def test_draws_are_uniform_repeatable_and_differ() -> None:
    config = CorrespondenceConfig(samples=20, negatives=3)
    one, again = (draw(8, config, generator=torch.Generator().manual_seed(5)) for _ in range(2))
    for a, b in zip(one, again, strict=True):
        assert torch.equal(a, b)
    assert one.anchor.shape == one.positive.shape == (8, 20, 20, 2)
    assert one.sources.shape == (3, 8)
    assert not torch.equal(one.anchor, one.positive)
    for points in (one.anchor, one.positive):
        assert points.min() >= -1 and points.max() <= 1
        assert abs(points.mean()) < 0.03 and abs(points.std() - 3**-0.5) < 0.02


def test_salient_points_lie_on_the_mask() -> None:
    mask = torch.zeros(3, 6, 9)
    mask[0, 2, 5] = 1
    mask[1, 1:4, 3] = 0.5  # the third stays empty: its points may lie anywhere
    config = CorrespondenceConfig(samples=30, salience=True)
    drawn = draw(3, config, (mask, mask), generator=torch.Generator().manual_seed(0))
    for points in (drawn.anchor, drawn.positive):
        expected = torch.tensor([5 / 9 * 2 - 1, 2 / 6 * 2 - 1])
        share = (points[0] - expected).abs().amax(-1).lt(1e-6).float().mean()
        assert abs(share - 0.9) < 0.04
        rows = (points[1, ..., 1] + 1) / 2 * 6
        on_column = (points[1, ..., 0] - (3 / 9 * 2 - 1)).abs() < 1e-6
        assert set(rows[on_column].round().int().tolist()) == {1, 2, 3}
        assert points[2].std() > 0.4


def test_stored_salient_points_follow_the_same_rule(parity_dir: Path) -> None:
    """The release's own draw: nine of ten points are places of the mask, by index / size."""
    with np.load(parity_dir / "cmcs.npz") as golden:
        for points, mask in (("coords1", "salience"), ("coords2", "salience_pos")):
            stored, side = golden[f"salience/{points}"], golden[mask].shape[1]
            index = (stored + 1) / 2 * side
            exact = np.abs(index - index.round()).max(-1) < 1e-4
            assert 0.75 < exact.mean() <= 1
            for image in range(len(stored)):
                x, y = index[image][exact[image]].round().astype(int).T
                assert (golden[mask][image][y, x] != 0).all()


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ModelError, match="two images"):
        draw(1, CorrespondenceConfig())
    with pytest.raises(ModelError, match="masks"):
        draw(4, CorrespondenceConfig(salience=True))
    with pytest.raises(ModelError):
        CorrespondenceConfig(samples=0)
    with pytest.raises(ModelError):
        CorrespondenceConfig(weighting="relu")  # type: ignore[arg-type]


def test_only_the_reference_needs_its_own_switch_to_be_weighted() -> None:
    config = CorrespondenceConfig(weighting="tanh")
    assert (config.weights(reference=True), config.weights(reference=False)) == (False, True)
    assert CorrespondenceConfig(weighting="tanh", weight_reference=True).weights(reference=True)
    assert not CorrespondenceConfig(weight_reference=True).weights(reference=True)
