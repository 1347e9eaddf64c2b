"""What the small backbone is worth: beside its halves, beside random weights, and in time.

    python benchmarks/backbone.py                          # the synthetic world, size and latency
    python benchmarks/backbone.py --cwfid ../shared/data   # and real red and near infrared images
    python benchmarks/backbone.py --backbone ours.safetensors

Linear probes are fitted on labels of other drives; k-means sees none, and its clusters are matched
to classes afterwards. All are mIoU in percent over whole test sets, mean (deviation) of the seeds
of the probes' draw, of the clustering and of the random weights. Nothing that is trained here goes
into the backbone.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch
from candidates import KMeans, counted
from fields import Field, console, cwfid, synthetic
from machine import gflops, matrix_product, seconds_of
from rich.table import Table

from unim2_core.evaluation.linear_probe import linear_probe
from unim2_core.evaluation.runner import Tally
from unim2_core.inference.export import export_backbone
from unim2_core.learning.features import FeatureStore
from unim2_core.learning.kmeans import fit_clusters
from unim2_core.learning.training_free import PLACES, draw_places
from unim2_core.model.frozen import FrozenBackbone
from unim2_core.model.texture import TextureFeatures
from unim2_core.model.tiny import WEIGHTS, TinyBackbone
from unim2_core.sensing.modalities import MODALITIES
from unim2_core.shares import share

SIMPLE = TextureFeatures.embed_dim
PARTS = {"tiny": slice(None), "transformer": slice(SIMPLE, None), "simple features": slice(SIMPLE)}
LATENCY_SIZES = ((240, 320), (480, 640))
SOIL_AND_PLANTS = 2


def part_of(store: FeatureStore, channels: slice, rows: np.ndarray | None = None) -> FeatureStore:
    """Some channels of some pictures; views, nothing is copied."""
    chosen = store if rows is None else store.take(rows)
    return replace(chosen, tokens={n: array[..., channels] for n, array in chosen.tokens.items()})


def clustered(train: FeatureStore, test: FeatureStore, clusters: int, seed: int) -> float:
    """K-means on the one, its mIoU on the other, percent."""
    drawn = draw_places(train, PLACES // 4, seed)
    model = KMeans(fit_clusters(*drawn, clusters, seed), train.modalities)
    return 100 * counted(model, test, clusters).scores.mean_iou


def rows_of(where: Field, channels: slice, seeds: Sequence[int]) -> dict[str, list[float]]:
    """Column -> a figure for each seed."""
    found: dict[str, list[float]] = {}
    drives = {"": None}
    if len(np.unique(where.test.sequences)) > 1:
        drives = {"day ": 0, "night ": 1}
    for when, number in drives.items():
        train, test = (
            part_of(
                store,
                channels,
                None if number is None else np.flatnonzero(store.sequences == number),
            )
            for store in (where.train, where.test)
        )
        for names in [*((name,) for name in train.modalities), train.modalities]:
            column = f"{when}{names[0] if len(names) == 1 else 'all'}"
            found[column] = [
                100 * linear_probe(train, test, names, seed=seed).mean_iou for seed in seeds
            ]
        found[f"{when}k-means"] = [clustered(train, test, where.clusters, s) for s in seeds]
    return found


def table_of(fields: Sequence[Field], seeds: Sequence[int]) -> Table:
    """All rows of a field: ``fields`` has it for the backbone, then for random ones, by seed."""
    trained, *random = fields
    rows = {name: rows_of(trained, channels, seeds) for name, channels in PARTS.items()}
    several = [
        rows_of(one, slice(SIMPLE, None), [seed]) for one, seed in zip(random, seeds, strict=True)
    ]
    rows["random transformer"] = {
        column: [value for one in several for value in one[column]] for column in several[0]
    }
    columns = list(rows["tiny"])
    table = Table("features", *columns, title=f"{trained.name}: mIoU %")
    for name, row in rows.items():
        table.add_row(name, *(f"{np.mean(row[c]):.1f} ({np.std(row[c]):.1f})" for c in columns))
    return table


def pixelwise(data: Path, where: Field) -> None:
    """Print what needs no backbone: everything is soil, and Otsu's threshold of the NDVI."""
    assert where.test.labels is not None
    soil, index = (Tally(SOIL_AND_PLANTS, SOIL_AND_PLANTS) for _ in range(2))
    paths = sorted((data / "cwfid" / "images").glob("*.png"))[-len(where.test) :]
    for path, labels in zip(paths, where.test.labels, strict=True):
        image = cv2.imread(str(path))
        height, width = labels.shape
        small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA).astype(float)
        red, infrared = small[..., 2], small[..., 1]
        ndvi = (infrared - red) / np.maximum(infrared + red, 1)
        grey = np.clip((ndvi + 1) * 127.5, 0, 255).astype(np.uint8)
        _, plants = cv2.threshold(grey, 0, 1, cv2.THRESH_OTSU)
        index.add(plants[None], labels[None])
        soil.add(np.zeros((1, height, width), np.uint8), labels[None])
    console.print(
        f"cwfid in 2 classes without a backbone: everything soil "
        f"{100 * soil.scores.mean_iou:.1f}, NDVI above Otsu's threshold, pixel by pixel, "
        f"{100 * index.scores.mean_iou:.1f}"
    )


def latency(backbone: TinyBackbone) -> None:
    """Print the size on the disk, and the time of one image."""
    normal = MODALITIES["rgb"]
    table = Table("size", "torch, ms", "ONNX Runtime, ms", title="one image, median of 5")
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "tiny.onnx"
        export_backbone(backbone, path, mean=normal.mean, std=normal.std)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        frozen = FrozenBackbone.of(backbone, "tiny")
        for size in LATENCY_SIZES:
            image = np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8)
            calls = (lambda: frozen(image), lambda: session.run(None, {"images": image}))  # noqa: B023
            figures = []
            for call in calls:
                call()
                figures.append(f"{1000 * seconds_of(call, 5):.0f}")
            table.add_row(f"{size[0]}x{size[1]}", *figures)
    console.print(table)
    product = matrix_product(torch.float32)
    product()
    console.print(
        f"weights: {share(WEIGHTS).stat().st_size / 1e6:.1f} MB; matrix products beside it "
        f"{gflops(seconds_of(product, 5)):.0f} GFLOP/s float32, {threads} threads"
    )


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="tiny", help="tiny, or a file of its weights")
    parser.add_argument("--cwfid", type=Path, help="folder that holds cwfid/")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=45.0, help="length of a training drive")
    parser.add_argument("--cache", type=Path, help="keeps drives and features")
    arguments = parser.parse_args()
    seeds = range(arguments.seeds)
    backbone = FrozenBackbone(arguments.backbone)
    assert isinstance(backbone.network, TinyBackbone)
    latency(backbone.network)
    backbones = [backbone]
    backbones += [FrozenBackbone.of(TinyBackbone.untrained(seed), "random") for seed in seeds]
    with tempfile.TemporaryDirectory() as scratch:
        cache = arguments.cache or Path(scratch)
        cache.mkdir(parents=True, exist_ok=True)
        console.print(
            table_of([synthetic(one, cache, arguments.seconds) for one in backbones], seeds)
        )
        for classes in (SOIL_AND_PLANTS, 3) if arguments.cwfid else ():
            fields = [cwfid(arguments.cwfid, one, cache, classes) for one in backbones]
            console.print(table_of(fields, seeds))
            if classes == SOIL_AND_PLANTS:
                pixelwise(arguments.cwfid, fields[0])


if __name__ == "__main__":
    main()
