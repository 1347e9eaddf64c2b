"""Both probes against loops over places."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from unim2_core.model.probes import ClusterProbe, LinearProbe, resized


@given(
    clusters=st.integers(2, 6),
    code_dim=st.integers(1, 5),
    side=st.integers(1, 4),
    alpha=st.sampled_from([None, 0.5, 3.0]),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=30)
def test_cluster_loss_equals_loops(
    clusters: int, code_dim: int, side: int, alpha: float | None, seed: int
) -> None:
    torch.manual_seed(seed)
    probe = ClusterProbe(code_dim, clusters).double()
    code = torch.randn(2, code_dim, side, side + 1, dtype=torch.float64)
    loss, probabilities = probe(code, alpha)
    total, places = 0.0, 0
    for b in range(2):
        for y in range(side):
            for x in range(side + 1):
                s = code[b, :, y, x]
                cosines = [float(s @ mu / (s.norm() * mu.norm())) for mu in probe.centers.detach()]
                if alpha is None:
                    best = max(range(clusters), key=cosines.__getitem__)
                    weights = [float(k == best) for k in range(clusters)]
                else:
                    powers = [math.exp(alpha * c) for c in cosines]
                    weights = [p / sum(powers) for p in powers]
                assert probabilities[b, :, y, x].tolist() == pytest.approx(weights)
                total -= sum(w * c for w, c in zip(weights, cosines, strict=True))
                places += 1
    assert float(loss.detach()) == pytest.approx(total / places)
    if alpha is not None:
        logs = probe.log_probabilities(code, alpha)
        torch.testing.assert_close(logs.exp(), probabilities)


def test_scores_are_linear_and_order_as_cosines_do() -> None:
    probe = ClusterProbe(6, 5)
    a, b = torch.randn(2, 6, 4, 4), torch.randn(2, 6, 4, 4)
    torch.testing.assert_close(probe.scores(2 * a + b), 2 * probe.scores(a) + probe.scores(b))
    assert probe.scores(a).argmax(1).equal(probe.cosines(a).argmax(1))
    assert probe.cosines(a).abs().max() <= 1 + 1e-6


@given(
    classes=st.integers(2, 5),
    h=st.integers(1, 4),
    scale=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(deadline=None, max_examples=20)
def test_linear_loss_equals_loops(classes: int, h: int, scale: int, seed: int) -> None:
    torch.manual_seed(seed)
    probe = LinearProbe(3, classes).double()
    code = torch.randn(2, 3, h, h, dtype=torch.float64)
    labels = torch.randint(0, classes + 1, (2, h * scale, h * scale), dtype=torch.uint8)
    labels[labels == classes] = 255
    logits = resized(probe(code), labels.shape[1:])
    terms = []
    for b, y, x in (labels != 255).nonzero().tolist():
        scores = logits[b, :, y, x].tolist()
        normalizer = math.log(sum(map(math.exp, scores)))
        terms.append(normalizer - scores[int(labels[b, y, x])])
    expected = sum(terms) / len(terms) if terms else 0.0
    assert float(probe.loss(code, labels).detach()) == pytest.approx(expected)


def test_many_images_give_the_mean_over_all_their_pixels() -> None:
    probe, code = LinearProbe(3, 4), torch.randn(19, 3, 2, 3)  # more than are resized at once
    labels = torch.randint(0, 5, (19, 5, 7))
    labels[labels == 4] = 255
    labels[3] = 255
    logits = resized(probe(code), labels.shape[1:]).permute(0, 2, 3, 1)[labels != 255]
    expected = torch.nn.functional.cross_entropy(logits, labels[labels != 255])
    torch.testing.assert_close(probe.loss(code, labels), expected)


@given(st.tuples(*[st.integers(1, 9)] * 4), st.integers(0, 99))
@settings(deadline=None, max_examples=40)
def test_resizing_equals_interpolation(sides: tuple[int, int, int, int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randn(2, 3, *sides[:2], generator=generator)
    maps = maps.contiguous(memory_format=torch.channels_last)
    expected = torch.nn.functional.interpolate(
        maps, size=sides[2:], mode="bilinear", align_corners=False
    )
    torch.testing.assert_close(resized(maps, sides[2:]), expected)


def test_labels_out_of_range_are_not_labelled() -> None:
    probe, code = LinearProbe(3, 4), torch.randn(1, 3, 2, 2)
    labels = torch.tensor([[[0, 3], [255, -1]]])
    other = torch.tensor([[[0, 3], [4, 254]]])
    torch.testing.assert_close(probe.loss(code, labels), probe.loss(code, other))


def test_no_labels_at_all_give_zero_and_no_nan() -> None:
    probe = LinearProbe(3, 4)
    loss = probe.loss(torch.randn(1, 3, 2, 2), torch.full((1, 4, 4), 255))
    loss.backward()
    assert loss == 0
    assert probe.weight.grad.abs().max() == 0


def test_probes_send_nothing_back() -> None:
    code = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = ClusterProbe(3, 4)(code)[0] + LinearProbe(3, 4).loss(code, torch.zeros(1, 2, 2))
    loss.backward()
    assert code.grad is None
