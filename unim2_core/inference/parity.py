"""The gate that every engine passes before it is used: equal to what the model answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


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

    def __str__(self) -> str:
        return f"{self.token_cosine:.5f} and {self.agreement:.4f}"


@dataclass(frozen=True)
class Gate:
    """How near an engine must come.

    Attributes:
        token_cosine: the least that its worst token may have.
        agreement: the least share of pixels with the stored class.
    """

    token_cosine: float
    agreement: float

    def passes(self, found: Parity) -> bool:
        """Whether an engine may be used; not where anything is NaN."""
        return found.token_cosine >= self.token_cosine and found.agreement >= self.agreement

    def __str__(self) -> str:
        return f"token cosine of {self.token_cosine} and label agreement of {self.agreement}"


EXACT = Gate(0.999, 0.99)
APPROXIMATE = Gate(0.9, 0.97)
"""For int8, which is another network, near enough to the first: one that was computed wrongly is
still told from it."""


def gate_of(precision: str) -> Gate:
    """The gate for engines that compute in a precision."""
    return APPROXIMATE if precision == "int8" else EXACT
