"""From codes to predictions at the size of the labels.

The release resizes the codes to the labels' size and applies the probes there. Both probes are
linear in the code (the cluster probe's arg max does not depend on the code's length), and bilinear
weights sum to one, so resizing K scores instead gives the same predictions at K / d of the cost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unim2_core.model.probes import ClusterProbe, LinearProbe, resized

CRF_ALPHA = 2.0
"""Sharpness of the cluster probabilities that a dense CRF starts from."""


@torch.no_grad()
def predictions(code: Tensor, probe: ClusterProbe | LinearProbe, size: tuple[int, int]) -> Tensor:
    """The best cluster or class of each pixel.

    Args:
        code: (B, d, h, w) float32, one for each token.
        probe: either probe.
        size: H, W of the labels.

    Returns:
        (B, H, W) int64.
    """
    scores = probe.scores(code) if isinstance(probe, ClusterProbe) else probe(code)
    return resized(scores, size).argmax(dim=1)


@torch.no_grad()
def log_probabilities(
    code: Tensor, probe: ClusterProbe | LinearProbe, size: tuple[int, int]
) -> Tensor:
    """What a dense CRF starts from.

    Args:
        code: (B, d, h, w) float32.
        probe: clusters: log softmax(2 cos), whose code is resized, for a cosine is not linear;
            classes: log softmax of the resized logits.
        size: H, W of the labels.

    Returns:
        (B, K, H, W) float32, at most 0.
    """
    if isinstance(probe, ClusterProbe):
        return probe.log_probabilities(resized(code, size), CRF_ALPHA)
    return resized(probe(code), size).log_softmax(dim=1)
