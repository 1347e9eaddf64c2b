"""The network's head: branches, dropout masks, harmonizers, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.model.segmenter import (
    Segmenter,
    SegmenterConfig,
    reconstruction_loss,
    start_evenly,
)

CONFIG = SegmenterConfig(("rgb", "depth", "thermal"), feature_dim=8, code_dim=5)


def features(config: SegmenterConfig = CONFIG, batch: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (batch, config.feature_dim, 4, 6)
    return {name: torch.randn(shape, generator=generator) for name in config.modalities}


def conv(layer: torch.nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of one pixel, place by place."""
    weight = layer.weight[:, :, 0, 0]
    out = x.new_zeros(x.shape[0], weight.shape[0], *x.shape[2:])
    for y in range(x.shape[2]):
        for column in range(x.shape[3]):
            out[:, :, y, column] = x[:, :, y, column] @ weight.T + layer.bias
    return out


def test_the_head_is_two_branches_with_masks_of_their_own() -> None:
    network = Segmenter(CONFIG).train()
    masks = network.draw_dropout_masks(3, generator=torch.Generator().manual_seed(0))
    masks[:, 1, 2] = 0
    out = network(features(), masks)
    fused = network.fusion(features())
    a, b, c = (fused * mask[:, :, None, None] / 0.9 for mask in masks)
    hidden = conv(network.nonlinear[0], b).clamp(min=0)
    expected = conv(network.linear, a) + conv(network.nonlinear[2], hidden)
    torch.testing.assert_close(out.code, expected)
    torch.testing.assert_close(out.fused, fused)
    torch.testing.assert_close(out.returned, c)


def test_nothing_is_dropped_in_evaluation() -> None:
    network = Segmenter(CONFIG).eval()
    masks = torch.zeros(3, 3, 8)
    torch.testing.assert_close(network(features(), masks).code, network(features()).code)
    assert network(features()).returned.equal(network(features()).fused)


def test_masks_drop_whole_channels_at_the_stated_rate() -> None:
    config = replace(CONFIG, dropout=0.3)
    masks = Segmenter(config).draw_dropout_masks(4000)
    assert masks.shape == (3, 4000, 8)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert abs(masks.mean() - 0.7) < 0.01
    assert Segmenter(replace(config, projection="linear")).draw_dropout_masks(2).shape[0] == 2


def test_training_without_masks_draws_them() -> None:
    network = Segmenter(replace(CONFIG, dropout=0.5)).train()
    assert not network(features()).code.equal(network(features()).code)
    network = Segmenter(replace(CONFIG, dropout=0.0)).train()
    assert network(features()).code.equal(network(features()).code)


def test_who_is_harmonized() -> None:
    def names(**options: object) -> tuple[str, ...]:
        return replace(CONFIG, **options).harmonized

    assert names() == ("depth", "thermal")
    assert names(harmonize_reference=True) == ("rgb", "depth", "thermal")
    assert names(harmonize_reference=True, harmonize_others=False) == ("rgb",)
    assert names(harmonizer="none", harmonize_reference=True) == ()
    assert names(modalities=("rgb",), harmonize_reference=True) == ()


def test_harmonizers_are_shared_or_one_for_each() -> None:
    code = torch.randn(2, 5, 3, 3)
    apart = Segmenter(CONFIG)
    assert set(apart.harmonizers) == {"depth", "thermal"}
    codes = apart.supervised_codes(code)
    assert codes["rgb"] is code
    for name in ("depth", "thermal"):
        torch.testing.assert_close(codes[name], apart.harmonizers[name](code))
    assert not codes["depth"].equal(codes["thermal"])
    shared = Segmenter(replace(CONFIG, harmonizer="shared"))
    assert list(shared.harmonizers) == ["shared"]
    codes = shared.supervised_codes(code)
    assert codes["rgb"] is code and codes["depth"].equal(codes["thermal"])
    torch.testing.assert_close(codes["depth"], shared.harmonizers["shared"](code))
    none = Segmenter(replace(CONFIG, harmonizer="none"))
    assert list(none.harmonizers) == []
    assert all(each is code for each in none.supervised_codes(code).values())
    assert list(none.supervised_codes(code)) == ["rgb", "depth", "thermal"]


def test_the_harmonizer_takes_no_part_in_prediction() -> None:
    network = Segmenter(CONFIG).eval()
    before = network(features()).code
    for parameter in network.harmonizers.parameters():
        torch.nn.init.normal_(parameter)
    assert network(features()).code.equal(before)


def test_reconstruction_is_a_mean_cosine() -> None:
    a, b = torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3)
    cosines = [
        a[i, :, y, x] @ b[i, :, y, x] / (a[i, :, y, x].norm() * b[i, :, y, x].norm())
        for i in range(2)
        for y in range(3)
        for x in range(3)
    ]
    torch.testing.assert_close(reconstruction_loss(a, b), -sum(cosines) / len(cosines))


@pytest.mark.parametrize(
    "options",
    [
        {"fusion": "concat"},
        {"normalization": "batch"},
        {"projection": "deep"},
        {"harmonizer": "two"},
        {"modalities": ()},
        {"modalities": ("rgb", "rgb")},
        {"modalities": ("rgb", "shared")},
        {"feature_dim": 1},
        {"code_dim": 0},
        {"dropout": 1.0},
        {"dropout": -0.1},
    ],
)
def test_options_without_meaning_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ModelError, match=next(iter(options))):
        replace(CONFIG, **options)


@pytest.mark.parametrize("kind", ["missing", "other width", "other size", "no batch"])
def test_features_that_do_not_fit_are_refused(kind: str) -> None:
    given = features()
    if kind == "missing":
        del given["thermal"]
    elif kind == "other width":
        given = {name: tensor[:, :7] for name, tensor in given.items()}
    elif kind == "other size":
        given["depth"] = given["depth"][:, :, :3]
    else:
        given = {name: tensor[0] for name, tensor in given.items()}
    with pytest.raises(ModelError, match="cannot take these features"):
        Segmenter(CONFIG)(given)


@pytest.mark.parametrize("training", [True, False])
def test_what_is_seen_reaches_the_fusion(training: bool) -> None:
    network = Segmenter(replace(CONFIG, stand_in=True)).train(training)
    torch.nn.init.normal_(network.fusion.stand_in)
    shown = {name: torch.ones(3, 4, 6) for name in CONFIG.modalities}
    shown["depth"][1] = 0
    masks = network.draw_dropout_masks(3)
    out = network(features(), masks, shown)
    torch.testing.assert_close(out.fused, network.fusion(features(), shown))
    whole = network(features(), masks)
    for image, same in enumerate((True, False, True)):  # images know nothing of each other
        assert torch.allclose(out.code[image], whole.code[image], atol=1e-6) == same


@torch.no_grad()
def test_an_even_start_lets_through_what_tells_places_apart() -> None:
    def told_apart(network: Segmenter) -> float:
        """Share of the codes' squared length that is not common to all places."""
        codes = torch.nn.functional.normalize(network(features()).code, dim=1)
        return 1 - float(codes.mean(dim=(0, 2, 3)).square().sum())

    for seed in range(5):
        torch.manual_seed(seed)
        network = Segmenter(CONFIG).eval()
        published = told_apart(network)
        start_evenly(network)
        assert told_apart(network) > max(0.15, 3 * published)
