"""The head that is exported against the network that was trained, for every form of it."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from unim2_core.inference.bundling import export_head
from unim2_core.inference.onnxruntime import OnnxRuntimeGraph
from unim2_core.model.classifier import Classifier
from unim2_core.model.probes import resized
from unim2_core.model.segmenter import Segmenter, SegmenterConfig
from unim2_core.model.segmenter_head import SegmenterHead

WIDTH, CODE, CLUSTERS, PATCH, STRIDE = 12, 5, 7, 8, 2
ALL = ("rgb", "thermal", "nir")
FORMS = [
    *(
        {"fusion": fusion, "residual": residual}
        for fusion, residual in product(
            ("conv", "progressive", "sum", "mean", "max"), (False, True)
        )
    ),
    *({"normalization": kind} for kind in ("standardize", "minmax", "none")),
    {"projection": "linear"},
    {"networks": False},
    {"stand_in": True},
    {"modalities": ("rgb",)},
]


def classifier(**form: object) -> Classifier:
    torch.manual_seed(0)
    config = SegmenterConfig(**{"modalities": ALL, "feature_dim": WIDTH, "code_dim": CODE, **form})
    segmenter = Segmenter(config)
    for module in segmenter.modules():  # a batch norm that has seen something
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.normal_(module.weight)
            torch.nn.init.normal_(module.bias)
    if config.stand_in:
        torch.nn.init.normal_(segmenter.fusion.stand_in)
    count = len(config.modalities)
    return Classifier(
        segmenter,
        torch.randn(CLUSTERS, CODE),
        torch.randn(count, WIDTH),
        torch.rand(count, WIDTH) + 0.5,
    )


def places(model: Classifier, height: int, width: int, holes: bool) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(height)
    shape = (len(model.modalities), height, width)
    tokens = torch.randn((*shape, WIDTH), generator=generator)
    presence = torch.ones(shape)
    if holes:
        presence = (torch.rand(shape, generator=generator) > 0.4).float()
        presence[0] = 1.0
        presence[:, 0, 0] = 0.0  # nobody sees this place
    return tokens, presence


def expected(model: Classifier, tokens: torch.Tensor, presence: torch.Tensor) -> np.ndarray:
    """Scores of the trained network, resized, and the best of them."""
    named = {name: tokens[index : index + 1] for index, name in enumerate(model.modalities)}
    seen = {name: presence[index : index + 1] for index, name in enumerate(model.modalities)}
    size = [side * PATCH // STRIDE for side in tokens.shape[1:3]]
    return resized(model.scores(named, seen), size)[0].numpy()


def check(model: Classifier, classes: np.ndarray, scores: np.ndarray, blind: bool) -> None:
    corner = PATCH // STRIDE
    if blind:
        assert (classes[:corner, :corner] == 255).all()
        scores, classes = scores[:, corner:], classes[corner:]
    best = np.sort(scores, axis=0)[-2:]
    clear = best[1] - best[0] > 1e-4  # of the others rounding decides
    assert clear.mean() > 0.98
    assert (classes == scores.argmax(0))[clear].all()


@pytest.mark.parametrize("form", FORMS, ids=str)
@pytest.mark.parametrize("holes", [False, True])
def test_decides_as_the_network_does(form: dict[str, object], holes: bool) -> None:
    if holes and form.get("normalization") in ("standardize", "minmax"):
        pytest.skip("statistics of a whole image have no holes")
    model = classifier(**form)
    tokens, presence = places(model, 6, 9, holes)
    inputs = {name: torch.from_numpy(array) for name, array in model.head_inputs(2.0).items()}
    own = {name: inputs.pop(name) for name in ("mean", "scale", "prototypes", "valid")}
    head = SegmenterHead(model.segmenter.config, PATCH, STRIDE)
    classes, confidence = head(
        tokens, presence, **own, full_margin=inputs.pop("full_margin"), weights=inputs
    )
    check(model, classes.numpy(), expected(model, tokens, presence), holes)
    assert confidence.float().std() > 0


@pytest.mark.parametrize(
    "form", [{}, {"fusion": "progressive"}, {"modalities": ("rgb",)}], ids=str
)
def test_is_the_same_as_a_graph(form: dict[str, object], tmp_path: Path) -> None:
    model = classifier(**form, **({} if "modalities" in form else {"stand_in": True}))
    head = SegmenterHead(model.segmenter.config, PATCH, STRIDE)
    weights = model.head_inputs(0.3)
    export_head(head, tmp_path / "head.onnx", weights)
    graph = OnnxRuntimeGraph(tmp_path / "head.onnx")
    for height, width in ((4, 5), (11, 8)):  # traced at 6 x 7
        tokens, presence = places(model, height, width, True)
        found = graph({"tokens": tokens.numpy(), "presence": presence.numpy(), **weights})
        check(model, found["classes"], expected(model, tokens, presence), True)
    fewer = {**weights, "prototypes": weights["prototypes"][:3], "valid": weights["valid"][:3]}
    found = graph({"tokens": tokens.numpy(), "presence": presence.numpy(), **fewer})
    assert set(np.unique(found["classes"])) <= {0, 1, 2, 255}


def test_a_prototype_out_of_use_is_never_chosen() -> None:
    model = classifier()
    tokens, presence = places(model, 6, 9, False)
    inputs = {name: torch.from_numpy(array) for name, array in model.head_inputs(0.3).items()}
    own = {name: inputs.pop(name) for name in ("mean", "scale", "prototypes", "valid")}
    head = SegmenterHead(model.segmenter.config, PATCH, STRIDE)
    margin = inputs.pop("full_margin")
    before, _ = head(tokens, presence, **own, full_margin=margin, weights=inputs)
    own["valid"][int(before[0, 0])] = 0.0
    after, _ = head(tokens, presence, **own, full_margin=margin, weights=inputs)
    assert not (after == before[0, 0]).any()
