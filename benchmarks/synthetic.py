"""How fast synthetic drives are made, and that no class shows in one mean value.

    python benchmarks/synthetic.py              # both tables
    python benchmarks/synthetic.py --seconds 4  # a longer speed run

Speed: sets of five images, one of each camera at 640x480, rendered and written to a bag.

Threshold classifiers: for every modality, each encoded channel and the mean of the three, a
table from value to class is learned on the ground truth of some drives (the commonest class of
each of 256 values; pixels without measurement are a value of their own) and scored on drives
of other seeds. The world is made so that the best of them stays under 35 mIoU.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from unim2_core.data.synthetic import CLASSES, DriveConfig, default_rig, render, write_drive
from unim2_core.data.world.mounts import MOUNTS
from unim2_core.sensing.bag_messages import image_message
from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.decoding import Decoder
from unim2_core.sensing.modalities import MODALITIES, Encoder

LEVELS = 257  # 256 values and "no measurement"
Counts = NDArray[np.int64]  # (LEVELS, classes)


def histograms(configs: Iterable[DriveConfig], times_s: Iterable[float]) -> dict[str, Counts]:
    """Pixels by value and class, for each scalar of each modality.

    Args:
        configs: drives.
        times_s: when images are taken in each of them, seconds.

    Returns:
        ``modality/channel`` -> (257, K) counts; channel is 0, 1, 2 or ``mean``.
    """
    counts: dict[str, Counts] = {}
    instants = list(times_s)
    for config in configs:
        decoder = Decoder(default_rig(config))
        for time_s in instants:
            for sensor in config.sensors:
                image, label, _ = render(config, time_s, sensor)
                message = image_message(image, MOUNTS[sensor].encoding, 1, sensor)
                frame = decoder.decode(sensor, {"image": message}, 1)
                step = label.shape[0] // frame.height  # a mosaic has one pixel a block
                label = label[::step, ::step]
                k = config.camera(sensor).matrix
                camera = Intrinsics(
                    k[0, 0], k[1, 1], k[0, 2], k[1, 2], width=frame.width, height=frame.height
                )
                for name, modality in MODALITIES.items():
                    if modality.sensor != sensor:
                        continue
                    pixels, valid = Encoder(name).encode(frame, label.shape, camera)
                    _count(counts, name, pixels, valid, label)
    return counts


def _count(
    counts: dict[str, Counts],
    name: str,
    pixels: NDArray[np.uint8],
    valid: NDArray[np.bool_] | None,
    label: NDArray[np.uint8],
) -> None:
    scalars = {"mean": np.rint(pixels.mean(-1)), **{str(c): pixels[..., c] for c in range(3)}}
    for channel, values in scalars.items():
        level = values.astype(np.int64)
        if valid is not None:
            level[~valid] = LEVELS - 1
        cell = level.ravel() * len(CLASSES) + label.ravel()
        table = np.bincount(cell, minlength=LEVELS * len(CLASSES)).reshape(LEVELS, -1)
        key = f"{name}/{channel}"
        counts[key] = counts.get(key, 0) + table


def threshold_iou(train: Counts, test: Counts) -> NDArray[np.float64]:
    """IoU of each class, (K,), of the commonest class of each value; NaN where it is absent."""
    guess = train.argmax(1)
    confusion = np.zeros((len(CLASSES), len(CLASSES)), np.int64)  # (guessed, true)
    np.add.at(confusion, guess, test)
    hit = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hit
    return np.where(confusion.sum(0) > 0, hit / np.maximum(union, 1), np.nan)


def best_thresholds(
    train: Mapping[str, Counts], test: Mapping[str, Counts]
) -> dict[str, tuple[str, NDArray[np.float64]]]:
    """For each modality the scalar with the best mIoU, and the IoU of each class."""
    best: dict[str, tuple[str, NDArray[np.float64]]] = {}
    for key in train:
        modality, channel = key.split("/")
        iou = threshold_iou(train[key], test[key])
        if modality not in best or np.nanmean(iou) > np.nanmean(best[modality][1]):
            best[modality] = (channel, iou)
    return best


def threshold_table(drives: int) -> Table:
    """Threshold classifiers on day and night drives."""
    conditions: tuple[Literal["day", "night"], ...] = ("day", "night")
    train, test = (
        histograms(
            [
                DriveConfig(seed=seed, condition=condition, width=320, height=240)
                for seed in seeds
                for condition in conditions
            ],
            (1.0, 4.0, 7.0, 10.0),
        )
        for seeds in (range(drives), range(100, 100 + drives))
    )
    table = Table("modality", "channel", "mIoU", *CLASSES, title="best threshold classifier, IoU")
    for modality, (channel, iou) in best_thresholds(train, test).items():
        figures = [f"{100 * value:.0f}" for value in iou]
        table.add_row(modality, channel, f"{100 * np.nanmean(iou):.1f}", *figures)
    pixels = test["rgb/mean"].sum(0)
    table.add_row("share of pixels", "", "", *(f"{p:.1f}" for p in 100 * pixels / pixels.sum()))
    return table


def speed_table(seconds: float, workers: Iterable[int]) -> Table:
    """Rendering and writing five cameras at 640x480.

    Beside the rate, the processor time: on a machine that does other work at the same time it
    tells what two free cores would reach.
    """
    columns = ("processes", "images", "s", "sets of five / s", "core s / set", "load before")
    table = Table(*columns, title="speed")
    config = DriveConfig(seed=1, duration_s=seconds, uniform_size=True, dropout=0.0)
    for count in workers:
        load = os.getloadavg()[0]
        with tempfile.TemporaryDirectory() as folder:
            start, busy = time.perf_counter(), _core_seconds()
            summary = write_drive(Path(folder, "drive"), config, workers=count)
            elapsed = time.perf_counter() - start
        images = sum(summary.images.values())
        rate, cost = images / 5 / elapsed, (_core_seconds() - busy) / (images / 5)
        figures = (f"{elapsed:.1f}", f"{rate:.2f}", f"{cost:.2f}", f"{load:.1f}")
        table.add_row(str(count), str(images), *figures)
    return table


def _core_seconds() -> float:
    """Processor time of this process and of those that it has waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="length of the speed run")
    parser.add_argument("--drives", type=int, default=4, help="seeds for training and for testing")
    arguments = parser.parse_args()
    console = Console(width=150)
    console.print(speed_table(arguments.seconds, (1, 2)))
    console.print(threshold_table(arguments.drives))


if __name__ == "__main__":
    main()
