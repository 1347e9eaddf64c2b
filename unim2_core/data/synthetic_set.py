"""Many short synthetic drives, each of another world: what the small backbone is trained on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from unim2_core.data.synthetic import WORLD_VERSION, DriveConfig, write_drive

FIRST_SEED = 1000
"""Worlds below are left for drives to learn classes from and to measure on."""
SECONDS, RATE_HZ = 6.0, 2.0
FOGGY, GLARING = 0.25, 0.2
"""Shares of the drives with fog, and of those by day with a low sun."""


def drive_configs(
    count: int, *, first_seed: int = FIRST_SEED, seconds: float = SECONDS
) -> tuple[DriveConfig, ...]:
    """Drives of different worlds, by day and by night in turn, some in fog or against the sun.

    Args:
        count: how many.
        first_seed: number of the first world; the others follow.
        seconds: length of each.
    """
    made = []
    for seed in range(first_seed, first_seed + count):
        draw = np.random.default_rng(seed)
        fog, glare = draw.uniform(0.1, 0.6), draw.uniform(0.2, 0.8)
        night = seed % 2 == 1
        made.append(
            DriveConfig(
                seed=seed,
                condition="night" if night else "day",
                duration_s=seconds,
                rate_hz=RATE_HZ,
                fog=fog if draw.random() < FOGGY else 0.0,
                glare=glare if not night and draw.random() < GLARING else 0.0,
            )
        )
    return tuple(made)


def rendered(
    configs: tuple[DriveConfig, ...],
    folder: Path,
    progress: Callable[[int, int], object] | None = None,
) -> list[Path]:
    """The drives, rendered where they are not in the folder yet.

    Args:
        configs: of each drive.
        folder: of all drives.
        progress: called with how many drives are there, and of how many.

    Raises:
        Unim2Error: there is no room.
    """
    paths = []
    for config in configs:
        text = json.dumps(asdict(config), sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()[:12]
        path = folder / f"world{WORLD_VERSION}-{config.seed}-{name}"
        if not path.exists():
            write_drive(path, config)
        paths.append(path)
        if progress:
            progress(len(paths), len(configs))
    return paths
