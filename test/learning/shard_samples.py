"""A small fleet's features, as ``unim2 fleet features`` leaves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from picture_samples import Means, Pictures, picture

from unim2_core.data.labels import Classes
from unim2_core.data.pictures import Picture
from unim2_core.learning.feature_cache import open_features
from unim2_core.learning.features import FeatureStore
from unim2_core.learning.shard_places import find_shards
from unim2_core.learning.shards import Fleet, Wanted, chosen_shards
from unim2_core.learning.store_facts import Recorded

ENCODINGS: dict[str, dict[str, object]] = {"rgb": {"a": [1, 2]}, "thermal": {}}
WANTED = Wanted("means", "Means", ENCODINGS, (16, 24), "rgb")
ROWS = np.array([7, 0, 13, 7, 5])
CELLS = np.array([[5, 1], [0, 2], [3, 3], [4, 5], [1, 0]])
SIZES = {"b": (100, 6), "a": (200, 5), "c": (300, 4)}
"""Name of a drive -> number of its first picture, and how many there are."""


@dataclass
class Drive(Pictures):
    """Made-up pictures of a drive of its own."""

    first: int = 0
    encodings: Mapping[str, Mapping[str, object]] = field(default_factory=lambda: ENCODINGS)
    label_size: tuple[int, int] | None = None
    classes: Classes | None = None

    def picture(self, number: int) -> Picture:
        made = picture(self.first + number, self.size)
        made.__dict__.update(labels=None, source=number, sequence=0, stamp_ns=number * 10**9)
        return made


def write_shard(place: Path, name: str, first: int, count: int = 6) -> Path:
    """Write the features of a drive; returns the folder of its store."""
    below = place / "drives"
    before = set(below.glob("*/"))
    recorded = Recorded("rgb", ((name, f"digest of {first}"),))
    store_of(below, name, first, count, recorded)
    (made,) = set(below.glob("*/")) - before
    return made


def store_of(
    cache: Path, name: str, first: int, count: int = 6, recorded: Recorded | None = None
) -> FeatureStore:
    """Features of a made-up drive."""
    source = Drive(count, count, f"{name} {first}", first=first)
    return open_features(source, Means(), cache, recorded=recorded)


def fleet_at(*places: str) -> Fleet:
    """All shards of some places."""
    return chosen_shards([s for p in places for s in find_shards(p, WANTED)], (), print)


def write_fleet(place: Path) -> Path:
    for name, (first, count) in SIZES.items():
        write_shard(place, name, first, count)
    return place


def shard_of(place: Path, name: str = "b") -> Path:
    (found,) = (
        path.parent
        for path in place.glob("drives/*/store.json")
        if json.loads(path.read_text())["drives"][0][0] == name
    )
    return found


def assert_same_read(one: Any, other: Any, cells: np.ndarray | None) -> None:
    for mine, its in zip(one.read(ROWS, cells), other.read(ROWS, cells), strict=True):
        assert list(mine) == list(its)
        for name in mine:
            assert mine[name].dtype == its[name].dtype
            np.testing.assert_array_equal(mine[name], its[name])
