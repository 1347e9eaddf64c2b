"""What an adaptation has come to: classes that keep their ids, and the figures that judge it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unim2_core.learning.adapter import Adapter
from unim2_core.learning.domains import Shift, sensor_figures, shift
from unim2_core.learning.features import FeatureStore
from unim2_core.learning.identity import Identity, carried_over, kept_share, matched
from unim2_core.learning.memory import HELD, REHEARSED, Memory, concatenated, spread
from unim2_core.learning.selection import agreement, loaded
from unim2_core.model.bundle import Label
from unim2_core.model.classifier import Classifier, full_margin

CHUNK = 8
ROUNDS = 1
"""In which centres move to the mean of their places."""
UNEXPLAINED = 0.01
"""Share of the old places that are less like any class than a place that counts as unexplained."""
SMALLEST_NEW_CLASS = 0.05
"""Share of the new places that have to be unexplained for a new class to be looked for."""
WAYS = ((1.0, 1.0), (1.0, 0.0), (0.7, 0.0), (0.4, 0.0), (0.2, 0.0))
"""How far weights and centres may go where learning led; the first that keeps the ids is taken."""
KEPT_IDS = 0.985
"""Share of the old held-out places that have to keep their class.

They are of the drives that the memory is of; on another drive fewer keep theirs.
"""


@dataclass(frozen=True, eq=False)
class Outcome:
    """A model that has been adapted and not been judged.

    Attributes:
        classifier: as it would be served.
        state: all weights, to go on learning from.
        identity: which class each of its clusters is.
        full_margin: the margin that is shown as full confidence.
        figures: name -> value, for the guard and the history.
        shift: how unlike the past the new drives are; None where nothing new was held out.
        memory: the past with the new drives; None where there is nothing new to remember.
    """

    classifier: Classifier
    state: Mapping[str, Tensor]
    identity: Identity
    full_margin: float
    figures: Mapping[str, float]
    shift: Shift | None
    memory: Memory | None

    def labels(self, labels: tuple[Label, ...]) -> tuple[Label, ...]:
        """The table of labels, carried over."""
        return carried_over(labels, self.identity)


def outcome(adapter: Adapter, new_classes: int = 0, free_id: int = 0) -> Outcome:
    """Find the classes of an adapted network, match them to the old ones, and measure.

    Args:
        adapter: after the last picture.
        new_classes: how many classes may be added, where many places fit none, at most.
        free_id: the first class id that no version of the model has given out.
    """
    memory, new, held = adapter.memory, adapter.buffer.new, adapter.new_held
    served, rehearsed = adapter.served, adapter.memory.rehearsed
    parts = (rehearsed, new) if len(new) else (rehearsed,)
    past = _Past(
        parts, codes_of(served, rehearsed), tuple(assigned_to(served, part) for part in parts)
    )
    before = assigned_to(served, memory.held)
    for weights, centres in WAYS:
        made = _made(adapter, past, weights, centres, new_classes, free_id)
        if kept_share(before, assigned_to(made.classifier, memory.held)) >= KEPT_IDS:
            break
    adapted, state, identity = made.classifier, made.state, made.identity
    figures = {
        "frames": float(adapter.buffer.offered - adapter.buffer.refused + len(adapter.held)),
        "pictures": float(adapter.taken),
        "near_duplicates": float(adapter.buffer.refused + adapter.held_refused),
        "steps": float(adapter.steps),
        "weights_share": weights,
        "centres_share": centres,
        "drift": adapter.drift(adapted),
        "finite": float(
            all(bool(part.isfinite().all()) for part in (*state.values(), made.codes))
        ),
        "new_classes": float(len(identity.fresh)),
        "vanished_classes": float(len(identity.vanished)),
    }
    figures |= compared(served, adapted, memory.held, memory.mirrored, "old")
    found = None
    if held is not None:
        fresh = concatenated(held, new) if len(new) else held
        figures |= compared(served, adapted, held, adapter.new_held_mirrored, "new")
        remembered = concatenated(rehearsed, memory.held)
        figures |= sensor_figures(remembered, fresh, adapter.standardization)
        found = shift(rehearsed, memory.held, fresh, adapter.standardization)
        figures["shift"] = found.score
        figures |= {f"shift/{name}": value for name, value in found.by_modality.items()}
    return Outcome(
        adapted,
        state,
        identity,
        full_margin(margins_of(adapted, memory.held)),
        figures,
        found,
        _remembered(adapter),
    )


@dataclass(frozen=True, eq=False)
class _Past:
    """Old pictures, and new ones where there are any, as the served model sees them."""

    parts: tuple[FeatureStore, ...]
    codes: Tensor
    ids: tuple[NDArray[np.int64], ...]


@dataclass(frozen=True, eq=False)
class _Made:
    classifier: Classifier
    state: Mapping[str, Tensor]
    identity: Identity
    codes: Tensor


def _made(
    adapter: Adapter, past: _Past, weights: float, share: float, new_classes: int, free_id: int
) -> _Made:
    """The model at shares of the ways, with classes that are matched to the old ones."""
    served = adapter.served
    network, state = adapter.adapted(weights)
    codes = tuple(codes_of(network, part) for part in past.parts)
    added = new_classes if len(past.parts) > 1 else 0
    centres, began = regrouped(served, past.codes, codes, past.ids, added, share)
    every = torch.cat(codes)
    clusters = (every @ centres.T).argmax(dim=1).numpy()
    identity = matched(
        *(np.concatenate(past.ids), clusters, len(centres), served.valid.numpy() > 0),
        began=began,
        free=free_id,
    )
    prototypes, valid = identity.placed(centres)
    adapted = Classifier(network.segmenter, prototypes, served.mean, served.scale, valid)
    return _Made(adapted, state, identity, every)


def regrouped(
    served: Classifier,
    before: Tensor,
    codes: tuple[Tensor, ...],
    old_ids: tuple[NDArray[np.int64], ...],
    new_classes: int,
    share: float = 1.0,
) -> tuple[Tensor, NDArray[np.int64]]:
    """Centres of the classes in the codes of an adapted network.

    They begin at the served prototypes, moved as far as the mean code of their old places has
    moved, and then go to the mean of their own places (spherical k-means, Dhillon and Modha,
    2001), old and new pictures counting equally. More rounds fit new drives better and keep fewer
    ids: see ``benchmarks/adaptation.py``.

    Args:
        served: the model that is served.
        before: (N, d) unit codes that it gives to the old places.
        codes: (N, d) unit codes that the adapted network gives to the old places and, where there
            are any, to the new ones.
        old_ids: (N,) what the served model assigns to them.
        new_classes: centres that may be added, at most.
        share: of the way to the means of their places.

    Returns:
        (K, d) centres at unit length, and (K,) int64: the class that each began as, -1 = none. One
        that no place belongs to stays where it is.
    """
    count = len(served.prototypes)
    old = torch.from_numpy(old_ids[0])
    every = torch.cat(codes)
    weights = torch.cat([torch.full((len(part),), 1 / len(part)) for part in codes])
    moved = _means(codes[0], old, weights, count) - _means(before, old, weights, count)
    known = (served.valid > 0).nonzero().flatten()
    centres = F.normalize(served.prototypes + moved, dim=1)[known]
    for _ in range(new_classes):
        limit = (codes[0] @ centres.T).amax(dim=1).quantile(UNEXPLAINED)
        strange = codes[1][(codes[1] @ centres.T).amax(dim=1) < limit]
        if len(strange) < SMALLEST_NEW_CLASS * len(codes[1]):
            break
        centres = torch.cat([centres, F.normalize(strange.mean(dim=0), dim=0)[None]])
    first = centres
    for _ in range(ROUNDS):
        nearest = (every @ centres.T).argmax(dim=1)
        means = _means(every, nearest, weights, len(centres))
        empty = torch.bincount(nearest, minlength=len(centres)) == 0
        centres = torch.where(empty[:, None], centres, means)
    began = np.full(len(centres), -1)
    began[: len(known)] = known.numpy()
    return F.normalize(first.lerp(centres, share), dim=1), began


def _means(codes: Tensor, ids: Tensor, weights: Tensor, count: int) -> Tensor:
    """Unit means of codes (N, d) by id, (count, d); zeros where there is none."""
    weighted = codes * weights[: len(codes), None]
    total = torch.zeros(count, codes.shape[1]).index_add_(0, ids, weighted)
    return F.normalize(total, dim=1)


def compared(
    served: Classifier,
    adapted: Classifier,
    store: FeatureStore,
    mirrored: FeatureStore | None,
    domain: str,
) -> dict[str, float]:
    """Figures of both models on held-out pictures of a domain, and how far they agree."""
    before, after = assigned_to(served, store), assigned_to(adapted, store)
    in_use = max(2, int((served.valid > 0).sum()), int((adapted.valid > 0).sum()))
    found = {
        f"kept_ids/{domain}": kept_share(before, after),
        f"agreement/{domain}": agreement(before, after),
    }
    for name, model, ids in (("served", served, before), ("adapted", adapted, after)):
        found[f"entropy/{domain}" if name == "adapted" else f"entropy_served/{domain}"] = balance(
            ids, in_use
        )
        found[f"margin_{name}/{domain}"] = float(margins_of(model, store).mean())
        if mirrored is not None:
            found[f"steadiness_{name}/{domain}"] = agreement(ids, assigned_to(model, mirrored))
    found[f"entropy_change/{domain}"] = (
        found[f"entropy/{domain}"] - found[f"entropy_served/{domain}"]
    )
    if mirrored is not None:
        found[f"steadiness_change/{domain}"] = (
            found[f"steadiness_adapted/{domain}"] - found[f"steadiness_served/{domain}"]
        )
    return found


def balance(ids: NDArray[np.int64], classes: int) -> float:
    """Entropy of the use of the classes, as a share of that of equal use."""
    use = np.bincount(ids) / max(1, len(ids))
    use = use[use > 0]
    return float(-(use * np.log(use)).sum() / np.log(classes))


@torch.no_grad()
def codes_of(model: Classifier, store: FeatureStore) -> Tensor:
    """(N, d) float32 unit codes of all places of a store."""
    found = [
        model.codes(*loaded(store, rows, model.modalities)).permute(0, 2, 3, 1).flatten(0, 2)
        for rows in _chunks(store)
    ]
    return F.normalize(torch.cat(found), dim=1)


@torch.no_grad()
def assigned_to(model: Classifier, store: FeatureStore) -> NDArray[np.int64]:
    """(N,) int64, the class of every place of a store."""
    found = [
        model.scores(*loaded(store, rows, model.modalities)).argmax(dim=1).flatten()
        for rows in _chunks(store)
    ]
    return torch.cat(found).numpy()


@torch.no_grad()
def margins_of(model: Classifier, store: FeatureStore) -> NDArray[np.float32]:
    """(N,) float32, best minus second cosine of every place of a store."""
    found = [
        model.margins(*loaded(store, rows, model.modalities)).flatten() for rows in _chunks(store)
    ]
    return np.asarray(torch.cat(found).numpy(), np.float32)


def _chunks(store: FeatureStore) -> list[NDArray[np.int64]]:
    rows = np.arange(len(store))
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]


def _remembered(adapter: Adapter) -> Memory | None:
    """The past, with what was new in it."""
    held, new = adapter.new_held, adapter.buffer.new
    if held is None or not len(new):
        return None
    mirrored = adapter.new_held_mirrored
    rows = spread(np.arange(len(held)), HELD)
    other = replace(
        adapter.memory,
        rehearsed=new.take(spread(np.arange(len(new)), REHEARSED)),
        held=held.take(rows),
        mirrored=None if mirrored is None else mirrored.take(rows),
    )
    return adapter.memory.joined(other)
