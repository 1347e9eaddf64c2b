"""Modality networks, normalisations and fusions against plain arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from torch import Tensor, nn

from unim2_core.model.fusion import ModalityFusion, ModalityNetwork, fusion_layers, normalized


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@given(b=st.integers(1, 3), d=st.integers(2, 5), h=st.integers(1, 4), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_normalisations_equal_loops(b: int, d: int, h: int, seed: int) -> None:
    features = noise(b, d, h, 3, seed=seed) + 0.5
    unit, standard, spread = (
        normalized(features, kind) for kind in ("l2", "standardize", "minmax")
    )
    for i in range(b):
        values = features[i].flatten().tolist()
        mean = sum(values) / len(values)
        deviation = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
        for y in range(h):
            for x in range(3):
                vector = features[i, :, y, x]
                length = sum(v * v for v in vector.tolist()) ** 0.5
                torch.testing.assert_close(unit[i, :, y, x], vector / length)
                torch.testing.assert_close(standard[i, :, y, x], (vector - mean) / deviation)
                low, high = min(values), max(values)
                torch.testing.assert_close(spread[i, :, y, x], (vector - low) / (high - low))
    assert normalized(features, "none") is features


@pytest.mark.parametrize("kind", ["l2", "standardize", "minmax", "none"])
def test_constant_features_stay_finite(kind: str) -> None:
    for value in (0.0, 3.0):
        assert normalized(torch.full((2, 4, 3, 3), value), kind).isfinite().all()


def test_widths_of_the_learnt_fusions() -> None:
    def widths(layers: nn.Sequential) -> list[tuple[int, int]]:
        return [(m.in_channels, m.out_channels) for m in layers if isinstance(m, nn.Conv2d)]

    assert widths(fusion_layers("conv", 2, 7)) == [(14, 10), (10, 7)]
    assert widths(fusion_layers("conv", 4, 8)) == [(32, 20), (20, 8)]
    progressive = fusion_layers("progressive", 4, 8)
    assert widths(progressive) == [(32, 24), (24, 16), (16, 8), (8, 8)]
    assert [m.num_features for m in progressive if isinstance(m, nn.BatchNorm2d)] == [24, 16, 8]
    for kind in ("sum", "mean", "max"):
        assert len(fusion_layers(kind, 3, 8)) == 0


@pytest.mark.parametrize("kind", ["sum", "mean", "max"])
def test_reductions_over_modalities(kind: str) -> None:
    names = ("rgb", "depth", "thermal")
    fusion = ModalityFusion(names, 6, kind)
    features = {name: noise(2, 6, 3, 4, seed=i) for i, name in enumerate(names)}
    maps = [normalized(fusion.networks[name](features[name]), "l2") for name in names]
    if kind == "max":
        expected = torch.maximum(torch.maximum(maps[0], maps[1]), maps[2])
    else:
        expected = (maps[0] + maps[1] + maps[2]) / (3 if kind == "mean" else 1)
    torch.testing.assert_close(fusion(features), expected)


def test_order_of_modalities_is_that_of_the_network() -> None:
    fusion = ModalityFusion(("rgb", "depth"), 6)
    features = {"rgb": noise(2, 6, 3, 4), "depth": noise(2, 6, 3, 4, seed=1)}
    turned = dict(reversed(features.items()))
    torch.testing.assert_close(fusion(turned), fusion(features))


def test_one_modality_passes_as_it_is() -> None:
    fusion = ModalityFusion(("rgb",), 6, "progressive")
    features = noise(2, 6, 3, 4)
    assert fusion({"rgb": features}) is features
    assert list(fusion.parameters()) == []


def test_residual_adds_the_input() -> None:
    plain, residual = ModalityNetwork(6), ModalityNetwork(6, residual=True)
    residual.load_state_dict(plain.state_dict())
    features = noise(2, 6, 3, 4)
    torch.testing.assert_close(residual(features), plain(features) + features)
