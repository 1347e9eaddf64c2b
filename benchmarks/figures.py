"""The figures of the documentation, made from synthetic drives on the small backbone.

    python benchmarks/figures.py                 # all of them, into docs/images
    python benchmarks/figures.py curves          # curves-healthy.svg, curves-sick.svg, a table
    python benchmarks/figures.py method          # how-it-works.jpg
    python benchmarks/figures.py registration    # registration.jpg
    python benchmarks/figures.py fallback        # fallback.jpg

``curves`` trains the same model twice on the same drive: as it is, and for fewer steps with a
learning rate that is a hundred times as high. ``method`` shows a moment of another drive through
the first of them, ``fallback`` another one with fewer and fewer cameras.
"""

from __future__ import annotations

import argparse
import html
import tempfile
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from registration import scene
from rich.console import Console
from rich.table import Table

from unim2_core.cli.drive_samples import Eye
from unim2_core.cli.report_charts import training_charts
from unim2_core.cli.training import Places, train_model
from unim2_core.data.drive_labels import SYNTHETIC
from unim2_core.data.drive_pictures import DrivePictures, encodings_of
from unim2_core.data.drives import take
from unim2_core.data.synthetic import PALETTE, DriveConfig, default_rig, write_drive
from unim2_core.inference.engine import Engine
from unim2_core.inference.pipeline import Pipeline
from unim2_core.learning.methods import Recipe, recipe
from unim2_core.learning.observers import HISTORY, History, read_history
from unim2_core.model.bundle import Bundle
from unim2_core.model.frozen import FrozenBackbone
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.intake import Intake, with_fallback
from unim2_core.sensing.registrar import Registrar
from unim2_core.sensing.rig import Rig
from unim2_core.sensing.warping import GridMap, warp_image
from unim2_core.showing.charts import HEIGHT, WIDTH
from unim2_core.showing.film import contact_sheet
from unim2_core.showing.jpeg import jpeg
from unim2_core.showing.overlay import colorize, overlay, side_by_side
from unim2_core.showing.palette import color_table

Image = NDArray[np.uint8]

FOLDER = Path(__file__).parents[1] / "docs" / "images"
DRIVE = DriveConfig(seed=0, duration_s=8.0, width=240, height=176)
OTHER = replace(DRIVE, seed=3, duration_s=4.0)
MODALITIES = ("rgb", "depth", "thermal")
CLUSTERS, FRAMES, STEPS = 12, 30, 300
TIMES_TOO_HIGH, SICK_STEPS = 100, 100
SHOWN = (
    "loss, mean over the modalities",
    "against labels, which only report",
    "evenness of the clusters' use",
    "gradient norm",
)
STYLE = """
text{font:11px system-ui,sans-serif;fill:#444} .title{font-weight:600;font-size:12px;fill:#111}
.grid{stroke:#ddd} polyline{fill:none;stroke-width:1.6;stroke-linejoin:round}
svg{--hue-0:#0b62c4;--hue-1:#c8500a;--hue-2:#1a7f4b;--hue-3:#8b3fc0;--hue-4:#b0163c}
"""
TILE_PX = 150
console = Console(highlight=False)


def trained(folder: Path, how: Recipe, backbone: FrozenBackbone, name: str) -> Bundle:
    """Learn from the drive that lies in the folder, and keep the log book."""
    pictures = DrivePictures(
        [folder / "drive"],
        default_rig(DRIVE),
        encodings_of(MODALITIES),
        patch_size=backbone.patch_size,
        frames=FRAMES,
        labels=SYNTHETIC,
        warn=console.print,
    )
    run = folder / f"{name}.run"
    places = Places(folder / f"{name}.unim2", folder / "cache", run, keep_run=True)
    bundle = train_model(
        pictures, pictures, backbone, how, places, observers=(History(run / HISTORY),)
    )
    assert bundle is not None
    return bundle


def learnt(folder: Path, *, sick: bool) -> Bundle:
    """A model of the drive; ``sick``: with a learning rate that is far too high."""
    backbone = FrozenBackbone("tiny")
    steps = SICK_STEPS if sick else STEPS
    made = recipe("unim2", MODALITIES, backbone.embed_dim, CLUSTERS, steps=steps, baseline=True)
    if sick:
        rate = made.trainer.rate * TIMES_TOO_HIGH
        made = replace(made, trainer=replace(made.trainer, rate=rate))
    name = "sick" if sick else "healthy"
    model = folder / f"{name}.unim2"
    return Bundle(model) if model.exists() else trained(folder, made, backbone, name)


def draw_curves(folder: Path, out: Path) -> None:
    """Write the curves of both trainings, and print where they begin and end."""
    table = Table("curve", "healthy: first, last", "rate too high: first, last")
    columns: dict[str, list[str]] = {}
    for sick in (False, True):
        learnt(folder, sick=sick)
        name = "sick" if sick else "healthy"
        history = read_history(folder / f"{name}.run" / HISTORY)
        charts = [c for c in training_charts(history) if c["title"] in SHOWN]
        (out / f"curves-{name}.svg").write_text(_composed(charts), encoding="utf-8")
        for title, first, last in _ends(history):
            columns.setdefault(title, []).append(f"{first:.3f}, {last:.3f}")
    for title, cells in columns.items():
        table.add_row(title, *cells)
    console.print(table)


def _ends(history: Sequence[Any]) -> list[tuple[str, float, float]]:
    found: dict[str, list[float]] = {}
    for line in history:
        for name, value in line.get("scalars", {}).items():
            if value is not None and not name.startswith(("speed", "rate")):
                found.setdefault(name, []).append(value)
    return [(name, values[0], values[-1]) for name, values in found.items()]


def _composed(charts: Sequence[Any]) -> str:
    """Charts two by two in one picture that brings its own colours and a white paper."""
    head = 40
    cell = HEIGHT + head
    rows = -(-len(charts) // 2)
    parts = []
    for index, chart in enumerate(charts):
        x, y = (index % 2) * WIDTH, (index // 2) * cell
        keys = "".join(
            f'<tspan dx="10" style="fill:var(--hue-{line.hue})">{html.escape(line.name)}</tspan>'
            for line in chart["legend"]
        )
        title = html.escape(chart["title"])
        parts.append(f'<text class="title" x="{x + 12}" y="{y + 18}">{title}</text>')
        parts.append(f'<text x="{x + 2}" y="{y + 34}">{keys}</text>')
        svg = str(chart["svg"]).replace("<svg ", f'<svg x="{x}" y="{y + head}" ', 1)
        parts.append(svg.replace("<svg ", f'<svg width="{WIDTH}" height="{HEIGHT}" ', 1))
    size = f"0 0 {2 * WIDTH} {rows * cell}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}"><style>{STYLE}</style>'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def draw_method(folder: Path, out: Path) -> None:
    """Write a moment of another drive: images, tokens, classes."""
    bundle = learnt(folder, sick=False)
    manifest = bundle.manifest
    if not (folder / "other").exists():
        write_drive(folder / "other", OTHER, lambda *_: None)
    source = DrivePictures(
        [folder / "other"],
        default_rig(OTHER),
        {entry.name: entry.encoding for entry in manifest.modalities},
        size=manifest.infer_size,
        patch_size=manifest.backbone.patch_size,
        frames=2,
        labels=SYNTHETIC,
        warn=console.print,
    )
    *_, picture = source
    engine = Engine(bundle)
    eye = Eye.of(engine, bundle, None, 0)
    tokens, presence = eye.tokens(picture)
    stacked = [np.stack([maps[name] for name in eye.modalities]) for maps in (tokens, presence)]
    seen = engine.classify(*stacked)
    names = [entry.name for entry in manifest.modalities]
    height, width = manifest.infer_size
    blank = np.zeros((height, width, 3), np.uint8)
    images = {f"1 {name}": picture.images.get(name, blank) for name in names}
    maps = {f"2 tokens, {name}": _coloured(tokens[name], (height, width)) for name in names}
    colors = color_table({label.id: label.color for label in manifest.labels})
    large = partial(cv2.resize, dsize=(width, height), interpolation=cv2.INTER_NEAREST)
    classes = large(seen.classes)
    last = {
        "3 classes": colorize(classes, colors),
        "overlay": overlay(picture.images[names[0]], classes, colors),
        "truth, not used": large(PALETTE[np.minimum(picture.labels, len(PALETTE) - 1)]),
    }
    rows = [side_by_side(tiles, TILE_PX) for tiles in (images, maps, last)]
    (out / "how-it-works.jpg").write_bytes(jpeg(contact_sheet(rows)))


def _coloured(tokens: NDArray[np.float32], size: tuple[int, int]) -> Image:
    """(H, W, 3) uint8: the three strongest directions of (h, w, D) tokens as colours."""
    flat = tokens.reshape(-1, tokens.shape[2])
    centred = flat - flat.mean(axis=0)
    _, _, directions = np.linalg.svd(centred, full_matrices=False)
    values = centred @ directions[:3].T
    low, high = np.percentile(values, (2, 98), axis=0)
    shown = np.clip((values - low) / np.maximum(high - low, 1e-6), 0, 1) * 255
    small = shown.reshape(*tokens.shape[:2], 3).astype(np.uint8)
    return np.asarray(cv2.resize(small, size[::-1], interpolation=cv2.INTER_NEAREST))


def draw_registration(folder: Path, out: Path) -> None:
    """Write edges of the thermal camera over the colour image, three ways."""
    config = replace(DRIVE, width=480, height=360)
    moment = scene(config, 4.0)
    rig = default_rig(config)
    unknown = {
        name: sensor.model_copy(update={"extrinsics": None})
        for name, sensor in rig.sensors.items()
    }
    blind = replace(
        moment.frames,
        frames={name: f for name, f in moment.frames.frames.items() if name != "depth"},
    )
    ways = {
        "taken as aligned": (Registrar(rig.model_copy(update={"sensors": unknown})), blind),
        "extrinsics, no depth": (Registrar(rig), blind),
        "through depth": (Registrar(rig), moment.frames),
    }
    rgb = np.asarray(moment.frames.frames["rgb"].data, np.uint8)
    size = rgb.shape[:2]
    tiles = {}
    for name, (registrar, frames) in ways.items():
        values = frames.frames["thermal"].data
        grids = {"thermal": (values.shape[0], values.shape[1])}
        grid = registrar(frames, (size[0], size[1]), grids).maps["thermal"]
        if grid is None:
            grid = GridMap.stretched((size[0], size[1]), grids["thermal"])
        low, high = np.percentile(values, (1, 99))
        grey = (np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        warped = warp_image(grey, grid)
        edges = cv2.Canny(cv2.GaussianBlur(warped, (0, 0), 2), 40, 90) > 0
        edges &= cv2.erode(grid.valid.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        picture = (0.75 * rgb).astype(np.uint8)
        picture[edges] = (255, 40, 40)
        tiles[name] = picture
    (out / "registration.jpg").write_bytes(jpeg(side_by_side(tiles, 260)))


def draw_fallback(folder: Path, out: Path) -> None:
    """Write a moment with all cameras, without rgb, and with nothing but depth."""
    bundle = learnt(folder, sick=False)
    if not (folder / "other").exists():
        write_drive(folder / "other", OTHER, lambda *_: None)
    colors = color_table({label.id: label.color for label in bundle.manifest.labels})
    pipeline = Pipeline(bundle, default_rig(OTHER))
    tiles = {}
    for name, dead in (
        ("all cameras: rgb", set()),
        ("rgb is dead: thermal", {"rgb"}),
        ("thermal too: depth", {"rgb", "thermal"}),
    ):
        pipeline.forget()
        *_, frames = _without(dead, folder / "other", pipeline.rig)
        result = pipeline(frames)
        picture = result.picture(frames)
        tiles[name] = np.vstack([picture, overlay(picture, result.classes, colors)])
    (out / "fallback.jpg").write_bytes(jpeg(side_by_side(tiles, 2 * TILE_PX)))


def _without(dead: Set[str], drive: Path, rig: Rig) -> Iterator[FrameSet]:
    """The sets of a drive on which some cameras never spoke."""
    intake = Intake(rig, with_fallback(("thermal", "depth")))
    with BagReader(drive) as reader:
        for message in reader.messages({*intake.topics, *intake.info_topics} & set(reader.topics)):
            if intake.topics.get(message.topic) not in dead:
                yield from map(intake.decode, take(intake, message))


FIGURES = {
    "curves": draw_curves,
    "method": draw_method,
    "registration": draw_registration,
    "fallback": draw_fallback,
}


def main() -> None:
    """Draw what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("figures", nargs="*", choices=[[], *FIGURES], help="default: all")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--work", type=Path, help="folder that drives and models are kept in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "drive").exists():
            write_drive(folder / "drive", DRIVE, lambda *_: None)
        for name in arguments.figures or FIGURES:
            FIGURES[name](folder, arguments.out)


if __name__ == "__main__":
    main()
