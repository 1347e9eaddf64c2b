"""Exported graphs, in every form: equal to torch, fp16 near fp32, taken by NVIDIA's compiler."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'unim2[train]'")

import engine_samples as samples
import onnx
from engine_samples import NAMES, images, write_model
from safetensors.numpy import load_file

from unim2_core.errors import ModelError, Unim2Error
from unim2_core.files import sha256
from unim2_core.inference import graph_files
from unim2_core.inference.bundling import head_arguments
from unim2_core.inference.graph_files import (
    BACKBONE,
    FROZEN,
    HEAD,
    MANIFEST,
    WEIGHTS,
    Form,
    export,
)
from unim2_core.inference.onnxruntime import OnnxRuntimeGraph
from unim2_core.model.bundle import Bundle
from unim2_core.model.heads import ClusterHead
from unim2_core.model.relabelling import relabelled
from unim2_core.model.segmenter_head import SegmenterHead

FREE, FIXED = None, (64, 96)
UNTRACED = ((32, 48), (80, 64), (144, 160))
FORMS = [
    pytest.param(Form(size, precision=precision, frozen=True), id=f"{precision}-{size}")
    for size in (FREE, FIXED)
    for precision in ("fp32", "fp16")
]


@pytest.fixture(scope="module", params=["network", "clusters"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_model(tmp_path_factory.mktemp("model") / "m.unim2", request.param)


def head_of(model: Bundle, stride: int) -> torch.nn.Module:
    trained = samples.network(samples.backbone()) if model.manifest.network else None
    if trained is None:
        return ClusterHead(16, stride)
    return SegmenterHead(trained.network, 16, stride)


def in_torch(model: Bundle, seen: np.ndarray, stride: int) -> tuple[np.ndarray, ...]:
    """Tokens, classes and confidence."""
    tokens = samples.backbone()(seen)
    head = head_of(model, stride)
    weights = model.weights()
    arguments = head_arguments(
        torch.from_numpy(tokens), torch.ones(tokens.shape[:3]), weights, head
    )
    with torch.inference_mode():
        classes, confidence = head(**arguments)
    return tokens, classes.numpy(), confidence.numpy()


def run(folder: Path, seen: np.ndarray) -> tuple[np.ndarray, ...]:
    """Tokens, classes and confidence of backbone and head, classes of the one graph."""
    backbone, head, frozen = (OnnxRuntimeGraph(folder / n, 1) for n in (BACKBONE, HEAD, FROZEN))
    tokens = np.concatenate([backbone({"images": image[None]})["tokens"] for image in seen])
    presence = np.ones(tokens.shape[:3], np.float32)
    weights = load_file(folder / WEIGHTS)
    answer = head({"tokens": tokens, "presence": presence, **weights})
    whole = frozen({"images": seen})
    return tokens, answer["classes"], answer["confidence"], whole["classes"]


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_graphs_equal_torch_at_sizes_and_strides_never_traced(
    model: Bundle, stride: int, tmp_path: Path
) -> None:
    export(model, tmp_path / "out", Form(FREE, stride=stride, frozen=True))
    for number, size in enumerate(UNTRACED):
        seen = images(size, seed=number)
        tokens, classes, confidence = in_torch(model, seen, stride)
        found = run(tmp_path / "out", seen)
        np.testing.assert_allclose(found[0], tokens, rtol=1e-4, atol=1e-4)
        assert found[1].shape == (size[0] // stride, size[1] // stride)
        differ = found[1] != classes
        assert differ.mean() < 0.005
        assert (found[2][differ] <= 1).all()  # ties only
        assert np.abs(found[2].astype(int) - confidence)[~differ].max() <= 1
        assert (found[3] != found[1]).mean() < 0.002
        assert len(np.unique(classes)) > 2


@pytest.mark.parametrize("size", [FREE, FIXED])
def test_half_precision_is_near_single(
    model: Bundle, size: tuple[int, int] | None, tmp_path: Path
) -> None:
    found = {}
    for precision in ("fp32", "fp16"):
        folder = tmp_path / precision
        made = export(model, folder, Form(size, precision=precision, frozen=True))
        found[precision] = run(folder, images(FIXED, seed=3))
        assert made.parity["token_cosine"] > 0.9999
    exact, near = found["fp32"], found["fp16"]
    assert np.abs(exact[0] - near[0]).max() > 0  # it is another precision
    cosines = (exact[0] * near[0]).sum(3) / (
        np.linalg.norm(exact[0], axis=3) * np.linalg.norm(near[0], axis=3)
    )
    agreement = [(exact[index] == near[index]).mean() for index in (1, 3)]
    print(f"smallest cosine {cosines.min():.6f}, agreement {agreement}")
    assert cosines.min() > 0.9999
    assert min(agreement) > 0.99


def test_half_precision_keeps_what_needs_the_range(model: Bundle, tmp_path: Path) -> None:
    export(model, tmp_path / "out", Form(FREE, precision="fp16"))
    kinds = {}
    for name in (BACKBONE, HEAD):
        graph = onnx.load(tmp_path / "out" / name)
        onnx.checker.check_model(graph, full_check=True)
        typed = onnx.shape_inference.infer_shapes(graph, strict_mode=True).graph
        types = {
            value.name: value.type.tensor_type.elem_type
            for value in (*typed.value_info, *typed.input, *typed.output)
        }
        types |= {part.name: part.data_type for part in typed.initializer}
        for node in typed.node:
            kinds.setdefault((name, node.op_type), set()).add(types[node.output[0]])
    half, single = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
    assert kinds[BACKBONE, "MatMul"] == kinds[BACKBONE, "Conv"] == {half}
    for kind in ("LayerNormalization", "Softmax", "Sin", "Cos"):
        assert kinds[BACKBONE, kind] == {single}
    assert kinds[HEAD, "Resize"] == kinds[HEAD, "TopK"] == {single}
    if model.manifest.network:
        assert kinds[HEAD, "MatMul"] == {half, single}  # all but the cosines


@pytest.mark.trt
@pytest.mark.parametrize("form", FORMS)
def test_nvidias_parser_and_compiler_take_every_graph(
    model: Bundle, form: Form, tmp_path: Path
) -> None:
    made = export(model, tmp_path / "out", form)
    assert sorted(made.graphs) == [BACKBONE, FROZEN, HEAD]
    for name, described in made.graphs.items():
        build(tmp_path / "out" / name, described.inputs, form)


def build(path: Path, inputs: dict[str, list[int | str]], form: Form) -> None:
    """Parse and compile a graph; fails where NVIDIA's library refuses it."""
    trt = pytest.importorskip("tensorrt_rtx", reason="no tensorrt-rtx: graphs not compiled")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(path.read_bytes())
    assert parsed, [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config = builder.create_builder_config()
    if form.size is None:
        profile = builder.create_optimization_profile()
        for value, axes in inputs.items():
            ranges = [[_length(axis, each) for axis in axes] for each in (2, 3, 5)]
            profile.set_shape(value, *ranges)
        config.add_optimization_profile(profile)
    else:
        outputs = [network.get_output(i) for i in range(network.num_outputs)]
        assert all(-1 not in tuple(tensor.shape) for tensor in outputs)
    assert builder.build_serialized_network(network, config) is not None


def _length(axis: int | str, count: int) -> int:
    """Of a free axis such as ``16*rows``."""
    if isinstance(axis, int):
        return axis
    factor, star, _ = axis.partition("*")
    return (int(factor) if star else 1) * count


@pytest.mark.trt
def test_merged_classes_are_looked_up_in_the_one_graph(model: Bundle, tmp_path: Path) -> None:
    copy = Bundle(Path(shutil.copytree(model.path, tmp_path / "merged.unim2")))
    merged = relabelled(copy, copy.manifest.labels[:3], {3: 0, 4: 255})
    form = Form(FIXED, frozen=True)
    manifest = export(merged, tmp_path / "out", form)
    assert manifest.served_as == {3: 0, 4: 255}
    _, clusters, _, classes = run(tmp_path / "out", images(FIXED))
    assert {3, 4} & set(np.unique(clusters)), "nothing to merge"
    table = np.array([0, 1, 2, 0, 255], np.uint8)
    assert (classes != table[clusters]).mean() < 0.002
    build(tmp_path / "out" / FROZEN, manifest.graphs[FROZEN].inputs, form)


def test_manifest_says_what_is_there(model: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = export(model, out, Form((80, 64), batch=2, stride=4, frozen=True))
    content = json.loads((out / MANIFEST).read_text())
    assert content == made.model_dump(mode="json")
    assert sorted(p.name for p in out.iterdir()) == sorted([*made.graphs, WEIGHTS, MANIFEST])
    assert content["model_sha256"] == model.sha256
    assert (content["stride"], content["precision"], content["opset"]) == (4, "fp32", 18)
    assert content["weights_sha256"] == sha256(out / WEIGHTS)
    for name, described in content["graphs"].items():
        assert described["sha256"] == sha256(out / name)
    assert content["graphs"][BACKBONE]["inputs"] == {"images": [2, 80, 64, 3]}
    assert content["graphs"][BACKBONE]["outputs"] == {"tokens": [2, 5, 4, 64]}
    assert content["graphs"][HEAD]["outputs"]["classes"] == [20, 16]
    assert content["graphs"][FROZEN]["inputs"] == {"images": [len(NAMES), 80, 64, 3]}
    assert content["graphs"][FROZEN]["types"] == dict.fromkeys(
        ("images", "classes", "confidence"), "uint8"
    )


def test_nothing_is_overwritten_or_half_written(
    model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(model, out, Form(FREE))
    before = (out / HEAD).read_bytes()
    with pytest.raises(ModelError, match="exists"):
        export(model, out, Form(FREE, stride=4))
    assert (out / HEAD).read_bytes() == before
    export(model, out, Form(FREE, stride=4), overwrite=True)
    assert (out / HEAD).read_bytes() != before
    (tmp_path / "mine").mkdir()
    with pytest.raises(ModelError, match="exists"):  # a folder of something else
        export(model, tmp_path / "mine", Form(FREE), overwrite=True)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(graph_files, "save_file", full)
    with pytest.raises(Unim2Error, match="cannot write"):
        export(model, tmp_path / "new", Form(FREE))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "out"]


def test_what_cannot_be_exported_is_said(
    model: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="stride of 3"):
        export(model, tmp_path / "out", Form(FREE, stride=3))
    stored = model.parity()
    wrong = {**stored, "classes": 1 - stored["classes"].clip(0, 1)}
    monkeypatch.setattr(Bundle, "parity", lambda _: wrong)
    with pytest.raises(ModelError, match="do not answer"):
        export(model, tmp_path / "out", Form(FREE))
    assert list(tmp_path.iterdir()) == []
