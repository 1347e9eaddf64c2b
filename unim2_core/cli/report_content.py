"""What the other commands wrote, as the page of ``unim2 report`` shows it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unim2_core.errors import DataError
from unim2_core.model.bundle import Bundle

Content = Mapping[str, Any]

CRITERIA = {
    "margin": "how much nearer a place is to its class than to the next, as a cosine",
    "entropy": "how evenly the classes are used; 1 is equally, under 0.5 counts as collapsed",
    "subsets": "agreement with itself when a sensor other than the reference is missing",
    "flips": "agreement with itself on mirrored pictures",
    "crops": "agreement with itself on the middle of pictures, enlarged",
    "peers": "agreement with the other candidates",
}
STAGES = ("decode", "encode", "backbone", "register", "head", "write")
KINDS: Mapping[str, frozenset[str]] = {
    "evaluate": frozenset({"figures", "protocol", "model"}),
    "segment": frozenset({"latency_ms", "used", "frames"}),
    "bench": frozenset({"engines", "matrix_gflops"}),
    "search": frozenset({"trials", "basis"}),
    "info": frozenset({"topics", "pairings"}),
}
"""Command -> keys that tell its JSON from that of the others."""


def read_figures(path: Path) -> tuple[str, Content]:
    """A file that a command wrote with ``--json``, and which command it was.

    Raises:
        DataError: it is none of these.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _not_figures(path, str(error)) from error
    for kind, keys in KINDS.items():
        if isinstance(content, dict) and keys <= set(content):
            return kind, content
    found = f"the keys {', '.join(map(str, content))}" if isinstance(content, dict) else "no keys"
    raise _not_figures(path, found)


def _not_figures(path: Path, found: str) -> DataError:
    return DataError(
        f"{path} cannot be shown in a report",
        expected=f"what unim2 {' or '.join(KINDS)} writes with --json",
        found=found,
        remedy="write it again with one of these",
    )


def classes_of(bundle: Bundle) -> list[dict[str, Any]]:
    """The classes of a model with their shares."""
    labels = bundle.manifest.labels
    shares = bundle.manifest.training.get("shares") or [None] * len(labels)
    return [
        {"id": label.id, "name": label.name, "color": label.color, "share": share}
        for label, share in zip(labels, shares, strict=True)
    ]


def criteria_of(bundle: Bundle) -> dict[str, Any] | None:
    """How a model was chosen among its candidates; None where there was no choice."""
    chosen = bundle.manifest.training.get("chosen")
    if not chosen or not any(value is not None for value in chosen["criteria"].values()):
        return None
    text = (
        f"The candidate after step {chosen['step']}, one of {chosen['candidates']}, chosen by "
        f"{chosen['by']}."
    )
    return {
        "text": text,
        "rows": [
            {"name": name, "value": value, "text": CRITERIA.get(name, "")}
            for name, value in chosen["criteria"].items()
            if value is not None
        ],
    }


def configuration_of(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Everything that the manifest says, in words."""
    manifest = bundle.manifest
    height, width = manifest.infer_size
    shown_elsewhere = {"shares", "chosen", "registration", "cluster_count", "settings"}
    training = {k: v for k, v in manifest.training.items() if k not in shown_elsewhere}
    parts: dict[str, dict[str, Any]] = {
        "model": {
            "name": manifest.name,
            "version": bundle.version,
            "method": manifest.method,
            "reference": manifest.reference,
            "classes": len(manifest.labels),
            "image size": f"{width}x{height}",
            "answers at one pixel in": manifest.stride,
            "parent": manifest.parent,
        },
        "backbone": {
            "name": manifest.backbone.name,
            "patch": f"{manifest.backbone.patch_size} px",
            "width": manifest.backbone.embed_dim,
            "sha256": manifest.backbone.sha256,
        },
        "modalities": {
            entry.name: f"sensor {entry.sensor}; {_words(entry.encoding)}"
            for entry in manifest.modalities
        },
        "training": {key: _words(value) for key, value in training.items()},
        "settings from a search": _flat(manifest.training.get("settings") or {}),
        "network": {k: _words(v) for k, v in (manifest.network or {}).items()},
    }
    return {name: rows for name, rows in parts.items() if rows}


def evaluation_of(content: Content) -> dict[str, Any]:
    """What ``unim2 evaluate`` found."""
    figures, protocol = content["figures"], content["protocol"]
    total = max(1, sum(row["pixels"] for row in figures["classes"]))
    name = content["data"]["name"]
    split = content["data"]["split"]
    engine = content["engine"]
    used = content["modalities"]["used"]
    return {
        "data": (name if isinstance(name, str) else ", ".join(name))
        + (f", {split}" * bool(split)),
        "version": content["model"]["version"],
        "how": f"{content['pictures']} pictures of {', '.join(used)}; protocol "
        f"{protocol['name']}; {engine['backend']} in {engine['precision']}; "
        f"model version {content['model']['version']}.",
        "honest": content["labels"],
        **{key: figures[key] for key in ("mean_iou", "accuracy", "coverage")},
        "classes": [row | {"share": row["pixels"] / total} for row in figures["classes"]],
        "answers": figures["confusion"]["names"],
        "confusion": _shares_by_truth(figures),
        "each_missing": [
            {"name": subset, **{key: row[key] for key in ("mean_iou", "accuracy", "coverage")}}
            for subset, row in (content["each_missing"] or {}).items()
        ],
    }


def _shares_by_truth(figures: Content) -> list[dict[str, Any]]:
    """A row for each true class: where its pixels went; None where it does not occur."""
    pixels = figures["confusion"]["pixels"]
    rows = []
    for column, row in enumerate(figures["classes"]):
        went = [answered[column] for answered in pixels]
        total = sum(went)
        shares = [count / total if total else None for count in went]
        rows.append({"name": row["name"], "shares": shares})
    return rows


def bench_of(content: Content) -> dict[str, Any]:
    """What ``unim2 bench`` found; engines that are refused say why."""
    height, width = content["size"]
    rows = []
    for engine in content["engines"]:
        row = {name: engine.get(name) for name in ("backend", "precision", "refused")}
        if not row["refused"]:
            frame_ms = engine["backbone_ms"] + engine["head_ms"]
            row["figures"] = [
                *(engine["backbone_ms"], engine["head_ms"], 1e3 / frame_ms),
                *(engine["start_s"], engine["memory_mib"], engine["parity"]["agreement"]),
            ]
        rows.append(row)
    text = (
        f"A frame of all modalities at {width}x{height} on {content['cores']} cores, medians; a "
        f"float32 matrix product beside it reached {content['matrix_gflops']:.0f} GFLOP/s."
    )
    return {"text": text, "rows": rows}


def drive_of(content: Content) -> dict[str, Any]:
    """What ``unim2 segment`` said of a drive."""
    frames = content["frames"]
    used = ", ".join(f"{name} in {count}" for name, count in content["used"].items())
    missing = "; ".join(f"{reason} ({count})" for reason, count in content["missing"].items())
    stopped = content.get("stopped")
    # Files are sorted by name; people read them in the order in which they run.
    stages = {
        stage: content["latency_ms"][stage] for stage in STAGES if stage in content["latency_ms"]
    }
    stages |= content["latency_ms"]
    percentiles = list(next(iter(stages.values()), {}))
    return {
        "text": f"{frames} images; {used}."
        + (f" Missing: {missing}." if missing else "")
        + (f" The bag is damaged: {stopped}." if stopped else ""),
        "percentiles": percentiles,
        "stages": {
            stage: [values[name] for name in percentiles] for stage, values in stages.items()
        },
    }


def bag_of(content: Content) -> dict[str, Any]:
    """What ``unim2 info`` said of a bag."""
    topics = [
        {
            **{key: topic[key] for key in ("type", "messages", "rate_hz", "gaps")},
            "name": name,
            "jitter_ms": None if topic["jitter_s"] is None else 1e3 * topic["jitter_s"],
        }
        for name, topic in content["topics"].items()
    ]
    name = f"{content['bag']}, {content['duration_s']:.1f} s"
    return {"name": name, "topics": topics, "findings": content["findings"]}


def data_of(bundle: Bundle | None, sources: Iterable[Content]) -> dict[str, Any]:
    """What the model learnt from and was measured on."""
    rows: dict[str, Any] = {}
    if bundle is not None:
        training = bundle.manifest.training
        if "pictures" in training:
            rows["learnt from"] = f"{training['pictures']} pictures, without labels"
        for sensor, how in training.get("registration", {}).items():
            rows[f"{sensor} registered"] = how
    for source in sources:
        rows[f"measured on {evaluation_of(source)['data']}"] = (
            f"{source['pictures']} pictures with labels; fingerprint "
            f"{source['data']['fingerprint'][:12]}"
        )
    return rows


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(item)}" for key, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(_words(item) for item in value)
    return str(value)


def _flat(content: Content, above: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in content.items():
        name = f"{above}{key}"
        found |= _flat(value, f"{name}.") if isinstance(value, Mapping) else {name: _words(value)}
    return found
