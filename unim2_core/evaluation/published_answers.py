"""The published way from tokens to clusters: scores are resized, and a dense CRF may follow.

Needs torch, and the network as it was trained; a robot has the exported head instead.
"""

from __future__ import annotations

import numpy as np
import torch

from unim2_core.data.pictures import Picture
from unim2_core.errors import DataError
from unim2_core.evaluation.crf import marginals
from unim2_core.evaluation.protocol import log_probabilities, predictions
from unim2_core.evaluation.runner import Floats, Integers
from unim2_core.model.classifier import Classifier
from unim2_core.model.heads import UNLABELLED
from unim2_core.model.probes import ClusterProbe


class PublishedAnswers:
    """Answers at the size of the labels.

    Args:
        classifier: the model.
        crf: whether a dense CRF follows, along the edges of the reference image.
    """

    def __init__(self, classifier: Classifier, crf: bool = False) -> None:
        self._classifier, self._crf = classifier, crf
        clusters, dim = classifier.prototypes.shape
        self._probe = ClusterProbe(dim, clusters)
        self._probe.centers.data = classifier.prototypes

    @torch.inference_mode()
    def __call__(self, tokens: Floats, presence: Floats, picture: Picture) -> Integers:
        """Clusters (H, W) int64; 255 where no modality sees the place.

        Args:
            tokens: (M, h, w, D) float32.
            presence: (M, h, w) float32, 1 where the modality sees that place.
            picture: that they are of, with labels.

        Raises:
            DataError: there is no reference image for the CRF.
            ModelError: the library of the CRF is not installed.
        """
        assert picture.labels is not None
        names, (height, width) = self._classifier.modalities, picture.labels.shape
        every, seen = (torch.from_numpy(part)[:, None] for part in (tokens, presence))
        code = self._classifier.codes(
            dict(zip(names, every, strict=True)), dict(zip(names, seen, strict=True))
        )
        if self._crf:
            chances = log_probabilities(code, self._probe, (height, width)).exp()[0].numpy()
            found = marginals(_reference(picture, names[0]), chances).argmax(axis=0)
        else:
            found = predictions(code, self._probe, (height, width))[0].numpy()
        blind = (seen.sum(dim=0, keepdim=True) == 0).float()  # (1, 1, h, w)
        unseen = torch.nn.functional.interpolate(blind, (height, width), mode="nearest")
        answers: Integers = np.where(unseen[0, 0].numpy() > 0, UNLABELLED, found)
        return answers


def _reference(picture: Picture, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    if name not in picture.images:
        raise DataError(
            f"{picture.name} has no image whose edges the dense CRF could follow",
            expected=f"an image of {name}",
            found=", ".join(picture.images),
            remedy="evaluate without --crf",
        )
    return picture.images[name]
