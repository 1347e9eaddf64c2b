"""What auxiliary cameras cost: tokens kept by stamp, and half the resolution; work, time and mIoU.

    python benchmarks/auxiliaries.py                             # 30 Hz and 10 Hz
    python benchmarks/auxiliaries.py --seconds 2 --steps 40      # small

A model of five modalities is trained on two synthetic drives. Another drive has its colour camera
at 30 Hz; it is segmented with the other cameras at 30 Hz, then at 10 Hz, each at full and at half
the resolution. Work is counted: pixels that went through the backbone, in whole images. Times are
medians of runs that take turns. mIoU is in percent after Hungarian matching, over the whole drive.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from engines import in_turns
from fields import console
from rich.table import Table

from unim2_core.cli.training import Places, train_on_drives
from unim2_core.data.drive_labels import SYNTHETIC, LabelReader
from unim2_core.data.synthetic import DriveConfig, default_rig, write_drive
from unim2_core.evaluation.runner import Tally
from unim2_core.inference.auxiliaries import TokenReader
from unim2_core.inference.bag_segmenter import BagSegmenter
from unim2_core.inference.pipeline import Pipeline, Segmentation
from unim2_core.model.bundle import Bundle
from unim2_core.sensing.bag_writer import BagWriter
from unim2_core.sensing.bags import BagReader
from unim2_core.sensing.frames import FrameSet
from unim2_core.sensing.rig import Rig

MODALITIES = ("rgb", "depth", "thermal", "nir", "aolp")
CLUSTERS = 12
EVERY = 3
"""Of the auxiliaries' images, where they come at a third of the rate."""


def trained(folder: Path, steps: int) -> tuple[Path, Rig]:
    """A model trained on a drive by day and one by night."""
    drives = []
    for seed, condition in ((1, "day"), (2, "night")):
        config = DriveConfig(seed=seed, condition=condition, duration_s=20.0, rate_hz=2.0)  # type: ignore[arg-type]
        drives.append(folder / condition)
        write_drive(drives[-1], config)
    rig = default_rig(DriveConfig(rate_hz=2.0))
    places = Places(folder / "model.unim2", folder / "cache", folder / "run")
    made = train_on_drives(*(drives, rig, MODALITIES, places), clusters=CLUSTERS, steps=steps)
    # Images of the slower drive have to count for as long as none follows.
    return made.path, default_rig(DriveConfig(rate_hz=30.0 / EVERY))


def thinned(drive: Path, out: Path, rig: Rig) -> Path:
    """The drive with every third image of each camera but the reference."""
    topics = {one.topic for name, one in rig.sensors.items() if name != rig.reference}
    counts: dict[str, int] = {}
    with BagReader(drive) as reader, BagWriter(out) as writer:
        for message in reader.messages(None):
            number = counts.get(message.topic, 0)
            counts[message.topic] = number + 1
            if message.topic not in topics or number % EVERY == 0:
                writer.write_raw(message)
    return out


def segmented(model: Path, rig: Rig, drive: Path, half: bool, out: Path) -> tuple[float, float]:
    """Whole images through the backbone for each frame, and mIoU in percent."""
    pipeline = Pipeline(Bundle(model), rig, half_auxiliaries=half)
    pixels = 0
    tokens = pipeline.engine.tokens

    def counted(images: np.ndarray) -> np.ndarray:
        nonlocal pixels
        pixels += int(np.prod(images.shape[:3]))
        return tokens(images)

    pipeline.engine.tokens = counted  # type: ignore[method-assign, assignment]
    tally = Tally(CLUSTERS, len(SYNTHETIC.classes.names))
    with LabelReader(drive, SYNTHETIC) as labels, BagReader(drive) as reader:

        def watch(frames: FrameSet, made: Segmentation) -> None:
            truth = labels.at(frames.frames[frames.reference].stamp_ns)
            if truth is not None:
                tally.add(made.classes[None], truth[None])

        report = BagSegmenter(pipeline).run(reader, out, lambda _: None, watch)
    height, width = pipeline.bundle.manifest.infer_size
    return pixels / (height * width * report.frames), 100 * tally.scores.mean_iou


def auxiliary_seconds(model: Path, rounds: int) -> dict[str, float]:
    """Median seconds of four auxiliaries through the backbone, at full and at half size."""
    pipeline = Pipeline(Bundle(model), default_rig(DriveConfig()))
    manifest = pipeline.bundle.manifest
    draw = np.random.default_rng(0)
    images = {
        entry.name: draw.integers(0, 256, (*manifest.infer_size, 3), np.uint8)
        for entry in manifest.modalities
        if entry.sensor != manifest.reference
    }
    readers = {
        name: TokenReader(pipeline.engine, manifest, manifest.infer_size, half)
        for name, half in (("full", False), ("half", True))
    }
    return in_turns({name: lambda r=reader: r(images) for name, reader in readers.items()}, rounds)


def main() -> None:
    """Train, thin, segment, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="length of the drive")
    parser.add_argument("--steps", type=int, default=120, help="of the training")
    parser.add_argument("--rounds", type=int, default=15, help="of the timing")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model, rig = trained(folder, options.steps)
        fast = folder / "fast"
        write_drive(
            fast, DriveConfig(seed=101, rate_hz=30.0, duration_s=options.seconds, dropout=0.0)
        )
        slow = thinned(fast, folder / "slow", rig)
        table = Table(
            *("auxiliaries", "resolution", "images through the backbone, a frame", "mIoU %"),
            title=f"colour at 30 Hz, {Bundle(model).manifest.summary}",
        )
        for rate, drive in (("30 Hz", fast), ("10 Hz, kept", slow)):
            for name, half in (("full", False), ("half", True)):
                out = folder / f"out-{drive.name}-{name}"
                work, miou = segmented(model, rig, drive, half, out)
                table.add_row(rate, name, f"{work:.2f}", f"{miou:.1f}")
        console.print(table)
        seconds = auxiliary_seconds(model, options.rounds)
        console.print(
            f"four auxiliaries through the backbone: full {1e3 * seconds['full']:.0f} ms, half "
            f"{1e3 * seconds['half']:.0f} ms, {seconds['full'] / seconds['half']:.2f} times faster"
        )


if __name__ == "__main__":
    main()
