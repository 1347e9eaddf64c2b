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


@pytest.mark.parametrize("kind", ["standardize", "minmax"])
def test_what_is_not_seen_is_no_part_of_an_images_statistics(kind: str) -> None:
    features = noise(2, 5, 1, 7) + 3
    seen = torch.ones(2, 1, 1, 7)
    seen[1, ..., 4:] = 0
    torch.testing.assert_close(
        normalized(features, kind, torch.ones_like(seen)), normalized(features, kind)
    )
    found = normalized(torch.where(seen > 0, features, 1e3), kind, seen)
    torch.testing.assert_close(found[0], normalized(features, kind)[0])
    torch.testing.assert_close(found[1:, ..., :4], normalized(features[1:, ..., :4], kind))
    assert found.isfinite().all()


@pytest.mark.parametrize("normalization", ["l2", "standardize", "minmax", "none"])
@pytest.mark.parametrize("kind", ["conv", "progressive", "sum", "mean", "max"])
def test_where_a_modality_sees_nothing_its_stand_in_takes_its_place(
    kind: str, normalization: str
) -> None:
    torch.manual_seed(0)
    names = ("rgb", "depth", "thermal")
    fusion = ModalityFusion(names, 6, kind, normalization, stand_in=True).eval()
    nn.init.normal_(fusion.stand_in)
    features = {name: noise(2, 6, 3, 4, seed=i) for i, name in enumerate(names)}
    presence = {name: torch.ones(2, 3, 4) for name in names}
    torch.testing.assert_close(fusion(features, presence), fusion(features))
    presence["depth"][0, 1, 2] = 0
    presence["thermal"][1] = 0  # nothing anywhere
    fused = fusion(features, presence)
    maps = {name: fusion.networks[name](part) for name, part in features.items()}
    maps = {
        name: normalized(part, normalization, presence[name][:, None])
        for name, part in maps.items()
    }
    maps["depth"][0, :, 1, 2] = fusion.stand_in[1]
    maps["thermal"][1] = fusion.stand_in[2][:, None, None]
    stacked = torch.stack(list(maps.values()))
    reductions = {"sum": stacked.sum(0), "mean": stacked.mean(0), "max": stacked.amax(0)}
    expected = reductions.get(kind)
    if expected is None:
        expected = fusion.layers(torch.cat(list(maps.values()), dim=1))
    torch.testing.assert_close(fused, expected)
    other = {**features, "thermal": features["thermal"].clone()}
    other["thermal"][1] = 1e3  # whatever is there
    torch.testing.assert_close(fusion(other, presence), fused)
    fused.square().sum().backward()
    assert all(part.grad is not None for part in fusion.parameters())
    assert all(part.grad.isfinite().all() for part in fusion.parameters())
    assert (fusion.stand_in.grad[0] == 0).all()
    if kind != "max":  # which need not choose it
        assert (fusion.stand_in.grad[1:].abs().sum(dim=1) > 0).all()


def test_a_stand_in_that_is_not_learnt_is_zero_and_no_weight() -> None:
    fusion = ModalityFusion(("rgb", "depth"), 6, "sum")
    assert not any("stand_in" in name for name in fusion.state_dict())
    features = {"rgb": noise(2, 6, 3, 4), "depth": noise(2, 6, 3, 4, seed=1)}
    presence = {"rgb": torch.ones(2, 3, 4), "depth": torch.zeros(2, 3, 4)}
    alone = normalized(fusion.networks["rgb"](features["rgb"]), "l2")
    torch.testing.assert_close(fusion(features, presence), alone)


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


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_a_missing_modality_on_a_gpu_in_bfloat16() -> None:
    fusion = ModalityFusion(("rgb", "depth"), 8, stand_in=True)
    features = {name: noise(2, 8, 4, 4, seed=seed) for seed, name in enumerate(("rgb", "depth"))}
    presence = {"rgb": torch.ones(2, 4, 4), "depth": torch.zeros(2, 4, 4)}
    expected = fusion(features, presence)
    moved = [{k: v.cuda() for k, v in part.items()} for part in (features, presence)]
    with torch.autocast("cuda", torch.bfloat16):
        found = fusion.cuda()(*moved)
    torch.testing.assert_close(found.float().cpu(), expected, atol=0.02, rtol=0.02)
