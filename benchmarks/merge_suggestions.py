"""How often the pairs that the naming page proposes to merge are of one true class.

    python benchmarks/merge_suggestions.py site.unim2 drive --rig rig.yaml

The drive is a synthetic one, with its ground truth. A pair is right where most pixels of both
clusters are of one class. ``at random`` is the share of all pairs that are.
"""

from __future__ import annotations

import argparse
from itertools import combinations
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from unim2_core.cli.options import rig_from
from unim2_core.data.drive_labels import SYNTHETIC
from unim2_core.data.drive_pictures import DrivePictures
from unim2_core.evaluation.runner import Tally
from unim2_core.inference.engine import Engine
from unim2_core.inference.picture_classes import classified
from unim2_core.inference.served_heads import OWN_NUMBERS
from unim2_core.model.bundle import Bundle
from unim2_core.showing.naming.clusters import LEAST_AFFINITY, ClusterCounts, ClusterFacts

LEAST = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path, help="model bundle, NAME.unim2")
    parser.add_argument("drive", type=Path, help="synthetic drive")
    parser.add_argument("--rig", type=Path)
    parser.add_argument("--frames", type=int, default=50)
    arguments = parser.parse_args()
    bundle = Bundle(arguments.model)
    manifest = bundle.manifest
    source = DrivePictures(
        [arguments.drive],
        rig_from(arguments.rig, None),
        {entry.name: entry.encoding for entry in manifest.modalities},
        size=manifest.infer_size,
        patch_size=manifest.backbone.patch_size,
        frames=arguments.frames,
        labels=SYNTHETIC,
    )
    engine = Engine(bundle)
    engine.heads.replace(bundle.sha256, bundle.weights(), OWN_NUMBERS)
    clusters = manifest.clusters
    assert source.classes is not None
    counts, tally = ClusterCounts(clusters), Tally(clusters, len(source.classes.names))
    for picture, found in classified(engine, manifest, source):
        counts.add(found.classes, found.confidence)
        if picture.labels is not None:
            tally.add(found.classes[None], picture.labels[None])
    facts = ClusterFacts.of(counts, bundle.weights()["prototypes"][:clusters])
    truth = tally.table[:clusters].argmax(axis=1)
    seen = np.flatnonzero(tally.table[:clusters].sum(axis=1))
    same = [bool(truth[i] == truth[j]) for i, j in combinations(seen, 2)]
    table = Table(
        *("affinity from", "pairs", "right", "share", "at random"),
        title=f"{manifest.name}: {clusters} clusters, {len(source.classes.names)} classes; "
        f"the page proposes from {LEAST_AFFINITY}",
    )
    for least in LEAST:
        pairs = [truth[i] == truth[j] for i, j, value in facts.merges(least)]
        share = f"{100 * np.mean(pairs):.0f} %" if pairs else "-"
        row = (f"{least}", str(len(pairs)), str(sum(pairs)), share)
        table.add_row(*map(str, row), f"{100 * np.mean(same):.0f} %")
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main()
