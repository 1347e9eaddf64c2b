"""Versions of a model that replace each other under a live node: no frame lost, none mixed.

    python benchmarks/live_swaps.py --swaps 200

One image is published again and again, two versions of a model are served in turns, whose class
ids are in opposite orders, and the node is told to reload after each turn. Every mask has to be
that of one version, in every pixel, and every image has to have one. Exit status 1 where not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from safetensors.numpy import save_file

TESTS = Path(__file__).parents[1] / "test"
sys.path[:0] = [str(TESTS), str(TESTS / "ros")]

from live_node import RIG, Talker, talking
from scenes import train_on, write_bag
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from unim2_core.model.bundle import PARITY, WEIGHTS, Bundle
from unim2_core.model.versions import add_version, changing, go_back

DOMAIN = 91
CLUSTERS = 4
UNLABELLED = 255
console = Console(width=120, highlight=False)


def with_two_versions(folder: Path) -> Path:
    """A small model whose version 1 has the class ids of version 0 in the opposite order."""
    write_bag(folder / "drive", 6)
    path = train_on(
        folder / "drive", RIG, ("rgb", "thermal"), folder / "site.unim2", clusters=CLUSTERS
    )
    bundle = Bundle(path)
    weights, parity = bundle.weights(), bundle.parity()
    weights["prototypes"] = np.ascontiguousarray(weights["prototypes"][::-1])
    parity["classes"] = reverse(parity["classes"])

    def fill(draft: Path) -> None:
        save_file(weights, draft / WEIGHTS)
        np.savez_compressed(draft / PARITY, **parity)

    with changing(path):
        add_version(bundle, "accepted", bundle.manifest, fill, {})
    return path


def reverse(classes: np.ndarray) -> np.ndarray:
    """Class ids in the opposite order; unlabelled stays."""
    return np.where(classes == UNLABELLED, classes, CLUSTERS - 1 - classes)


def run(
    talker: Talker, model: Path, swaps: int, frame_hz: float, swap_hz: float
) -> tuple[int, list[Image], int, float]:
    """Publish and swap; returns images sent, masks, swaps that were refused, and seconds."""
    masks = talker.listen("/segment/segmentation", Image, 100)
    client = talker.node.create_client(Trigger, "/segment/reload_model")

    def send() -> None:
        talker._sent = 0  # always the same image
        talker.send()

    assert talker.until(lambda: len(masks) >= 5, send)
    talker.until(lambda: False, wait_s=1.0)  # what is on the way arrives
    masks.clear()
    sent = turn = refused = 0
    asked = None
    began = time.monotonic()
    while turn < swaps or (asked is not None and not asked.done()):
        now = time.monotonic() - began
        if now * frame_hz >= sent:
            send()
            sent += 1
        if asked is not None and asked.done():
            refused += not asked.result().success
            asked = None
        if asked is None and turn < swaps and now * swap_hz >= turn + 1:
            with changing(model):
                go_back(model, to=turn % 2)
            asked = client.call_async(Trigger.Request())
            turn += 1
        talker._executor.spin_once(timeout_sec=0.002)
    seconds = time.monotonic() - began
    talker.until(lambda: len(masks) >= sent, wait_s=5.0)
    return sent, masks, refused, seconds


def main() -> None:
    """Run the node, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--frame-hz", type=float, default=30.0)
    parser.add_argument("--swap-hz", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = with_two_versions(folder)
        with talking(folder, DOMAIN, f"model:={model}") as talker:
            sent, masks, refused, seconds = run(
                talker, model, options.swaps, options.frame_hz, options.swap_hz
            )
    found = [np.frombuffer(mask.data, np.uint8) for mask in masks]
    first = found[0]
    versions = [
        0 if np.array_equal(mask, first) else 1 if np.array_equal(mask, reverse(first)) else -1
        for mask in found
    ]
    seen = sum(one != other for one, other in pairwise(versions))
    mixed = versions.count(-1)
    table = Table(
        *(
            "images",
            "masks",
            "of one version",
            "of the other",
            "mixed",
            "swaps",
            "seen",
            "refused",
        ),
        title=f"{sent / seconds:.1f} images and {options.swaps / seconds:.1f} swaps a second",
    )
    counts = (sent, len(masks), versions.count(0), versions.count(1), mixed, options.swaps)
    table.add_row(*map(str, (*counts, seen, refused)))
    console.print(table)
    if mixed or refused or len(masks) != sent:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
