"""Colours that things come in: linear reflectances of red, green and blue."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Colour = tuple[float, float, float]

CAR_COLOURS: tuple[Colour, ...] = (
    (0.62, 0.62, 0.60),
    (0.03, 0.03, 0.032),
    (0.22, 0.23, 0.24),
    (0.10, 0.105, 0.11),
    (0.36, 0.03, 0.03),
    (0.04, 0.09, 0.28),
    (0.05, 0.14, 0.08),
    (0.50, 0.36, 0.12),
    (0.33, 0.30, 0.24),
)
WALL_COLOURS: tuple[Colour, ...] = (
    (0.55, 0.52, 0.45),
    (0.40, 0.16, 0.11),
    (0.30, 0.30, 0.29),
    (0.50, 0.40, 0.22),
    (0.14, 0.12, 0.11),
    (0.36, 0.42, 0.33),
    (0.24, 0.30, 0.38),
    (0.62, 0.60, 0.58),
)
CLOTH_COLOURS: tuple[Colour, ...] = (
    (0.04, 0.04, 0.045),
    (0.05, 0.07, 0.16),
    (0.38, 0.06, 0.06),
    (0.55, 0.54, 0.50),
    (0.24, 0.22, 0.18),
    (0.10, 0.20, 0.10),
    (0.16, 0.16, 0.17),
    (0.55, 0.42, 0.10),
    (0.12, 0.24, 0.42),
)
SKIN_COLOURS: tuple[Colour, ...] = ((0.52, 0.34, 0.25), (0.34, 0.20, 0.13), (0.13, 0.075, 0.05))
ROOF_TINTS: tuple[Colour, ...] = ((1.0, 1.0, 1.0), (0.5, 0.9, 1.1), (1.5, 1.3, 1.2))
HAIR_COLOURS: tuple[Colour, ...] = ((0.03, 0.025, 0.02), (0.15, 0.10, 0.06), (0.3, 0.27, 0.22))
SIGN_COLOURS: tuple[Colour, ...] = (
    (0.45, 0.04, 0.04),
    (0.05, 0.12, 0.40),
    (0.60, 0.60, 0.58),
    (0.60, 0.42, 0.05),
)


def pick(rng: np.random.Generator, colours: Sequence[Colour], spread: float = 0.15) -> Colour:
    """Draw a colour and vary it: ``spread`` in brightness, a third of it in hue."""
    base = np.asarray(colours[int(rng.integers(len(colours)))])
    r, g, b = base * np.exp(rng.normal(0, spread)) * np.exp(rng.normal(0, spread / 3, 3))
    return float(r), float(g), float(b)
