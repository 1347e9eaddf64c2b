"""The curves of a training and of a search, for ``unim2 report``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unim2_core.showing.charts import Points
from unim2_core.showing.report import chart

TERM, TOTAL = "loss/", "loss/total"
SINGLE = {
    "clusters/entropy": "evenness of the clusters' use",
    "clusters/used": "clusters in use",
    "gradient/norm": "gradient norm",
    "speed/steps_per_s": "steps a second",
}


def training_charts(history: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Charts of a history: total and terms, each modality, against labels, and what else helps.

    Args:
        history: lines of ``history.jsonl``.
    """
    curves = _curves(history)
    modalities = [name.rsplit("/", 1)[1] for name in curves if name.startswith("loss/own/")]
    whole = {
        name.removeprefix(TERM): points
        for name, points in curves.items()
        if name.startswith(TERM) and name.count("/") == 1
    }
    found = [("loss, mean over the modalities", whole)]
    for modality in modalities:
        ending = f"/{modality}"
        terms = {
            name.removeprefix(TERM).removesuffix(ending): points
            for name, points in curves.items()
            if name.startswith(TERM) and name.endswith(ending)
        }
        found.append((f"loss of {modality}", terms))
    measured = {
        name.removeprefix("val/"): points
        for name, points in curves.items()
        if name.startswith("val/")
    }
    found.append(("against labels, which only report", measured))
    rates = {
        name.removeprefix("rate/"): points
        for name, points in curves.items()
        if name.startswith("rate/")
    }
    found.append(("learning rate", rates))
    found += [(title, {title: curves[name]}) for name, title in SINGLE.items() if name in curves]
    return [chart(title, lines) for title, lines in found if lines]


def search_chart(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The score of each trial, and the best so far."""
    scored = [(float(t["number"]), float(t["score"])) for t in trials if t["score"] is not None]
    best: list[tuple[float, float]] = []
    for number, score in scored:
        best.append((number, max(score, best[-1][1]) if best else score))
    lines: dict[str, Points] = {"score": scored, "best so far": best} if scored else {}
    return chart("score of the trials", lines, "trial")


def _curves(history: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    curves: dict[str, list[tuple[float, float]]] = {}
    for line in history:
        for name, value in line.get("scalars", {}).items():
            if value is not None:  # it was not finite
                curves.setdefault(name, []).append((float(line["step"]), float(value)))
    return curves
