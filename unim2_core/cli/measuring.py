"""A model held against the labels of one source of pictures, as ``unim2 evaluate`` reports it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unim2_core.cli.console import progress, warn
from unim2_core.cli.evaluation import CHOSEN, Sources
from unim2_core.data.pictures import PictureSource
from unim2_core.evaluation.measurement import Answer, Measured, measure
from unim2_core.evaluation.report import LABELS, figures
from unim2_core.inference.engine import Engine
from unim2_core.model.bundle import Bundle


@dataclass(frozen=True, eq=False)
class How:
    """What is measured.

    Attributes:
        chosen: modalities of the model that it may look at, in its order.
        each_missing: also without each of them.
        half_auxiliaries: see ``TokenReader``.
        answer: another way from tokens to clusters, None: the head's.
        crf: whether that has a dense CRF.
    """

    chosen: Sequence[str]
    each_missing: bool = False
    half_auxiliaries: bool = False
    answer: Answer | None = None
    crf: bool = False


def measured(
    bundle: Bundle, engine: Engine, sources: Sources, how: How
) -> tuple[dict[str, Any], PictureSource, Measured]:
    """Measure a model; returns the report for machines, the pictures, and what was counted.

    Raises:
        Unim2Error: the data cannot be read, has no labels, or fits the model in no way.
    """
    names = [entry.name for entry in bundle.manifest.modalities]
    # The dense CRF looks at the reference image, even where the model does not.
    opened = [name for name in names if name in how.chosen or (how.crf and name == names[0])]
    source, missing = sources.open(bundle, opened)
    used = [name for name in how.chosen if name not in missing]
    subsets = {CHOSEN: used}
    if how.each_missing and len(used) > 1:
        subsets |= {f"without {out}": [n for n in used if n != out] for out in used}
    for refusal in engine.refused:
        warn(refusal)
    with progress("evaluating", source.limit) as advance:
        found = measure(
            *(engine, bundle.manifest, source, subsets),
            *(how.answer, advance, how.half_auxiliaries),
        )
    # What never came was not measured, and leaving it out shows nothing.
    never = [name for name in used if not found.seen[name]]
    for name in never:
        missing[name] = f"{name} is in none of the pictures"
        warn(f"{missing[name]}: it counts as missing")
    used = [name for name in used if name not in never]
    rows = [CHOSEN, *(f"without {out}" for out in used if how.each_missing and len(used) > 1)]
    report = {
        "protocol": {
            "name": sources.protocol,
            "size": list(source.size),
            "resized": "scores, bilinearly" if how.answer else "classes, by the nearest pixel",
            "crf": how.crf,
        },
        "engine": {
            "backend": engine.backend,
            "precision": engine.precision,
            "refused": engine.refused,
            "half_auxiliaries": how.half_auxiliaries,
        },
        "data": {
            "name": sources.data or [str(path) for path in sources.bags],
            "split": sources.split if sources.data else None,
            "frames": sources.frames,
            "fingerprint": source.fingerprint(),
        },
        "modalities": {
            "model": names,
            "used": used,
            "missing": {name: missing.get(name, "left out") for name in names if name not in used},
            "pictures": dict(found.seen),
        },
        **_figures(bundle, source, found, rows),
    }
    return report, source, found


def _figures(
    bundle: Bundle, source: PictureSource, found: Measured, rows: Sequence[str]
) -> Mapping[str, Any]:
    """What is known of the model, and its figures for some of the subsets."""
    manifest = bundle.manifest
    assert source.classes is not None
    names = manifest.names
    whole = found.tallies[CHOSEN]
    every = {row: figures(found.tallies[row], source.classes.names, names, whole) for row in rows}
    return {
        "model": {
            "name": manifest.name,
            "version": bundle.version,
            "sha256": bundle.sha256,
            "summary": manifest.summary,
            "baseline": manifest.backbone.baseline,
        },
        "pictures": found.pictures,
        "pictures_without_labels": found.unlabelled,
        "figures": every[CHOSEN],
        "each_missing": every if len(every) > 1 else None,
        "labels": LABELS,
    }
