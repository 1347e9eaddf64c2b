"""Which images look alike: nearest neighbours of pooled features, in blocks of bounded memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unim2_core.errors import ModelError

BLOCK = 1024
"""Images whose similarities to all others are in memory at once: 4 KiB for each image."""


def pooled(features: Tensor, dropout_masks: Tensor | None = None) -> Tensor:
    """Describe each image by the mean of its features, at unit length.

    Args:
        features: (N, D, h, w) float32.
        dropout_masks: (N, D), 1 where a channel is kept: the published neighbours were made with
            channel dropout left on. Its scale falls out with the length.

    Returns:
        (N, D) float32.
    """
    means = features.mean(dim=(2, 3))
    if dropout_masks is not None:
        means = means * dropout_masks
    return F.normalize(means, dim=1)


def nearest(
    descriptors: Tensor,
    count: int,
    groups: Tensor | None = None,
    spans: Tensor | None = None,
) -> Tensor:
    """Find the images most alike by dot product, the most alike first.

    Args:
        descriptors: (N, D) float32 of unit length.
        count: how many are wanted of each image.
        groups: (N,) integers from 0; images of one group, such as crops of one picture, are no
            neighbours of each other. None: each image is its own first neighbour, as published.
        spans: (N, 2) int64, rows from and to (exclusive) that are no neighbours of an image
            either. With it, at least ``count`` rows must remain for each image.

    Returns:
        (N, count) int64.

    Raises:
        ModelError: some image has fewer than ``count`` others.
    """
    available = len(descriptors)
    if groups is not None and available:
        available -= int(torch.bincount(groups).max())
    if available < count:
        raise ModelError(
            "there are too few images to be neighbours",
            expected=f"{count} for each image",
            found=f"{available}",
            remedy="give more images or ask for fewer neighbours",
        )
    found = torch.empty(len(descriptors), count, dtype=torch.int64, device=descriptors.device)
    for start in range(0, len(descriptors), BLOCK):
        rows = slice(start, start + BLOCK)
        similarity = descriptors[rows] @ descriptors.T  # (block, N)
        if groups is not None:
            similarity.masked_fill_(groups[rows, None] == groups, -torch.inf)
        if spans is not None:
            index = torch.arange(len(descriptors), device=descriptors.device)
            low, high = spans[rows, :1], spans[rows, 1:]
            similarity.masked_fill_((index >= low) & (index < high), -torch.inf)
        found[rows] = similarity.topk(count, dim=1).indices
    return found
