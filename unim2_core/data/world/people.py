"""People who stand and walk, each with a build, clothes and a warmth of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from unim2_core.data.world.colours import CLOTH_COLOURS, HAIR_COLOURS, SKIN_COLOURS, pick
from unim2_core.data.world.solids import Sculptor, Solid

BODY_K = 306.0
"""Temperature of skin, kelvin."""
_SHOE_COLOUR = (0.06, 0.05, 0.045)


class Pedestrian:
    """A person; ``posed`` gives the body at one phase of the stride.

    Args:
        rng: draws the person.
        air_k: temperature of the air: clothes lie between it and the skin.
    """

    def __init__(self, rng: np.random.Generator, air_k: float) -> None:
        h, girth = float(rng.uniform(1.5, 1.92)), float(rng.uniform(0.85, 1.25))
        top, legs = pick(rng, CLOTH_COLOURS), pick(rng, CLOTH_COLOURS)
        skin, hair = pick(rng, SKIN_COLOURS), pick(rng, HAIR_COLOURS)
        body = BODY_K - air_k
        # A thick coat hardly shows, a shirt does.
        top_k, legs_k = (float(body * rng.uniform(0.2, 0.75)) for _ in range(2))
        hip, shoulder = 0.52 * h, 0.82 * h
        s = Sculptor()
        limbs: list[tuple[float, float]] = []  # height of the joint, direction of the swing
        for side in (1, -1):
            y = side * 0.052 * h * girth
            s.ellipsoid((0, y, hip - 0.26 * h), (0.052 * h * girth, 0.052 * h * girth, 0.275 * h),
                        "cloth", legs, heat_k=legs_k)  # fmt: skip
            s.ellipsoid((0.03 * h, y, 0.022 * h), (0.072 * h, 0.032 * h, 0.026 * h),
                        "cloth", _SHOE_COLOUR, heat_k=0.6 * legs_k)  # fmt: skip
            y = side * 0.135 * h * girth
            s.ellipsoid((0, y, shoulder - 0.17 * h), (0.034 * h, 0.034 * h, 0.19 * h),
                        "cloth", top, heat_k=top_k)  # fmt: skip
            s.ellipsoid((0, y, shoulder - 0.35 * h), (0.03 * h, 0.022 * h, 0.035 * h),
                        "skin", skin, heat_k=0.85 * body)  # fmt: skip
            limbs += [(hip, -side)] * 2 + [(shoulder, side)] * 2
        low = (0.42 if rng.random() < 0.4 else 0.52) * h
        s.ellipsoid((0, 0, (low + 0.86 * h) / 2),
                    (0.078 * h * girth, 0.118 * h * girth, (0.88 * h - low) / 2),
                    "cloth", top, heat_k=top_k)  # fmt: skip
        s.ellipsoid((0.01 * h, 0, 0.93 * h), (0.058 * h, 0.05 * h, 0.073 * h), "skin", skin,
                    heat_k=0.88 * body)  # fmt: skip
        s.ellipsoid((-0.014 * h, 0, 0.95 * h), (0.056 * h, 0.053 * h, 0.06 * h), "hair", hair,
                    heat_k=0.5 * body)  # fmt: skip
        self._standing = s.solid()
        still = len(self._standing.centres) - len(limbs)
        joint, self._swing = np.array(limbs + [(0.0, 0.0)] * still, np.float32).T
        self._joint: NDArray[np.float32] = joint[:, None] * np.array([0, 0, 1], np.float32)

    def posed(self, phase: float, stride: float) -> Solid:
        """The body at ``phase`` radians of a gait with ``stride`` radians swing, facing +x."""
        angle = self._swing * np.float32(stride * np.sin(phase))
        c, s, zero = np.cos(angle), np.sin(angle), np.zeros_like(angle)
        one = np.ones_like(angle)
        turn = np.stack([c, zero, s, zero, one, zero, -s, zero, c], -1).reshape(-1, 3, 3)
        standing = self._standing
        centres = np.einsum("eij,ej->ei", turn, standing.centres - self._joint) + self._joint
        shapes = np.einsum("ekj,eij->eki", standing.shapes, turn)
        coat = replace(standing.coat, origin=centres)
        return replace(standing, centres=centres, shapes=shapes, coat=coat)
