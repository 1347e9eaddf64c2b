"""What a GPU gives: backbones of five cameras at once, in torch, beside what the GPU could give.

    python benchmarks/gpu.py --json gpu.json        # random weights; needs torch alone
    python benchmarks/gpu.py --model site.unim2     # and a bundle end to end, with its gate
    python benchmarks/gpu.py --quick                # without torch.compile

A batch is five images 480x640, uint8 on the device already, but for the last rows. Times are
medians between CUDA events. "% peak" is the work of all matrix products, counted, against the
rate of one large product in the same type and the same run. The cosine is the smallest of all
tokens' to eager float32. A row that fails says why; the others go on.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

os.environ.setdefault("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1")  # each variant compiles anew

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, where nothing is installed

from unim2_core.inference.cuda_graph import CapturedRun
from unim2_core.inference.export import NormalisedBackbone
from unim2_core.model.backbone import BACKBONES, DinoV3
from unim2_core.model.prepared import Transformer, prepared

BATCH, HEIGHT, WIDTH = 5, 480, 640
SIDE = 8192
"""Of the matrices whose product is the measure of the machine."""
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TARGETS_MS = {"dinov3_vits16": 1.5, "dinov3_vitb16": 4.0}
COLUMNS = ("network", "type", "how", "ms", "% peak", "cosine", "start s", "note")
WARM_UPS = 3
COMPILED = (("bf16", False), ("bf16", True), ("fp16", False), ("fp16", True))
"""Type, and whether with cuDNN's attention."""
CUDNN_FIRST = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]


@dataclass
class Row:
    """One line of the table.

    Attributes:
        network: what runs.
        dtype: that it computes in.
        how: it is run.
        ms: median of a batch, milliseconds.
        share: of the measured peak, in [0, 1].
        cosine: smallest of all tokens' to eager float32.
        start_s: until it could run, seconds.
        note: why there is no figure, or more about it.
    """

    network: str
    dtype: str
    how: str
    ms: float | None = None
    share: float | None = None
    cosine: float | None = None
    start_s: float | None = None
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        """For the table."""

        def text(value: float | None, form: str) -> str:
            return "-" if value is None else format(value, form)

        return (
            *(self.network, self.dtype, self.how, text(self.ms, ".3f")),
            text(None if self.share is None else 100 * self.share, ".0f"),
            *(text(self.cosine, ".5f"), text(self.start_s, ".1f"), self.note),
        )


@dataclass(frozen=True, eq=False)
class Subject:
    """A backbone that all ways of running it share.

    Attributes:
        name: of the architecture.
        network: float32, on the device.
        images: (B, H, W, 3) uint8, on the device.
        exact: its tokens, eager float32.
        flops: of a batch.
    """

    name: str
    network: nn.Module
    images: torch.Tensor
    exact: torch.Tensor
    flops: float


@dataclass
class Bench:
    """All rows, and what they are measured with.

    Attributes:
        rounds: batches that are timed.
        peaks: type -> measured operations a second.
        rows: so far.
    """

    rounds: int
    peaks: dict[str, float] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)

    @contextmanager
    def row(self, network: str, dtype: str, how: str) -> Iterator[Row]:
        """Keep a row, also one that fails."""
        row = Row(network, dtype, how)
        began = time.perf_counter()
        try:
            yield row
        except Exception as error:  # whatever it is, the other rows are worth having
            lines = str(error).strip().splitlines() or [""]
            row.note = f"FAILED {type(error).__name__}: {lines[0][:150]}"
            torch.cuda.synchronize()
        self.rows.append(row)
        print("  ".join(row.cells()), f"({time.perf_counter() - began:.1f} s)", flush=True)

    def ms(self, run: Callable[[], object], stream: torch.cuda.Stream | None = None) -> float:
        """Median time on the device, each call alone."""
        with torch.cuda.stream(stream or torch.cuda.current_stream()):
            for _ in range(WARM_UPS):
                run()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            taken = []
            for _ in range(self.rounds):
                torch.cuda.synchronize()
                begin.record()
                run()
                end.record()
                torch.cuda.synchronize()
                taken.append(begin.elapsed_time(end))
        return median(taken)

    def figures(
        self,
        row: Row,
        run: Callable[[], object],
        subject: Subject,
        tokens: torch.Tensor,
        stream: torch.cuda.Stream | None = None,
    ) -> None:
        """Fill a row: how long a run takes, how much of the peak that is, how right it is."""
        row.ms = self.ms(run, stream)
        if row.dtype in self.peaks:
            row.share = subject.flops / (row.ms * 1e-3) / self.peaks[row.dtype]
        cosines = nn.functional.cosine_similarity(tokens.float(), subject.exact, dim=-1)
        row.cosine = float(cosines.min())


def matrix_peak(bench: Bench, dtype: str) -> None:
    """Measure what a large matrix product gives."""
    with bench.row(f"matrix product {SIDE}", dtype, "torch.mm") as row:
        one, other = torch.randn(2, SIDE, SIDE, device="cuda").to(DTYPES[dtype])
        row.ms = bench.ms(lambda: torch.mm(one, other))
        bench.peaks[dtype] = 2 * SIDE**3 / (row.ms * 1e-3)
        row.note = f"{bench.peaks[dtype] / 1e12:.0f} TFLOP/s"


@torch.inference_mode()
def one_network(bench: Bench, name: str, make: Callable[[], nn.Module]) -> Subject | None:
    """All rows of a backbone but the compiled ones."""
    subject = None
    with bench.row(name, "fp32", "eager") as row:
        torch.manual_seed(0)
        network = make().cuda().eval()
        plain = NormalisedBackbone(network, MEAN, STD).cuda()
        images = torch.randint(0, 256, (BATCH, HEIGHT, WIDTH, 3), dtype=torch.uint8).cuda()
        subject = Subject(name, network, images, plain(images), flops_of(network))
        bench.figures(row, lambda: plain(images), subject, subject.exact)
        row.note = f"{subject.flops / 1e9:.0f} GFLOP of matrix products"
    if subject is None:
        return None
    for dtype in ("bf16", "fp16"):
        with bench.row(name, dtype, "eager") as row:
            ready = fast(subject.network, dtype)
            tokens = ready(subject.images)
            bench.figures(row, lambda: ready(subject.images), subject, tokens)  # noqa: B023
        captured(bench, subject, dtype)
        captured(bench, subject, dtype, cudnn=True)
    return subject


def flops_of(network: nn.Module) -> float:
    """Of the matrix products of a batch; a multiplication and an addition count as two."""
    network = getattr(network, "transformer", network)
    assert isinstance(network, DinoV3)
    size = network.config
    places = (HEIGHT // size.patch_size) * (WIDTH // size.patch_size)
    tokens, width = places + 1 + size.n_storage, size.embed_dim
    block = 2 * tokens * width * (4 * width + 2 * size.ffn_dim) + 4 * tokens**2 * width
    return BATCH * (size.depth * block + 2 * places * 3 * size.patch_size**2 * width)


def fast(network: nn.Module, dtype: str, compiled: bool = False) -> nn.Module:
    """As the torch backend runs it; the network itself stays as it is."""
    ready = prepared(copy.deepcopy(network), DTYPES[dtype])
    if compiled:
        for module in ready.modules():
            if isinstance(module, Transformer):
                for block in module.network.blocks:
                    block.compile(fullgraph=True, dynamic=False)
    return NormalisedBackbone(ready, MEAN, STD).cuda().eval()


@torch.inference_mode()
def captured(
    bench: Bench, subject: Subject, dtype: str, *, cudnn: bool = False, compiled: bool = False
) -> None:
    """The row of a CUDA graph, and one with the way to the device and back."""
    how = "CUDA graph" + ", compiled blocks" * compiled + ", cuDNN attention" * cudnn
    run = None
    with bench.row(subject.name, dtype, how) as row, ExitStack() as stack:
        if cudnn:
            stack.enter_context(sdpa_kernel(CUDNN_FIRST, set_priority=True))
        if compiled:
            torch.compiler.reset()
        ready = fast(subject.network, dtype, compiled)
        host = {"images": subject.images.cpu().numpy()}
        began = time.perf_counter()
        run = CapturedRun(lambda inputs: {"tokens": ready(**inputs)}, host, subject.images.device)
        row.start_s = time.perf_counter() - began
        tokens = torch.from_numpy(run(host)["tokens"]).cuda()
        bench.figures(row, run.replay, subject, tokens, run.stream)
        target = TARGETS_MS.get(subject.name)
        if target is not None and row.ms is not None:
            row.note = f"target {target} ms: {'met' if row.ms <= target else 'missed'}"
    if run is None or cudnn or compiled:
        return
    with bench.row(subject.name, dtype, "CUDA graph, NumPy in and out") as row:
        taken = []
        for _ in range(bench.rounds):
            start = time.perf_counter()
            run(host)
            taken.append(1e3 * (time.perf_counter() - start))
        row.ms = median(taken)


@torch.inference_mode()
def theirs(bench: Bench, name: str) -> None:
    """The same size in transformers, eager, as it comes."""
    size = BACKBONES[name]
    for dtype in ("fp32", "bf16"):
        with bench.row(f"transformers {name}", dtype, "eager") as row:
            from transformers import DINOv3ViTConfig, DINOv3ViTModel

            config = DINOv3ViTConfig(
                hidden_size=size.embed_dim,
                intermediate_size=size.ffn_dim,
                num_hidden_layers=size.depth,
                num_attention_heads=size.num_heads,
                num_register_tokens=size.n_storage,
            )
            model = DINOv3ViTModel(config).cuda().eval().to(DTYPES[dtype])
            images = torch.randn(BATCH, 3, HEIGHT, WIDTH, device="cuda").to(DTYPES[dtype])
            row.ms = bench.ms(lambda: model(images))  # noqa: B023


def bundle_rows(bench: Bench, path: Path) -> None:
    """A bundle through the torch backend: gate, and time of all its modalities."""
    for precision in DTYPES:
        with bench.row(path.name, precision, "torch backend, batch, NumPy in and out") as row:
            from unim2_core.inference.engine import Engine
            from unim2_core.model.bundle import Bundle

            bundle = Bundle(path)
            began = time.perf_counter()
            engine = Engine(bundle, "torch", precision=precision, device="cuda")  # type: ignore[arg-type]
            row.start_s = time.perf_counter() - began
            images = bundle.parity()["images"]
            tokens = engine.tokens(images)
            presence = np.ones(tokens.shape[:3], np.float32)
            backbone, head = [], []
            for done in range(bench.rounds + WARM_UPS):
                start = time.perf_counter()
                engine.tokens(images)
                between = time.perf_counter()
                engine.classify(tokens, presence)
                if done >= WARM_UPS:
                    backbone.append(1e3 * (between - start))
                    head.append(1e3 * (time.perf_counter() - between))
            row.ms = median(backbone)
            row.cosine = engine.parity.token_cosine
            height, width = images.shape[1:3]
            row.note = (
                f"{len(images)} x {width}x{height}, head {median(head):.2f} ms, max error "
                f"{engine.parity.max_error:.1e}, label agreement {engine.parity.agreement:.4f}"
            )


def tiny() -> nn.Module:
    """The small backbone of the package, with its weights."""
    from unim2_core.model.tiny import TinyBackbone

    return TinyBackbone.load()


def print_table(rows: list[Row]) -> None:
    """Print all rows, columns aligned; no library is needed for it."""
    lines = [COLUMNS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    for line in lines:
        cells = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        print("  ".join(cells).rstrip())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50, help="batches that are timed")
    parser.add_argument("--model", type=Path, action="append", default=[], help="a bundle")
    parser.add_argument("--quick", action="store_true", help="without torch.compile")
    parser.add_argument(
        "--seconds", type=float, default=75.0, help="after so many nothing more is compiled"
    )
    parser.add_argument("--json", type=Path, help="write the results here too")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit(f"torch {torch.__version__} finds no CUDA device: nothing was measured")
    torch.backends.cudnn.allow_tf32 = False
    name = torch.cuda.get_device_name()
    machine = f"{name}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}"
    print(machine)
    began = time.perf_counter()
    bench = Bench(arguments.rounds)
    for dtype in ("bf16", "fp16"):
        matrix_peak(bench, dtype)
    for path in arguments.model:
        bundle_rows(bench, path)
    makers = {key: partial(DinoV3, BACKBONES[key]) for key in TARGETS_MS}
    subjects = [one_network(bench, key, make) for key, make in (makers | {"tiny": tiny}).items()]
    for key in TARGETS_MS:
        theirs(bench, key)
    for dtype, cudnn in () if arguments.quick else COMPILED:
        for subject in filter(None, subjects[:2]):
            if time.perf_counter() - began < arguments.seconds:
                captured(bench, subject, dtype, cudnn=cudnn, compiled=True)
            else:
                print(f"{subject.name} {dtype} compiled: left out, {arguments.seconds} s are over")
    print(f"\n{machine}: {BATCH} x {WIDTH}x{HEIGHT}, {time.perf_counter() - began:.0f} s in all")
    print_table(bench.rows)
    if arguments.json:
        content = {"machine": machine, "peaks": bench.peaks, "rows": list(map(asdict, bench.rows))}
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")
        print(f"written: {arguments.json}")


if __name__ == "__main__":
    main()
