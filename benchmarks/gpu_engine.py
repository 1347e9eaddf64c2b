"""What TensorRT makes of a model on this GPU: start, distance from the model, time of its graphs.

    python benchmarks/gpu_engine.py site.unim2
    python benchmarks/gpu_engine.py random.unim2 --make dinov3_vits16 --modalities 5 --size 480x640

The second makes a model of random weights first, where there is torch; elsewhere carry it there:
its weights have few values, so it packs into a third. A row that cannot be measured says why. The
last columns are the time of the device alone, many runs in a row: of the graph, and with what it
answers brought back.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from unim2_core.errors import ModelError
from unim2_core.inference.backends import Precision
from unim2_core.inference.cuda import device, device_there
from unim2_core.inference.engine import Engine
from unim2_core.inference.tensorrt import TensorRtGraph
from unim2_core.inference.tensorrt_building import library
from unim2_core.model.bundle import BACKBONE, HEAD, Bundle

ROUNDS = 100


def random_model(path: Path, backbone: str, modalities: int, size: tuple[int, int]) -> Bundle:
    """A model of random weights that answers several classes."""
    import torch

    from unim2_core.data.pictures import Picture
    from unim2_core.evaluation.parity_backbone import rule_weights
    from unim2_core.inference.bundling import Trained, stride_of, write_bundle
    from unim2_core.learning.methods import recipe
    from unim2_core.model.backbone import BACKBONES, DinoV3
    from unim2_core.model.classifier import Classifier
    from unim2_core.model.frozen import FOR_TRYING, FrozenBackbone
    from unim2_core.model.segmenter import Segmenter
    from unim2_core.model.segmenter_head import SegmenterHead
    from unim2_core.sensing.modalities import MODALITIES, Encoder

    names = tuple(MODALITIES)[:modalities]
    if backbone in FOR_TRYING:
        frozen = FrozenBackbone(backbone)
    else:
        network = DinoV3(BACKBONES[backbone])
        network.load_state_dict(rule_weights(network))
        for weights in network.parameters():
            step = weights.data.std() / 3 if weights.numel() > 1 else 0.0
            if step:
                weights.data = (weights.data / step).round().clamp(-8, 7) * step
        frozen = FrozenBackbone.of(network, f"{backbone} of random weights")
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (modalities, size[0] // 16, size[1] // 16, 3), np.uint8)
    images = dict(zip(names, coarse.repeat(16, 1).repeat(16, 2), strict=True))

    class Source:
        modalities = names
        encodings: Mapping[str, Any] = {name: Encoder(name).describe() for name in names}

        def __init__(self) -> None:
            self.size = size

        def fingerprint(self) -> str:
            return "random"

        def __iter__(self) -> Any:
            yield Picture("random", images)

    torch.manual_seed(0)
    form = recipe("unim2", names, frozen.embed_dim, 27).network
    classifier = Classifier(
        Segmenter(form),
        torch.randn(27, form.code_dim),
        torch.zeros(modalities, frozen.embed_dim),
        torch.ones(modalities, frozen.embed_dim),
    )
    tokens = {name: torch.from_numpy(frozen(images[name][None])) for name in names}
    codes = torch.nn.functional.normalize(
        classifier.codes(tokens).permute(0, 2, 3, 1).flatten(0, 2), dim=1
    )
    apart = codes - codes.mean(dim=0)  # what places do not have in common
    chosen = apart[torch.randperm(len(apart))[:27]]
    classifier.prototypes = torch.nn.functional.normalize(chosen, dim=1)
    head = SegmenterHead(form, frozen.patch_size, stride_of(frozen))
    trained = Trained(head, classifier.head_inputs(0.2), "random weights", {}, form)
    return write_bundle(path, Source(), frozen, trained)


def median_ms(run: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Of a call, after three to warm up."""
    seconds = []
    for number in range(rounds + 3):
        start = time.perf_counter()
        run()
        if number >= 3:
            seconds.append(time.perf_counter() - start)
    return 1e3 * float(np.median(seconds))


def device_ms(graph: TensorRtGraph) -> tuple[float, float]:
    """Of the graph alone, and with what it answers brought back; of the last shapes that ran."""
    execution = list(graph._ready.values())[-1]

    def many(start: Callable[[], object]) -> float:
        execution._stream.wait()
        began = time.perf_counter()
        for _ in range(ROUNDS):
            start()
        execution._stream.wait()
        return 1e3 * (time.perf_counter() - began) / ROUNDS

    alone = many(lambda: execution._context.execute_async_v3(execution._stream.handle))
    return alone, many(execution._start)


def rows(bundle: Bundle, precision: Precision) -> list[list[str]]:
    """One for each graph and batch."""
    starts = []
    for _ in range(2):
        begin = time.perf_counter()
        engine = Engine(bundle, "tensorrt", precision=precision)
        starts.append(f"{time.perf_counter() - begin:.1f}")
    parity = engine.parity
    near = [f"{parity.token_cosine:.5f}", f"{parity.max_error:.1e}", f"{parity.agreement:.4f}"]
    stored = bundle.parity()
    images, tokens = stored["images"], stored["tokens"].astype(np.float32)
    presence = np.ones(tokens.shape[:3], np.float32)
    backbone = TensorRtGraph(bundle.path / BACKBONE, precision)
    head = TensorRtGraph(bundle.path / HEAD, precision)
    weights = engine.heads.current.inputs
    found = []
    for title, graph, inputs in (
        ("backbone x 1", backbone, {"images": images[:1]}),
        (f"backbone x {len(images)}", backbone, {"images": images}),
        ("head", head, {"tokens": tokens, "presence": presence, **weights}),
    ):
        whole = median_ms(lambda graph=graph, inputs=inputs: graph(inputs))
        recorded = "yes" if list(graph._ready.values())[-1]._recorded else "no"
        times = (f"{value:.3f}" for value in (whole, *device_ms(graph)))
        found.append([precision, title, "/".join(starts), *near, recorded, *times])
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model bundle, NAME.unim2")
    parser.add_argument("--make", metavar="BACKBONE", help="make the model of random weights")
    parser.add_argument("--modalities", type=int, default=5)
    parser.add_argument("--size", default="480x640")
    arguments = parser.parse_args()
    console = Console(highlight=False, width=160)
    if arguments.make:
        height, width = (int(part) for part in arguments.size.split("x"))
        random_model(arguments.model, arguments.make, arguments.modalities, (height, width))
    bundle = Bundle(arguments.model)
    console.print(bundle.manifest.summary)
    if not device_there():
        console.print("no CUDA device: nothing was measured")
        return
    console.print(f"{library().__name__} {library().__version__} on {device()}")
    table = Table(
        *("precision", "graph", "start s, first/again", "token cosine", "max error"),
        *("label agreement", "CUDA graph", "call ms", "device ms", "with answers ms"),
    )
    for precision in ("fp32", "fp16"):
        try:
            for row in rows(bundle, precision):
                table.add_row(*row)
        except ModelError as error:
            console.print(f"{precision}: {error}")
    console.print(table)


if __name__ == "__main__":
    main()
