"""From an adaptation to a version of its bundle: weights, stored answers, memory (needs torch)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from unim2_core.inference.bundling import classes_of
from unim2_core.learning.outcome import Outcome
from unim2_core.model.bundle import MEMORY, PARITY, TRAINING, WEIGHTS, Bundle
from unim2_core.model.given import tables_given
from unim2_core.model.segmenter_head import SegmenterHead
from unim2_core.model.versions import KEPT, add_version


def write_version(
    bundle: Bundle,
    event: Literal["accepted", "review"],
    outcome: Outcome,
    details: Mapping[str, Any],
    kept: int = KEPT,
) -> Bundle:
    """Add an adapted model to its bundle; the graphs stay what they are.

    Args:
        bundle: the model that is served.
        event: the verdict of the guard.
        outcome: the adapted model.
        details: for the history; JSON types only.
        kept: versions whose weights are kept.

    Returns:
        The bundle as it is served now.

    Raises:
        Unim2Error: the disk is full or may not be written to; what was served is still served.
    """
    manifest = bundle.manifest
    weights = outcome.classifier.head_inputs(outcome.full_margin)
    head = SegmenterHead(
        outcome.classifier.segmenter.config, manifest.backbone.patch_size, manifest.stride
    )
    stored = bundle.parity()
    tokens = stored["tokens"].astype(np.float32)

    def fill(folder: Path) -> None:
        save_arrays(weights, folder / WEIGHTS)
        answers = {**stored, "classes": classes_of(head, weights, tokens)}
        np.savez_compressed(folder / PARITY, **answers)  # type: ignore[arg-type]
        state = {name: part.cpu().contiguous() for name, part in outcome.state.items()}
        save_file(state, folder / TRAINING)
        if outcome.memory is not None:
            save_arrays(outcome.memory.tensors(), folder / MEMORY)

    table = manifest.labels_version
    if outcome.identity.changed:
        table = 1 + max(table, tables_given(bundle.path))
    made = manifest.replaced(labels=outcome.labels(manifest.labels), labels_version=table)
    return add_version(bundle, event, made, fill, details, kept)
