"""The head that is exported against the network that was trained, for every form of it."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

from unim2_core.inference.bundling import export_head
from unim2_core.inference.onnxruntime import OnnxRuntimeGraph
from unim2_core.model.classifier import Classifier, full_margin
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


def named(
    model: Classifier, tokens: torch.Tensor, presence: torch.Tensor
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """As the classifier takes them: by name, in a batch of one."""
    places = [
        {name: part[index : index + 1] for index, name in enumerate(model.modalities)}
        for part in (tokens, presence)
    ]
    return places[0], places[1]


def margin_of(model: Classifier) -> float:
    return full_margin(model.margins(*named(model, *places(model, 6, 9, True))).numpy())


def expected(model: Classifier, tokens: torch.Tensor, presence: torch.Tensor) -> np.ndarray:
    """Scores of the trained network, resized, and the best of them."""
    size = [side * PATCH // STRIDE for side in tokens.shape[1:3]]
    return resized(model.scores(*named(model, tokens, presence)), size)[0].numpy()


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


GRAPHS = {
    "conv": {"stand_in": True},
    "progressive": {"fusion": "progressive", "normalization": "standardize", "stand_in": True},
    "alone": {"modalities": ("rgb",)},
}


@pytest.fixture(scope="module", params=list(GRAPHS))
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Classifier, Path]:
    model = classifier(**GRAPHS[request.param])
    path = tmp_path_factory.mktemp("graph") / "head.onnx"
    head = SegmenterHead(model.segmenter.config, PATCH, STRIDE)
    export_head(head, path, model.head_inputs(margin_of(model)))
    return model, path


def expected_confidence(
    model: Classifier, tokens: torch.Tensor, presence: torch.Tensor
) -> np.ndarray:
    """Best minus second of the resized scores, per resized length of the code, of 255."""
    scores = np.sort(expected(model, tokens, presence), axis=0)
    length = model.codes(*named(model, tokens, presence)).norm(dim=1, keepdim=True)
    length = resized(length, scores.shape[1:])[0, 0].numpy()
    return np.rint(np.clip((scores[-1] - scores[-2]) / length / margin_of(model), 0, 1) * 255)


def test_is_the_same_as_a_graph(exported: tuple[Classifier, Path]) -> None:
    model, path = exported
    graph = OnnxRuntimeGraph(path, threads=1)
    weights = model.head_inputs(margin_of(model))
    for height, width in ((4, 5), (11, 8)):  # traced at 6 x 7
        tokens, presence = places(model, height, width, True)
        found = graph({"tokens": tokens.numpy(), "presence": presence.numpy(), **weights})
        check(model, found["classes"], expected(model, tokens, presence), True)
        confidence = found["confidence"].astype(int)
        unseen = found["classes"] == 255
        assert (confidence[unseen] == 0).all()
        apart = np.abs(confidence - expected_confidence(model, tokens, presence))
        assert apart[~unseen].max() <= 1
        assert 30 < confidence[~unseen].mean() < 225
    fewer = {**weights, "prototypes": weights["prototypes"][:3], "valid": weights["valid"][:3]}
    found = graph({"tokens": tokens.numpy(), "presence": presence.numpy(), **fewer})
    assert set(np.unique(found["classes"])) <= {0, 1, 2, 255}


@pytest.mark.trt
def test_nvidias_parser_and_compiler_take_the_graph(exported: tuple[Classifier, Path]) -> None:
    trt = pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx: graphs not compiled")
    model, path = exported
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    graph = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(graph, logger)
    parsed = parser.parse(path.read_bytes())
    assert parsed, [str(parser.get_error(i)) for i in range(parser.num_errors)]
    for index, name in enumerate(("classes", "confidence")):
        output = graph.get_output(index)
        assert (output.name, output.dtype) == (name, trt.DataType.UINT8)
    count = len(model.modalities)
    profile = builder.create_optimization_profile()
    shapes = {
        "tokens": [(count, rows, rows, WIDTH) for rows in (2, 14, 40)],
        "presence": [(count, rows, rows) for rows in (2, 14, 40)],
        "prototypes": [(clusters, CODE) for clusters in (2, 13, 254)],
        "valid": [(clusters,) for clusters in (2, 13, 254)],
    }
    for name, (smallest, usual, largest) in shapes.items():
        profile.set_shape(name, smallest, usual, largest)
    config = builder.create_builder_config()
    config.add_optimization_profile(profile)
    # Only built, never loaded: trt.Runtime crashes without a CUDA device.
    engine = builder.build_serialized_network(graph, config)
    assert engine is not None
    assert engine.nbytes > 0


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
