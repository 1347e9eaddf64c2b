"""How much a linear layer makes of frozen features: what pre-training is measured by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unim2_core.data.labels import IGNORED
from unim2_core.errors import DataError
from unim2_core.evaluation.metrics import Scores, classification_scores
from unim2_core.evaluation.runner import Tally
from unim2_core.learning.features import FeatureStore
from unim2_core.model.texture import TextureFeatures

ROUNDS = 60
PENALTY = 1e-4
MOST_TOKENS = 20_000
CHUNK = 8

EVERY = slice(None)


def linear_probe(
    train: FeatureStore,
    test: FeatureStore,
    modalities: Sequence[str],
    *,
    channels: slice = EVERY,
    seed: int = 0,
) -> Scores:
    """Fit a softmax regression to labels, and measure it on other pictures.

    Labels teach this layer and nothing else: no weight of a backbone depends on them.

    Args:
        train: features with labels.
        test: others.
        modalities: whose tokens are concatenated; a missing one is zeros.
        channels: which of a token's.
        seed: of the draw of tokens.

    Raises:
        DataError: a store has no labels.
    """
    if train.labels is None or test.labels is None or test.classes is None:
        raise DataError(
            "there is nothing to fit a linear layer to",
            expected="features of pictures that have labels",
            found="no labels",
            remedy="give labels in the data set's file",
        )
    classes = len(test.classes.names)
    tokens = [_tokens(train, row, modalities, channels) for row in range(len(train))]
    labels = cell_labels(train.labels, train.grid, classes).reshape(-1)
    x, y = torch.cat(tokens).flatten(0, 2), torch.from_numpy(labels)
    there = torch.from_numpy(np.flatnonzero(labels != IGNORED))
    if len(there) > MOST_TOKENS:
        draw = torch.Generator().manual_seed(seed)
        there = there[torch.randperm(len(there), generator=draw)[:MOST_TOKENS]]
    x, y = x[there], y[there].long()
    mean, deviation = x.mean(0), x.std(0).clamp(min=1e-4)
    weight, bias = _fitted((x - mean) / deviation, y, classes)
    tally = Tally(classes, classes)
    for start in range(0, len(test), CHUNK):
        rows = range(start, min(start + CHUNK, len(test)))
        seen = torch.cat([_tokens(test, row, modalities, channels) for row in rows])
        scores = ((seen - mean) / deviation) @ weight.T + bias  # (B, h, w, C)
        given = test.labels[start : start + len(rows)]
        resized = F.interpolate(
            scores.permute(0, 3, 1, 2), given.shape[1:], mode="bilinear", align_corners=False
        )
        tally.add(resized.argmax(dim=1).numpy(), given)
    return classification_scores(tally.table)


def told_by_reference(
    train: FeatureStore, test: FeatureStore, *, channels: slice = EVERY
) -> float:
    """How much of the other sensors' simple features a linear map tells from the reference's.

    A measure without labels: what a place looks like to another sensor follows from what it is,
    so features that know what a place is tell more of it.

    Args:
        train: features of a ``TinyBackbone`` to fit the map on.
        test: others.
        channels: which of the reference's are given to the map.

    Returns:
        Share of the variance that is explained, mean over channels and modalities, at most 1; NaN
        where there is no other modality.
    """
    reference, *others = train.modalities
    found = []
    for name in others:
        x, y = _both(train, reference, name, channels)
        if not len(x):
            continue
        shift, centre = x.mean(0), y.mean(0)
        x, y = x - shift, y - centre
        gram = x.T @ x
        ridge = PENALTY * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
        linear = torch.linalg.solve(gram + ridge, x.T @ y)
        x, y = _both(test, reference, name, channels)
        if len(x):
            rest = (y - centre - (x - shift) @ linear).square().mean(0)
            found.append(1 - rest / y.var(0, correction=0).clamp(min=1e-6))
    return float(torch.cat(found).clamp(min=-1).mean()) if found else float("nan")


def _both(
    store: FeatureStore, reference: str, other: str, channels: slice
) -> tuple[Tensor, Tensor]:
    """Features of the one (n, D) and simple features of the other (n, C) where both see."""
    there = store.presence[reference] & store.presence[other]
    x = store.tokens[reference][there][:, channels]
    y = store.tokens[other][there][:, : TextureFeatures.embed_dim]
    return torch.from_numpy(x.astype(np.float64)), torch.from_numpy(y.astype(np.float64))


def _fitted(x: Tensor, y: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weights (C, D) and biases (C,) of a softmax regression of x (n, D) to y (n,)."""
    weight = torch.zeros(classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=ROUNDS, history_size=10, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        value = F.cross_entropy(x @ weight.T + bias, y) + PENALTY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def _tokens(store: FeatureStore, row: int, modalities: Sequence[str], channels: slice) -> Tensor:
    """(1, h, w, D) float32 of one picture."""
    parts = [store.tokens[name][row][..., channels] for name in modalities]
    return torch.from_numpy(np.concatenate(parts, axis=-1).astype(np.float32))[None]


def cell_labels(
    labels: NDArray[np.uint8], grid: tuple[int, int], classes: int
) -> NDArray[np.uint8]:
    """The label of most pixels of each cell, (N, h, w); 255 where most have none.

    Args:
        labels: (N, H, W), 255 = ignored; H and W multiples of the grid's sides.
        grid: h and w.
        classes: number of classes.
    """
    count, height, width = labels.shape
    cells = labels.reshape(count, grid[0], height // grid[0], grid[1], width // grid[1])
    votes = np.stack([(cells == label).sum((2, 4)) for label in range(classes)], axis=-1)
    best = votes.argmax(-1)
    most = votes.max(-1) * 2 > cells.shape[2] * cells.shape[4]
    found: NDArray[np.uint8] = np.where(most, best, IGNORED).astype(np.uint8)
    return found
