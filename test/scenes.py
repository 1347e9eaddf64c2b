"""Small made-up scenes: frames, a model trained on them, a bag of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unim2_core.sensing.bag_messages import image_message
from unim2_core.sensing.bag_writer import BagWriter
from unim2_core.sensing.frames import Frame, FrameSet
from unim2_core.sensing.rig import Rig

HEIGHT, WIDTH = 64, 96
SECOND = 1_000_000_000
START_NS = 1_700_000_000 * SECOND
PERIOD_NS = SECOND // 10


def rgb_image(index: int) -> np.ndarray:
    """A striped half above a noisy half, drifting with the index: (H, W, 3) uint8."""
    rng = np.random.default_rng(index)
    image = np.full((HEIGHT, WIDTH, 3), (40, 90, 180), np.uint8)
    image[:, (np.arange(WIDTH) + 2 * index) // 4 % 2 == 0] = (200, 180, 90)
    image[HEIGHT // 2 :] = rng.integers(60, 120, (HEIGHT // 2, WIDTH, 3))
    return image


def thermal_image(index: int) -> np.ndarray:
    """Cold above, a warm block below: (H / 2, W / 2) uint16 centikelvin."""
    rng = np.random.default_rng(1000 + index)
    kelvin = 280 + rng.normal(0, 0.2, (HEIGHT // 2, WIDTH // 2))
    kelvin[HEIGHT // 4 :] += 8
    kelvin[HEIGHT // 3 :, 10:20] += 20
    return np.round(100 * kelvin).astype(np.uint16)


def frame_sets(count: int) -> Iterator[FrameSet]:
    """RGB and thermal frames that belong together."""
    for index in range(count):
        stamp_ns = START_NS + index * PERIOD_NS
        kelvin = thermal_image(index).astype(np.float32) / 100
        yield FrameSet(
            "rgb",
            {
                "rgb": Frame("rgb", stamp_ns, rgb_image(index)),
                "thermal": Frame("thermal", stamp_ns, kelvin, unit="K"),
            },
        )


def write_bag(
    path: Path, count: int, *, thermal: bool = True, first: int = 0, thermal_delay_ns: int = 0
) -> list[int]:
    """Write a bag on the default topics; returns the stamps of the RGB images."""
    stamps = []
    with BagWriter(path) as writer:
        for index in range(first, first + count):
            stamp_ns = START_NS + index * PERIOD_NS
            stamps.append(stamp_ns)
            message = image_message(rgb_image(index), "rgb8", stamp_ns, "rgb_optical_frame")
            writer.write("/rgb/image", message, stamp_ns + 5_000_000)
            if thermal:
                late = stamp_ns + thermal_delay_ns
                message = image_message(thermal_image(index), "mono16", late, "thermal_frame")
                writer.write("/thermal/image", message, max(late, stamp_ns) + 6_000_000)
    return stamps


def train_on(
    drive: Path, rig: Rig, modalities: tuple[str, ...], out: Path, *, clusters: int
) -> Path:
    """A model by k-means on the simple features; needs torch."""
    from unim2_core.cli.training import Places, train_on_drives

    places = Places(out, out.parent / "cache", out.parent / "run")
    made = train_on_drives(
        *([drive], rig, modalities, places),
        method="kmeans",
        clusters=clusters,
        backbone="texture",
    )
    return made.path
