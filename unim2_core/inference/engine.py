"""Engines: the graphs of a bundle on a backend that passed the gate."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError, cause
from unim2_core.inference.backends import (
    AUTO,
    LIBRARIES,
    Backend,
    Device,
    Graph,
    Precision,
    candidates,
)
from unim2_core.inference.fastest import in_order
from unim2_core.inference.parity import Parity, gate_of
from unim2_core.inference.served_heads import ServedHeads
from unim2_core.model.bundle import BACKBONE, HEAD, Bundle


class Classified(NamedTuple):
    """What the head answers.

    Attributes:
        classes: (H, W) uint8 class ids at the head's stride, 255 unlabelled.
        confidence: (H, W) uint8.
        version: sha256 of the model whose weights it ran with.
    """

    classes: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    version: str


class Engine:
    """The two graphs of a bundle on one backend, and the head's weights.

    Attributes:
        backend: name of the backend that runs.
        precision: that it computes in.
        batched: whether several images run faster at once, as on a GPU.
        parity: what the gate measured.
        refused: a sentence for each backend that was tried and not used.
        heads: the head's weights; replaced between two frames.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend = AUTO,
        threads: int = 0,
        precision: Precision = "fp32",
        device: Device = "auto",
    ) -> None:
        """Load the graphs and check them against the bundle's stored outputs.

        Args:
            bundle: the model.
            backend: ``auto`` takes the first that passes the check, beginning with what was
                measured to be the fastest here; the others are not loaded.
            threads: cores to use; 0 means all.
            precision: to compute in.
            device: to run on; ``auto`` leaves it to the backend.

        Raises:
            ModelError: the backend is unknown or not there, or its answers differ from the stored
                ones; with ``auto``, of the last one that was tried, where none can be used.
        """
        self.heads = ServedHeads(bundle.sha256, bundle.weights(), bundle.manifest.served)
        self.precision = precision
        self._patch = bundle.manifest.backbone.patch_size
        self.refused: list[str] = []
        self._device = device
        names = candidates(backend, precision, device)
        if backend == AUTO:
            names = in_order(bundle, names, precision, device, threads)
        for name in names:
            try:
                self._backbone, self._head, self.parity = self._open(bundle, name, threads)
                self.backend = name
                self.batched: bool = getattr(self._backbone, "batched", False)
                break
            except ModelError as error:
                if name == names[-1]:
                    raise
                self.refused.append(f"{name} is not used: {error.what}; found {error.found}")

    @property
    def summary(self) -> str:
        """One line for logs: what runs, and how near it is to what the model answered."""
        parity = self.parity
        return (
            f"{self.backend}, {self.precision}: token cosine {parity.token_cosine:.5f} and label "
            f"agreement {parity.agreement:.4f} to the stored answers"
        )

    def tokens(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the backbone: (M, H, W, 3) uint8 -> (M, h, w, D) float32.

        Raises:
            ModelError: H or W is no multiple of the patch: what is over would not be seen.
        """
        height, width = images.shape[1:3]
        if height % self._patch or width % self._patch:
            raise ModelError(
                f"the backbone cannot see an image of {width}x{height} whole",
                expected=f"multiples of {self._patch} pixels",
                found=f"{width}x{height}",
                remedy="resize or pad it",
            )
        return _tokens(self._backbone, images)

    def classify(self, tokens: NDArray[np.float32], presence: NDArray[np.float32]) -> Classified:
        """Run the head, and look up what its clusters are served as.

        Args:
            tokens: (M, h, w, D) float32.
            presence: (M, h, w) float32, 1 where the modality sees that place.
        """
        head = self.heads.current
        outputs = self._head({"tokens": tokens, "presence": presence, **head.inputs})
        clusters = outputs["classes"].astype(np.uint8, copy=False)
        return Classified(
            np.take(head.served, clusters),
            outputs["confidence"].astype(np.uint8, copy=False),
            head.version,
        )

    def _open(self, bundle: Bundle, name: Backend, threads: int) -> tuple[Graph, Graph, Parity]:
        """Backbone and head on a backend, and what the gate measured."""
        load = LIBRARIES[name].load
        stored = bundle.parity()
        try:
            backbone = load(bundle.path / BACKBONE, self.precision, threads, self._device)
            head = load(bundle.path / HEAD, self.precision, threads, self._device)
            tokens, classes = self._frame(backbone, head, stored["images"])
        except ModelError:
            raise
        except Exception as error:  # the exceptions of the backends have no common base
            raise ModelError(
                f"{name} cannot run the graphs of {bundle.path}",
                expected="graphs with the inputs of this version",
                found=cause(error),
                remedy="train or export the model again, or install the version that wrote it",
            ) from error
        parity = Parity.of(tokens, classes, stored)
        gate = gate_of(self.precision)
        if not gate.passes(parity):
            raise ModelError(
                f"{name} in {self.precision} does not compute what {bundle.path} was stored with",
                expected=f"{gate} or more",
                found=str(parity),
                remedy="use another version of the backend or another --backend",
            )
        return backbone, head, parity

    def _frame(
        self, backbone: Graph, head: Graph, images: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Tokens and classes; one by one, as images come from the sensors: that is compiled."""
        tokens = np.concatenate([_tokens(backbone, image[None]) for image in images])
        inputs = {"tokens": tokens, "presence": np.ones(tokens.shape[:3], np.float32)}
        classes = head({**inputs, **self.heads.current.inputs})["classes"]
        return tokens, classes.astype(np.uint8, copy=False)


def _tokens(backbone: Graph, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return backbone({"images": images})["tokens"].astype(np.float32, copy=False)
