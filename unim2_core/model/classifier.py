"""What a trained model is when it is used: tokens in, scores of the clusters out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from unim2_core.errors import ModelError
from unim2_core.model.bundle import TRAINING, Bundle
from unim2_core.model.segmenter import Segmenter, SegmenterConfig
from unim2_core.model.segmenter_head import head_weights

SURE_PERCENTILE = 90
"""The margin that this share of the places stays under is shown as full confidence."""
PREFIX = "segmenter."
"""Of the network's weights among all that was trained."""


class Classifier(nn.Module):
    """Standardisation, network in evaluation mode, prototypes.

    Args:
        segmenter: the network; it is switched to evaluation mode.
        prototypes: (K, d) float32, of any length but zero.
        mean: (M, D) float32, subtracted from tokens.
        scale: (M, D) float32, multiplied after that.
        valid: (K,) float32, 0 where an id is reserved and no class has it; None: all are in use.
    """

    prototypes: Tensor
    mean: Tensor
    scale: Tensor
    valid: Tensor

    def __init__(
        self,
        segmenter: Segmenter,
        prototypes: Tensor,
        mean: Tensor,
        scale: Tensor,
        valid: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.segmenter = segmenter.eval()
        self.register_buffer("prototypes", F.normalize(prototypes.detach().float(), dim=1))
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.register_buffer("valid", torch.ones(len(prototypes)) if valid is None else valid)

    @classmethod
    def load(cls, bundle: Bundle) -> Classifier:
        """The one of a bundle, from what was stored to go on learning from.

        Raises:
            ModelError: no network was trained, or it is not one that this version knows.
        """
        network = bundle.manifest.network
        if network is None:
            raise ModelError(
                f"{bundle.path} holds no network",
                expected="a model whose network was trained",
                found=bundle.manifest.method,
                remedy="train one with --method unim2",
            )
        try:
            form = {**network, "modalities": tuple(network["modalities"])}
            segmenter = Segmenter(SegmenterConfig(**form))
            state = load_file(bundle.file(TRAINING))
            own = {
                name.removeprefix(PREFIX): part
                for name, part in state.items()
                if name.startswith(PREFIX)
            }
            segmenter.load_state_dict(own)
            weights = {name: torch.from_numpy(part) for name, part in bundle.weights().items()}
            own_inputs = ("prototypes", "mean", "scale", "valid")
            return cls(segmenter, *(weights[name] for name in own_inputs))
        except (OSError, SafetensorError, KeyError, TypeError, RuntimeError) as error:
            raise ModelError(
                f"cannot read the network of {bundle.path}",
                expected=f"{TRAINING} with the weights of the network that the manifest describes",
                found=str(error).splitlines()[0],
                remedy="train the model again, or install the version that wrote it",
            ) from error

    @property
    def modalities(self) -> tuple[str, ...]:
        """Their names; the first is the reference."""
        return self.segmenter.config.modalities

    @torch.no_grad()
    def codes(
        self, tokens: Mapping[str, Tensor], presence: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Codes of places.

        Args:
            tokens: (B, h, w, D) float of each modality, as the backbone gives them.
            presence: (B, h, w) of each, 1 or True where it sees something; None = everywhere.

        Returns:
            (B, d, h, w) float32.
        """
        features: dict[str, Tensor] = {}
        seen: dict[str, Tensor] | None = None if presence is None else {}
        for index, name in enumerate(self.modalities):
            maps = (tokens[name].float() - self.mean[index]) * self.scale[index]
            if presence is not None and seen is not None:
                seen[name] = presence[name].float()
                maps = maps * seen[name][..., None]
            features[name] = maps.permute(0, 3, 1, 2)
        code: Tensor = self.segmenter(features, presence=seen).code
        return code

    def scores(
        self, tokens: Mapping[str, Tensor], presence: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Scores whose arg max is the cluster, linear in the code: (B, K, h, w) float32.

        Arguments as in ``codes``.
        """
        return self._to_classes(self.codes(tokens, presence))

    def _to_classes(self, codes: Tensor) -> Tensor:
        """Codes (B, d, h, w) times prototypes; below every true score where an id is reserved."""
        scores: Tensor = F.conv2d(codes, self.prototypes[:, :, None, None])
        if bool((self.valid > 0).all()):
            return scores
        length = codes.norm(dim=1, keepdim=True).clamp(min=1e-12)
        below: Tensor = 4.0 * length * (1.0 - self.valid)[:, None, None]
        return scores - below

    def margins(
        self, tokens: Mapping[str, Tensor], presence: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """Best minus second cosine of each place: (B, h, w) float32 in [0, 2]."""
        best = self.cosines(tokens, presence).topk(2, dim=1).values
        return best[:, 0] - best[:, 1]

    def cosines(
        self, tokens: Mapping[str, Tensor], presence: Mapping[str, Tensor] | None = None
    ) -> Tensor:
        """As ``scores``, which they order alike, but in [-1, 1]: (B, K, h, w) float32."""
        return self._to_classes(F.normalize(self.codes(tokens, presence), dim=1))

    def head_inputs(self, full_margin: float) -> dict[str, NDArray[np.float32]]:
        """The inputs of ``SegmenterHead`` other than tokens and presence, by name.

        Args:
            full_margin: the margin that is shown as full confidence.
        """
        own = {
            "mean": self.mean,
            "scale": self.scale,
            "prototypes": self.prototypes,
            "valid": self.valid,
            "full_margin": torch.tensor(max(full_margin, 1e-6)),
            **head_weights(self.segmenter),
        }
        return {
            name: tensor.contiguous().cpu().numpy().astype(np.float32)
            for name, tensor in own.items()
        }


def full_margin(margins: NDArray[np.float32]) -> float:
    """The margin that is shown as full confidence, from those of many places."""
    return float(np.percentile(margins, SURE_PERCENTILE)) if margins.size else 1.0
