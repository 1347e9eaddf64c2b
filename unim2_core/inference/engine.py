"""Engines: a graph on a backend, chosen by name and held against stored outputs before use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError
from unim2_core.inference.onnxruntime import OnnxRuntimeGraph
from unim2_core.model.bundle import BACKBONE, HEAD, Bundle

Backend = Literal["auto", "onnxruntime"]
BACKENDS = get_args(Backend)

MIN_TOKEN_COSINE = 0.999
MIN_AGREEMENT = 0.99


class Graph(Protocol):
    """Runs one graph: input name -> array in, output name -> array out."""

    def __call__(
        self, inputs: Mapping[str, NDArray[np.generic]]
    ) -> dict[str, NDArray[np.generic]]:
        """Run once."""


class Engine:
    """The two graphs of a bundle on one backend, and the head's weights.

    Attributes:
        backend: name of the backend that runs.
    """

    def __init__(self, bundle: Bundle, backend: Backend = "auto", threads: int = 0) -> None:
        """Load the graphs and check them against the bundle's stored outputs.

        Args:
            bundle: the model.
            backend: ``auto`` takes the best that passes the check.
            threads: cores to use; 0 means all.

        Raises:
            ModelError: the backend is unknown, or its answers differ from the stored ones.
        """
        if backend not in BACKENDS:
            raise ModelError(
                "unknown backend",
                expected=" or ".join(BACKENDS),
                found=str(backend),
                remedy="name one of these with --backend",
            )
        self.backend = "onnxruntime"
        self._backbone: Graph = OnnxRuntimeGraph(bundle.path / BACKBONE, threads)
        self._head: Graph = OnnxRuntimeGraph(bundle.path / HEAD, threads)
        self._weights = bundle.weights()
        self._check(bundle)

    def tokens(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Run the backbone: (M, H, W, 3) uint8 -> (M, h, w, D) float32."""
        return self._backbone({"images": images})["tokens"].astype(np.float32, copy=False)

    def classify(
        self, tokens: NDArray[np.float32], presence: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Run the head.

        Args:
            tokens: (M, h, w, D) float32.
            presence: (M, h, w) float32, 1 where the modality sees that place.

        Returns:
            classes and confidence, (H, W) uint8 at the head's stride.
        """
        outputs = self._head({"tokens": tokens, "presence": presence, **self._weights})
        return outputs["classes"].astype(np.uint8), outputs["confidence"].astype(np.uint8)

    def _check(self, bundle: Bundle) -> None:
        try:
            self._compare(bundle)
        except ModelError:
            raise
        except Exception as error:  # onnxruntime's own exceptions have no common base
            raise ModelError(
                f"{self.backend} cannot run the graphs of {bundle.path}",
                expected="graphs with the inputs of this version",
                found=str(error).splitlines()[0],
                remedy="train or export the model again, or install the version that wrote it",
            ) from error

    def _compare(self, bundle: Bundle) -> None:
        stored = bundle.parity()
        expected = stored["tokens"].astype(np.float32)
        tokens = self.tokens(stored["images"])
        length = np.linalg.norm(tokens, axis=3) * np.linalg.norm(expected, axis=3)
        cosine = float(((tokens * expected).sum(3) / length.clip(1e-12)).min())
        classes, _ = self.classify(tokens, np.ones(tokens.shape[:3], np.float32))
        agreement = float((classes == stored["classes"]).mean())
        if not (cosine >= MIN_TOKEN_COSINE and agreement >= MIN_AGREEMENT):
            raise ModelError(
                f"{self.backend} does not compute what {bundle.path} was stored with",
                expected=f"token cosine of {MIN_TOKEN_COSINE} and label agreement of "
                f"{MIN_AGREEMENT} or more",
                found=f"{cosine:.5f} and {agreement:.4f}",
                remedy="use another version of the backend or another --backend",
            )
