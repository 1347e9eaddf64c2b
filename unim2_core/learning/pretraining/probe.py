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

ROUNDS = 60
PENALTY = 1e-4
MOST_TOKENS = 40_000
CHUNK = 8

Channels = slice
EVERY = slice(None)


def linear_probe(
    train: FeatureStore,
    test: FeatureStore,
    modalities: Sequence[str],
    *,
    channels: Channels = EVERY,
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


def _tokens(
    store: FeatureStore, row: int, modalities: Sequence[str], channels: Channels
) -> Tensor:
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
