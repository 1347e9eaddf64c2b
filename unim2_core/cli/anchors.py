"""Labelled images that a person gives to make the guard of an adaptation stricter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from unim2_core.cli.drive_samples import Eye
from unim2_core.data.data_sets import open_data_set
from unim2_core.errors import DataError
from unim2_core.evaluation.runner import Tally
from unim2_core.model.bundle import Bundle
from unim2_core.model.classifier import Classifier
from unim2_core.model.probes import resized


@torch.no_grad()
def anchor_figures(
    file: Path, bundle: Bundle, eye: Eye, served: Classifier, adapted: Classifier
) -> dict[str, float]:
    """Measure both models on labelled images; classes are matched once, for the served one.

    Args:
        file: describes the images, see ``unim2 train --data``.
        bundle: the model that is served.
        eye: what its engine sees.
        served: the model that is served.
        adapted: and the one that is judged.

    Returns:
        ``anchors_served``, ``anchors_adapted`` and ``anchors_change``, mIoU in points.

    Raises:
        DataError: there are no labels, or the images cannot be used.
    """
    source = open_data_set(
        str(file),
        modalities=eye.modalities,
        size=bundle.manifest.infer_size,
        crops="none",
        framing="full_frame",
    )
    if source.classes is None:
        raise DataError(
            f"the anchors in {file} have no labels",
            expected="labels and classes in the file",
            found="none",
            remedy="add them, or leave out --anchors",
        )
    clusters = max(len(served.prototypes), len(adapted.prototypes))
    tallies = [Tally(clusters, len(source.classes.names)) for _ in range(2)]
    for picture in source:
        if picture.labels is None:
            continue
        tokens, presence = (
            {name: torch.from_numpy(np.asarray(part))[None] for name, part in maps.items()}
            for maps in eye.tokens(picture)
        )
        for tally, model in zip(tallies, (served, adapted), strict=True):
            scores = resized(model.scores(tokens, presence), picture.labels.shape)
            seen = np.take(bundle.manifest.served, scores.argmax(dim=1).numpy())
            tally.add(seen, picture.labels[None])
    before = tallies[0].scores
    after = tallies[1].scores_by(before.classes)
    points = (100 * before.mean_iou, 100 * after.mean_iou)
    return {
        "anchors_served": points[0],
        "anchors_adapted": points[1],
        "anchors_change": points[1] - points[0],
    }
