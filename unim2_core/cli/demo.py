"""``unim2 demo``: the whole path on a synthetic drive, offline, in minutes."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from unim2_core.cli.console import console, progress, warn
from unim2_core.cli.learning_data import torch_is_here
from unim2_core.cli.live import LiveReport, ros_is_here, run_live
from unim2_core.cli.options import MAX_SEED
from unim2_core.cli.segment import print_report, segment_bag
from unim2_core.data.synthetic import DriveConfig, default_rig, write_drive
from unim2_core.errors import Unim2Error
from unim2_core.files import cannot_write, write_atomically
from unim2_core.inference.bag_segmenter import SegmentReport
from unim2_core.inference.pipeline import Pipeline, Segmentation
from unim2_core.model.bundle import Bundle, Manifest
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.rig import Rig
from unim2_core.showing.film import Film, contact_sheet, write_png
from unim2_core.showing.overlay import colorize, overlay, side_by_side
from unim2_core.showing.palette import color_table

MARKER = ".unim2-demo"
MODALITIES = ("rgb", "depth", "thermal", "nir", "aolp")
FRAMES = 30
STEPS = 100
SHEET_ROWS = 6
TILE_PX = 150


def command(
    out: Annotated[Path, typer.Option("--out", help="Folder for everything.")] = Path("out/demo"),
    seconds: Annotated[float, typer.Option(min=2.0, help="Length of the drive.")] = 12.0,
    clusters: Annotated[int, typer.Option(help="Number of classes.")] = 12,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Of the world and of the clustering.")
    ] = 0,
    live: Annotated[bool, typer.Option(help="Run the live node too.")] = True,
) -> None:
    """Make a synthetic drive, learn classes from it, segment it offline and live.

    Needs no download, no camera and no ROS installation.

    Example: unim2 demo --out out/demo
    """
    started = time.monotonic()
    torch_is_here()
    from unim2_core.learning.methods import check_clusters

    check_clusters(clusters)
    _empty(out)
    drive, rig_file, model = out / "drive", out / "rig.yaml", out / "model.unim2"
    config = DriveConfig(seed=seed, duration_s=seconds)
    rig = default_rig(config)
    write_atomically(rig_file, rig.dump().encode())
    with progress("rendering a drive", None) as advance:
        write_drive(drive, config, advance)

    began = time.monotonic()
    bundle = _learn(drive, rig, out, clusters, seed)
    learning_s = time.monotonic() - began
    pipeline = Pipeline(bundle, rig)
    with Film(out / "overlay.mp4", config.rate_hz) as film:
        pictures = Pictures(pipeline.bundle.manifest, film)
        offline = segment_bag(drive, pipeline, out / "segmented", watch=pictures)
    write_png(out / "contact_sheet.png", pictures.sheet())
    print_report(offline)

    live_report = None
    if live and ros_is_here():
        with console.status("live: a player, the node and a recorder over DDS"):
            live_report = run_live(drive, model, rig_file, out / "live")
    elif live:
        warn("the live part is skipped: rclpy is not here (pip install 'unim2[ros]')")
    _summary(out, learning_s, offline, live_report, time.monotonic() - started)


def _learn(drive: Path, rig: Rig, out: Path, clusters: int, seed: int) -> Bundle:
    from unim2_core.cli.training import Places, train_on_drives

    places = Places(out / "model.unim2", out / "cache", out / "model.run")
    return train_on_drives(
        [drive], rig, MODALITIES, places, clusters=clusters, steps=STEPS, frames=FRAMES, seed=seed
    )


class Pictures:
    """Collects what a person wants to see of a run: a video and a few frames of it."""

    def __init__(self, manifest: Manifest, film: Film) -> None:
        self._film = film
        self._rows: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []
        self._modalities = manifest.modalities
        self._blank = np.zeros((*manifest.infer_size, 3), np.uint8)
        self._colors = color_table({label.id: label.color for label in manifest.labels})
        self._caption = manifest.summary

    def __call__(self, frames: FrameSet, result: Segmentation) -> None:
        """Take one frame in."""
        blended = overlay(result.picture(frames), result.classes, self._colors)
        seen = {
            entry.name: result.encoded.images[entry.name][1]
            if entry.name in result.encoded.images
            else self._blank
            for entry in self._modalities
        }
        confidence = np.repeat(result.confidence[..., None], 3, axis=2)
        tiles = {
            **seen,
            "classes": colorize(result.classes, self._colors),
            "overlay": blended,
            "confidence": confidence,
        }
        row = side_by_side(tiles, TILE_PX, self._caption)
        self._rows.append(row)
        self._film.add(row)

    def sheet(self) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        """A few frames, spread over the run."""
        chosen = np.linspace(0, len(self._rows) - 1, SHEET_ROWS).round().astype(int)
        return contact_sheet([self._rows[index] for index in dict.fromkeys(chosen.tolist())])


def _empty(out: Path) -> None:
    """Make the folder, emptied of an earlier demo and of nothing else."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        entries = list(out.iterdir())
        if entries and not (out / MARKER).is_file():
            raise Unim2Error(
                f"{out} is not empty and was not made by unim2 demo",
                expected="a new folder, an empty one, or that of an earlier demo",
                found=f"{len(entries)} entries",
                remedy="choose another with --out",
            )
        (out / MARKER).touch()
        for entry in entries:  # not the folder itself: it may be a mounted volume
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry.name != MARKER:
                entry.unlink()
    except OSError as error:
        raise cannot_write(out, error) from error


def _sgemm_gflops() -> float:
    """What matrix products reach here and now, GFLOP/s in float32."""
    import torch

    a = torch.ones(2048, 2048)
    a @ a
    began = time.perf_counter()
    for _ in range(4):
        a @ a
    return 4 * 2 * 2048**3 / (time.perf_counter() - began) / 1e9


def _summary(
    out: Path, learning_s: float, offline: SegmentReport, live: LiveReport | None, seconds: float
) -> None:
    table = Table("what", "figure", title=f"unim2 demo, {seconds:.0f} s")
    table.add_row("from the drive to a model, s", f"{learning_s:.0f}")
    table.add_row("beside that: matrix products, GFLOP/s float32", f"{_sgemm_gflops():.0f}")
    table.add_row("offline: reference images segmented", str(offline.frames))
    if live:
        table.add_row("live: reference images played", str(live.played))
        for key, count in live.counters.items():
            if "/" not in key and count:
                table.add_row(f"live: {key}", str(count))
        for key, milliseconds in live.percentiles_ms.items():
            if key.startswith(("stamp to publish", "backbone")):
                table.add_row(f"live: {key}", f"{milliseconds:.1f}")
    console.print(table)
    for name, what in (
        ("drive", "the synthetic drive, a rosbag2"),
        ("model.unim2", "the model, on the small backbone that comes with the package"),
        ("segmented", "classes, confidence, overlay, a rosbag2"),
        ("overlay.mp4", "every frame"),
        ("contact_sheet.png", "a few frames"),
        ("live/outputs", "what the live node published, a rosbag2"),
    ):
        if (out / name).exists():
            console.print(escape(f"  {out / name}: {what}"))
