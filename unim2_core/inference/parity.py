"""The gate that every engine passes before it is used: equal to what the model answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_TOKEN_COSINE = 0.999
MIN_AGREEMENT = 0.99


@dataclass(frozen=True)
class Parity:
    """How far an engine is from stored answers.

    Attributes:
        token_cosine: smallest of all tokens, in [-1, 1].
        max_error: largest of all numbers of the tokens.
        agreement: share of the pixels with the stored class.
    """

    token_cosine: float
    max_error: float
    agreement: float

    @classmethod
    def of(
        cls,
        tokens: NDArray[np.float32],
        classes: NDArray[np.uint8],
        stored: Mapping[str, NDArray[Any]],
    ) -> Parity:
        """Compare.

        Args:
            tokens: (M, h, w, D) float32, of the engine.
            classes: (H, W) uint8, of the engine.
            stored: the same by name, of the model.
        """
        expected = stored["tokens"].astype(np.float32)
        length = np.linalg.norm(tokens, axis=3) * np.linalg.norm(expected, axis=3)
        cosines = (tokens * expected).sum(3) / length.clip(1e-12)
        return cls(
            float(cosines.min()),
            float(np.abs(tokens - expected).max()),
            float((classes == stored["classes"]).mean()),
        )

    @property
    def passed(self) -> bool:
        """Whether the engine may be used; not where anything is NaN."""
        return self.token_cosine >= MIN_TOKEN_COSINE and self.agreement >= MIN_AGREEMENT

    def __str__(self) -> str:
        return f"{self.token_cosine:.5f} and {self.agreement:.4f}"
