"""Choosing a model without labels: how sure, how balanced and how steady its clusters are.

Labels must not choose what is served: they would not be there on a robot, and a figure that they
had a part in says nothing about one. Every criterion here is computed from features alone; how
well they do is measured by ``benchmarks/quality.py``, beside what labels would have chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unim2_core.data.views import middle
from unim2_core.learning.features import FeatureStore
from unim2_core.model.classifier import Classifier

ROWS = 64
"""Pictures that the criteria are computed on, spread evenly."""
CHUNK = 8
SMALLEST_ENTROPY = 0.5
"""A model whose use of the clusters is less balanced than this has collapsed."""


@dataclass(frozen=True)
class Criteria:
    """What can be said of a model without labels; more is better in each.

    Attributes:
        margin: mean over places of best minus second cosine.
        entropy: of the use of the clusters, as a share of that of equal use.
        subsets: agreement with itself when a modality other than the reference is missing, mean
            over these; the adjusted Rand index, 0 by chance, 1 at most. NaN where not asked for.
        flips: agreement with itself on mirrored pictures, likewise; NaN where there are none.
        crops: agreement with itself on the middle of pictures cut out, likewise.
        peers: mean agreement with other candidates, likewise, see ``with_peers``.
    """

    margin: float
    entropy: float
    subsets: float
    flips: float
    crops: float = float("nan")
    peers: float = float("nan")

    def as_json(self) -> dict[str, float | None]:
        """For reports; what is not known is None."""
        return {
            name: None if np.isnan(value) else round(value, 5)
            for name, value in asdict(self).items()
        }


def criteria(
    classifier: Classifier,
    store: FeatureStore,
    mirrored: FeatureStore | None = None,
    cropped: FeatureStore | None = None,
    *,
    subsets: bool = False,
) -> Criteria:
    """Compute all criteria of a model, but for what its peers say.

    Args:
        classifier: the model.
        store: features of pictures; ``ROWS`` of them are looked at.
        mirrored: features of just these, left and right swapped, see ``looked_at``.
        cropped: features of the middle of just these, see ``Cropped``.
        subsets: whether modalities are left out, too: a pass through the network for each.
    """
    whole, margin = _seen(classifier, store)
    left = [
        agreement(whole, assigned(classifier, store, without=name))
        for name in (classifier.modalities[1:] if subsets else ())
    ]
    flips = crops = float("nan")
    if mirrored is not None:
        flips = agreement(whole, assigned(classifier, mirrored)[:, :, ::-1])
    if cropped is not None:
        inner = (slice(None), *middle(store.grid))
        crops = agreement(whole[inner], assigned(classifier, cropped))
    clusters = len(classifier.prototypes)
    use = np.bincount(whole.ravel(), minlength=clusters) / whole.size
    entropy = -float((use[use > 0] * np.log(use[use > 0])).sum()) / np.log(clusters)
    return Criteria(
        margin=margin,
        entropy=entropy,
        subsets=float(np.mean(left)) if left else float("nan"),
        flips=flips,
        crops=crops,
    )


def assigned(
    classifier: Classifier, store: FeatureStore, without: str | None = None
) -> NDArray[np.int64]:
    """The cluster of every place of the pictures ``looked_at``, (rows, h, w).

    Args:
        classifier: the model.
        store: features of pictures.
        without: a modality that is taken as missing.
    """
    return _seen(classifier, store, without)[0]


def _seen(
    classifier: Classifier, store: FeatureStore, without: str | None = None
) -> tuple[NDArray[np.int64], float]:
    """The cluster of every place, see ``assigned``, and the mean of best minus second cosine."""
    found, margins = [], []
    for rows in _chunks(looked_at(len(store))):
        tokens, presence = loaded(store, rows, classifier.modalities, classifier.prototypes.device)
        if without is not None:
            presence[without] = torch.zeros_like(presence[without])
        best, cluster = (part.cpu() for part in classifier.cosines(tokens, presence).topk(2, 1))
        found.append(cluster[:, 0].numpy())
        margins.append((best[:, 0] - best[:, 1]).flatten())
    return np.concatenate(found), float(torch.cat(margins).mean())


def _chunks(rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [rows[start : start + CHUNK] for start in range(0, len(rows), CHUNK)]


def with_peers(
    found: Sequence[Criteria], assignments: Sequence[NDArray[np.int64]]
) -> list[Criteria]:
    """Let candidates, of one training or of several seeds, say how far they agree.

    The adjusted Rand index does not depend on the numbers of clusters, so nothing is matched.

    Args:
        found: criteria of each candidate.
        assignments: of each, to the same places, see ``assigned``; a NaN is left where there is
            only one.
    """
    count = len(assignments)
    mutual = np.full((count, count), np.nan)
    for first in range(count):
        for second in range(first):
            mutual[first, second] = agreement(assignments[first], assignments[second])
            mutual[second, first] = mutual[first, second]
    peers = np.nanmean(mutual, axis=1) if count > 1 else np.full(count, np.nan)
    return [replace(one, peers=float(value)) for one, value in zip(found, peers, strict=True)]


def looked_at(count: int) -> NDArray[np.int64]:
    """Which of so many pictures the criteria are computed on."""
    return np.unique(np.linspace(0, count - 1, ROWS).round().astype(np.int64))


def loaded(
    store: FeatureStore,
    rows: NDArray[np.int64],
    names: Sequence[str],
    device: torch.device | str = "cpu",
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tokens (B, h, w, D) and presence (B, h, w) float32 of some pictures, on a device."""
    tokens, presence = (
        {name: torch.from_numpy(parts[name][rows]).to(device).float() for name in names}
        for parts in (store.tokens, store.presence)
    )
    return tokens, presence


def agreement(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Adjusted Rand index of two assignments (Hubert and Arabie, 1985).

    Two assignments that are both constant agree by chance alone: 0, so that a model that puts
    everything into one cluster does not look steady.

    Args:
        first: integers from 0.
        second: the same shape.

    Returns:
        At most 1; about 0 for independent ones.
    """
    a, b = first.ravel(), second.ravel()
    width = int(b.max()) + 1
    table = np.bincount(a * width + b, minlength=(int(a.max()) + 1) * width)
    cells = table.reshape(-1, width).astype(np.float64)

    def pairs(counts: NDArray[np.float64]) -> float:
        return float((counts * (counts - 1) / 2).sum())

    both, rows, columns = pairs(cells), pairs(cells.sum(1)), pairs(cells.sum(0))
    total = a.size * (a.size - 1) / 2
    expected = rows * columns / total
    most = (rows + columns) / 2
    return 0.0 if most == expected else (both - expected) / (most - expected)


Rule = Callable[[Sequence[Criteria]], NDArray[np.float64]]


def steady(found: Sequence[Criteria]) -> NDArray[np.float64]:
    """Scores of candidates, (n,): the mean rank over the views of a picture, see ``_by_ranks``."""
    return _by_ranks(found, ("flips", "crops"))


def combined(found: Sequence[Criteria]) -> NDArray[np.float64]:
    """Scores of candidates, (n,): the mean rank over steadiness and sureness."""
    return _by_ranks(found, ("margin", "subsets", "flips"))


def _by_ranks(found: Sequence[Criteria], names: Sequence[str]) -> NDArray[np.float64]:
    """Mean ranks, (n,), because criteria have no common scale; the collapsed come last.

    A criterion that is not known of all candidates is left out; without any, all are equal.
    """
    ranks = [
        _ranks(values)
        for name in names
        if not np.isnan(values := np.array([getattr(one, name) for one in found])).any()
    ]
    score = np.mean(ranks, axis=0) if ranks else np.zeros(len(found))
    collapsed = np.array([one.entropy < SMALLEST_ENTROPY for one in found])
    return np.asarray(np.where(collapsed, score - len(found), score), np.float64)


RULES: dict[str, Rule] = {
    **{
        field.name: lambda found, name=field.name: np.array(  # type: ignore[misc]
            [getattr(one, name) for one in found]
        )
        for field in fields(Criteria)
    },
    "steady": steady,
    "combined": combined,
}
"""Rule -> the scores of candidates, the highest is the best; every criterion alone is one."""
DEFAULT_RULE = "steady"


def chosen(found: Sequence[Criteria], rule: str = DEFAULT_RULE) -> int:
    """The index of the best candidate; of equal ones the last, which has learnt longest."""
    scores = RULES[rule](found)
    return int(len(scores) - 1 - np.argmax(scores[::-1]))


def rank_correlation(scores: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    """Spearman's: how well scores order candidates; NaN where one does not tell them apart."""
    a, b = _ranks(scores), _ranks(truth)
    if a.std() == 0 or b.std() == 0:
        return float("nan")
    return float(np.corrcoef(a, b)[0, 1])


def regret(choice: int, truth: NDArray[np.float64]) -> float:
    """What a choice costs: the best figure, which only an oracle knows, minus that of the choice.

    Args:
        choice: index of the candidate that was chosen.
        truth: a figure of each candidate, such as mIoU; more is better.
    """
    return float(np.max(truth) - truth[choice])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, equal values sharing the mean of theirs."""
    values = np.asarray(values, np.float64)
    below = (values[:, None] > values[None]).sum(1)
    equal = (values[:, None] == values[None]).sum(1) - 1
    return np.asarray(below + equal / 2, np.float64)
