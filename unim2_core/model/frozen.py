"""The frozen backbone as a function of images, with what tells it apart from another."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unim2_core.model.backbone import DinoV3
from unim2_core.model.checkpoints import build_backbone
from unim2_core.model.texture import TextureFeatures
from unim2_core.model.tiny import TinyBackbone, is_tiny
from unim2_core.sensing.modalities import MODALITIES

TINY = "tiny"
"""Name of the backbone whose weights come with the package."""
SIMPLE = "texture"
"""Name of its half that needs no weights."""
FOR_TRYING = (TINY, SIMPLE)

Network = TextureFeatures | TinyBackbone | DinoV3


class FrozenBackbone:
    """A backbone in evaluation mode, without gradients.

    Attributes:
        name: of the architecture: ``tiny``, ``texture`` or that of a DINOv3.
        network: (B, 3, H, W) float32, normalised -> (B, h, w, D) float32.
        baseline: whether it is for trying, not for a robot: ``tiny`` and ``texture`` are.
        digest: hex digest of its name and weights.
    """

    def __init__(self, name: str = TINY, *, download: bool = False, device: str = "cpu"):
        """Build it.

        Args:
            name: ``tiny``, ``texture``, the name of a DINOv3, or a file of weights.
            download: fetch the weights where they are missing.
            device: where it runs.

        Raises:
            ModelError: the weights are missing or of another architecture.
        """
        network: Network
        if name == SIMPLE:
            network = TextureFeatures()
        elif name == TINY:
            network = TinyBackbone.load()
        elif is_tiny(Path(name).expanduser()):
            network, name = TinyBackbone.load(Path(name).expanduser()), TINY
        else:
            network = build_backbone(name, download=download)
            name = network.config.name
        self._hold(network, name, device)

    @classmethod
    def of(cls, network: Network, name: str, *, device: str = "cpu") -> FrozenBackbone:
        """The one that a network is, such as that of a checkpoint.

        Args:
            network: its weights are there.
            name: of the architecture.
            device: where it runs.
        """
        made = cls.__new__(cls)
        made._hold(network, name, device)
        return made

    def _hold(self, network: Network, name: str, device: str) -> None:
        self.network, self.name, self.baseline = network, name, name in FOR_TRYING
        digest = hashlib.sha256(name.encode())
        for key, tensor in network.state_dict().items():
            digest.update(key.encode())
            digest.update(np.ascontiguousarray(tensor.cpu().numpy()).data)
        self.digest = digest.hexdigest()
        network.eval().requires_grad_(False).to(device)
        self._device = device

    @property
    def patch_size(self) -> int:
        """Pixels of a token's side."""
        return self.network.patch_size

    @property
    def embed_dim(self) -> int:
        """Width D of a token."""
        return self.network.embed_dim

    @torch.inference_mode()
    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(B, H, W, 3) uint8 -> (B, h, w, D) float32."""
        normalisation = MODALITIES["rgb"]  # of all modalities: the backbone was trained with it
        normalised = np.stack([normalisation.normalize(image) for image in images])
        tokens: torch.Tensor = self.network(torch.from_numpy(normalised).to(self._device))
        return np.asarray(tokens.cpu().numpy(), np.float32)
