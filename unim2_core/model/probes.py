"""Probes on the codes, which send no gradient to the network: clusters, and classes by labels.

After Hamilton et al., "Unsupervised Semantic Segmentation by Distilling Feature Correspondences"
(2022), https://arxiv.org/abs/2203.08414.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORED = 255
"""The label of a pixel that has none."""
RESIZED = 2
"""Images whose scores are resized at once: those of a whole batch would not stay in the cache."""


class ClusterProbe(nn.Module):
    """Cluster centres, assigned by cosine.

    Args:
        code_dim: width d of a code.
        clusters: number of centres, the extra ones included.
    """

    def __init__(self, code_dim: int, clusters: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.empty(clusters, code_dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the centres anew from N(0, 1)."""
        nn.init.normal_(self.centers)

    def scores(self, code: Tensor) -> Tensor:
        """Scores whose arg max is the cluster: unnormalised code times normalised centre.

        They are linear in the code, so they may be resized in its stead.

        Args:
            code: (B, d, h, w) float32.

        Returns:
            (B, K, h, w) float32: cosines times the length of the code.
        """
        return F.conv2d(code, F.normalize(self.centers, dim=1)[:, :, None, None])

    def cosines(self, code: Tensor) -> Tensor:
        """(B, d, h, w) float32 -> (B, K, h, w) in [-1, 1]."""
        return self.scores(F.normalize(code, dim=1))

    def log_probabilities(self, code: Tensor, alpha: float) -> Tensor:
        """Logarithm of softmax(alpha cos): (B, d, h, w) float32 -> (B, K, h, w), at most 0."""
        return (alpha * self.cosines(code)).log_softmax(dim=1)

    def forward(self, code: Tensor, alpha: float | None = None) -> tuple[Tensor, Tensor]:
        """Assign the codes and say how well they fit.

        Args:
            code: (B, d, h, w) float32; no gradient goes into it.
            alpha: sharpness of a soft assignment softmax(alpha cos); None is a hard one.

        Returns:
            The loss, minus the mean over places of the cosines weighted by the assignment, and
            the assignment (B, K, h, w), which sums to one over K.
        """
        cosines = self.cosines(code.detach())  # (B, K, h, w)
        if alpha is None:
            assigned = F.one_hot(cosines.argmax(dim=1), cosines.shape[1])  # (B, h, w, K)
            probabilities = assigned.permute(0, 3, 1, 2).to(cosines)
        else:
            probabilities = (alpha * cosines).softmax(dim=1)
        return -(probabilities * cosines).sum(dim=1).mean(), probabilities


class LinearProbe(nn.Conv2d):
    """Classes by a linear map of the codes, learnt from labels: for measurement only.

    Args:
        code_dim: width d of a code.
        classes: number of classes K.
    """

    def __init__(self, code_dim: int, classes: int) -> None:
        super().__init__(code_dim, classes, 1)

    def labelled(self, labels: Tensor) -> Tensor:
        """Where labels (B, H, W) are of a class: (B, H, W) bool."""
        return (labels >= 0) & (labels < self.out_channels)

    def loss(self, code: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy over the labelled pixels.

        Args:
            code: (B, d, h, w) float32; no gradient goes into it.
            labels: (B, H, W) integers below K; any other value is not labelled.

        Returns:
            A scalar; zero where no pixel is labelled.
        """
        labelled = self.labelled(labels)
        target = labels.long().masked_fill(~labelled, IGNORED)
        logits = self(code.detach())
        entropies = [
            F.cross_entropy(
                resized(part, labels.shape[-2:]), marks, ignore_index=IGNORED, reduction="sum"
            )
            for part, marks in zip(
                torch.split(logits, RESIZED), torch.split(target, RESIZED), strict=True
            )
        ]
        return torch.stack(entropies).sum() / labelled.sum().clamp(min=1)


def resized(maps: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W), bilinearly, pixels being areas (``align_corners`` false).

    That is a product with a matrix along each axis, which a CPU does in half the time that
    ``interpolate`` takes forward and back, and a GPU in an order that is always the same.
    """
    rows, columns = (
        _stretching(side, wanted, maps) for side, wanted in zip(maps.shape[-2:], size, strict=True)
    )
    return rows.T @ (maps.contiguous() @ columns)


def _stretching(side: int, wanted: int, like: Tensor) -> Tensor:
    """The matrix that makes a row of pixels longer or shorter, (side, wanted)."""
    unit = torch.eye(side, dtype=like.dtype, device=like.device)[None]
    return F.interpolate(unit, size=wanted, mode="linear", align_corners=False)[0]
