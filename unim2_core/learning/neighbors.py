"""Which images look alike: nearest neighbours of pooled features, in blocks of bounded memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from unim2_core.errors import ModelError
from unim2_core.learning.group import ALONE, Group

BLOCK_BYTES = 128 * 2**20
"""Memory for the similarities of some images to all others, however many images there are."""


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
    descriptors: Tensor, count: int, spans: Tensor | None = None, group: Group = ALONE
) -> Tensor:
    """Find the images most alike by dot product, the most alike first.

    Args:
        descriptors: (N, D) float32 of unit length.
        count: how many are wanted of each image.
        spans: (N, 2) int64, from and to (exclusive): the images that are no neighbours of each,
            such as itself and crops of the same picture. None: each image is its own first
            neighbour, as published.
        group: the processes that each search for some, and all get the whole.

    Returns:
        (N, count) int64, on the device of the descriptors.

    Raises:
        ModelError: some image has fewer than ``count`` others.
    """
    total = len(descriptors)
    available = total
    if spans is not None and total:
        available -= int((spans[:, 1] - spans[:, 0]).max())
    if available < count:
        raise ModelError(
            "there are too few images to be neighbours",
            expected=f"{count} for each image",
            found=f"{max(available, 0)}",
            remedy="give more images or ask for fewer neighbours",
        )
    found = torch.zeros((total, count), dtype=torch.int64, device=descriptors.device)
    rows = min(max(1, BLOCK_BYTES // (4 * max(1, total))), total)
    memory = descriptors.new_empty(rows, total)
    for start in range(0, total, max(1, rows))[group.rank :: group.world]:
        part = descriptors[start : start + rows]
        similarity = torch.mm(part, descriptors.T, out=memory[: len(part)])  # (rows, N)
        if spans is not None:
            excluded = spans[start : start + rows].tolist()
            for row, (first, end) in zip(similarity, excluded, strict=True):
                row[first:end] = -torch.inf
        found[start : start + rows] = similarity.topk(count, dim=1).indices
    return group.summed(found)
