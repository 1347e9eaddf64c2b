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
    derangement,
    draw,
    mean_of,
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
    weighted: bool = False,
    seen: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """l of the method's description, one pair of points at a time."""
    batch, s = p.shape[:2]

    def counts(i: int, at_p: Tensor, at_q: Tensor) -> bool:
        if seen is None:
            return True
        ends = ((seen[0], at_p), (seen[1], at_q))
        return all(bilinear(maps[i, None], *point.tolist()) >= 0.5 for maps, point in ends)

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
                if not counts(i, at_p, at_q):
                    continue
                key = (i, x, u)
                fd[key] = cosine(bilinear(f[i], *at_p.tolist()), bilinear(g[i], *at_q.tolist()))
                sd[key] = cosine(bilinear(c[i], *at_p.tolist()), bilinear(d[i], *at_q.tolist()))
                ww[key] = weight(f[i], at_p) * weight(g[i], at_q) if weighted else 1.0
    if not fd:
        return torch.zeros((), dtype=f.dtype)
    if config.pointwise:
        mu = sum(fd.values()) / len(fd)
        rows = {}
        for i, x, _ in fd:
            row = [fd[i, x, u] for u in places if (i, x, u) in fd]
            rows[i, x] = sum(row) / len(row)
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


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(2, 4),
    side=st.integers(1, 4),
    samples=st.integers(1, 3),
    pointwise=st.booleans(),
    cells=st.booleans(),
    chance=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
    seed=st.integers(0, 1000),
)
def test_what_is_not_seen_is_left_out_as_in_loops(
    batch: int, side: int, samples: int, pointwise: bool, cells: bool, chance: float, seed: int
) -> None:
    """Where maps hold drawn places only, every place is a point, and it is its own."""
    generator = torch.Generator().manual_seed(seed)
    height, width = (samples, samples) if cells else (side, side + 1)

    def maps(channels: int) -> Tensor:
        shape = (batch, channels, height, width)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def presence() -> Tensor:
        there = torch.rand((batch, height, width), generator=generator) < chance
        there[0] = False  # one picture lacks the modality
        return there.double()

    config = CorrespondenceConfig(samples, 2, pointwise, cells=cells, distinct_sources=cells)
    draws = draw(batch, config, generator=generator)
    if cells:
        assert draws.anchor is None and draws.positive is None
        ends = torch.linspace(-1, 1, samples, dtype=torch.float64) if samples > 1 else [0.0]
        p = torch.tensor([[[float(x), float(y)] for y in ends] for x in ends])
        p = q = p.double().expand(batch, -1, -1, -1)  # p[i, t, r]: x of column t, y of row r
    else:
        p, q = draws.anchor.double(), draws.positive.double()
        draws = Draws(p, q, draws.sources)
    f, g, seen = maps(5), maps(5), (presence(), presence())
    c, d = maps(3).requires_grad_(), maps(3).requires_grad_()
    shifts = Shifts(0.1, -0.2, 0.3)
    terms = correspondence_terms((f, g), (c, d), draws, shifts, config, presence=seen)
    random = [
        slow_term(f, f[i], c, c[i], p, q, 0.3, config, seen=(seen[0], seen[0][i]))
        for i in draws.sources
    ]
    expected = (
        slow_term(f, f, c, c, p, p, 0.1, config, seen=(seen[0], seen[0])),
        slow_term(f, g, c, d, p, q, -0.2, config, seen=seen),
        sum(random) / len(random),
    )
    for found, slow in zip(terms, expected, strict=True):
        torch.testing.assert_close(found, slow, rtol=1e-9, atol=1e-9)
    ours = torch.autograd.grad(sum(terms), (c, d))
    for gradient in ours:
        assert gradient.isfinite().all()
    assert ours[0][0].abs().max() == ours[1][0].abs().max() == 0
    if sum(expected).requires_grad:
        theirs = torch.autograd.grad(sum(expected), (c, d), allow_unused=True)
        for found, slow in zip(ours, theirs, strict=True):
            slow = torch.zeros_like(found) if slow is None else slow
            torch.testing.assert_close(found, slow, rtol=1e-8, atol=1e-8)


def test_a_modality_that_is_seen_everywhere_gives_the_published_numbers() -> None:
    generator = torch.Generator().manual_seed(0)
    f, g, c, d = torch.randn(4, 3, 6, 4, 5, generator=generator)
    config = CorrespondenceConfig(samples=5)
    draws = draw(3, config, generator=generator)
    everywhere = (torch.ones(3, 4, 5), torch.ones(3, 4, 5))
    shifts = Shifts(0.1, 0.2, 0.3)
    plain = correspondence_terms((f, g), (c, d), draws, shifts, config)
    masked = correspondence_terms((f, g), (c, d), draws, shifts, config, presence=everywhere)
    torch.testing.assert_close(plain, masked, rtol=1e-6, atol=1e-7)


def test_centering_keeps_the_mean_and_levels_the_rows() -> None:
    values = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0))
    found = centered(values)
    torch.testing.assert_close(found.mean(), values.mean())
    torch.testing.assert_close(found.mean(dim=2), values.mean().expand(3, 5))
    counted = (torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(1)) < 0.6).float()
    counted[0, 0] = 0
    found = centered(values, counted)
    torch.testing.assert_close(mean_of(found, counted), mean_of(values, counted))
    rows = mean_of(found, counted, dim=2)[counted.sum(dim=2) > 0]
    torch.testing.assert_close(rows, mean_of(values, counted).expand_as(rows))


@given(st.integers(2, 40), st.integers(0, 100))
@settings(deadline=None, max_examples=30)
def test_no_image_is_its_own_negative(batch: int, seed: int) -> None:
    permutation = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    found = self_avoiding(permutation).tolist()
    for index, source in enumerate(permutation.tolist()):
        assert found[index] == ((source + 1) % batch if source == index else source)
        assert found[index] != index


@given(st.lists(st.integers(0, 6), min_size=2, max_size=40), st.integers(0, 100))
@settings(deadline=None, max_examples=60)
def test_derangements_pair_other_sources_each_once(sources: list[int], seed: int) -> None:
    given_sources = torch.tensor(sources)
    found = derangement(given_sources, generator=torch.Generator().manual_seed(seed))
    assert sorted(found.tolist()) == list(range(len(sources)))
    assert (found != torch.arange(len(sources))).all()
    if 2 * max(map(sources.count, sources)) <= len(sources):  # else it cannot be
        assert (given_sources[found] != given_sources).all()


def test_derangements_reach_every_pair_that_is_allowed() -> None:
    sources = torch.tensor([0, 0, 1, 2, 3])
    generator = torch.Generator().manual_seed(0)
    pairs = {
        (index, paired)
        for _ in range(300)
        for index, paired in enumerate(derangement(sources, generator=generator).tolist())
    }
    allowed = {(i, j) for i in range(5) for j in range(5) if sources[i] != sources[j]}
    assert pairs == allowed


def test_distinct_sources_reach_the_draws() -> None:
    sources = torch.arange(8) // 2
    config = CorrespondenceConfig(samples=2, negatives=20, distinct_sources=True)
    drawn = draw(8, config, None, sources, generator=torch.Generator().manual_seed(1))
    assert drawn.sources.shape == (20, 8)
    assert (sources[drawn.sources] != sources).all()
    assert len({tuple(row) for row in drawn.sources.tolist()}) > 10


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
