"""How new drives differ from remembered ones, and what is wrong with their sensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unim2_core.learning.buffer import NEIGHBORS
from unim2_core.learning.features import FeatureStore, Standardization
from unim2_core.learning.pairs import describe

USUAL = 0.95
"""Share of the remembered pictures that count as familiar."""
SHIFTED = 0.3
"""Share of unfamiliar pictures from which on adapting is worth it; chance alone gives 0.05."""
SURE = 4.0
"""Standard errors that a sensor's fit must be above chance in old drives to be asked of new ones.
"""


@dataclass(frozen=True)
class Shift:
    """How unlike the past new pictures are.

    Attributes:
        score: share of the pictures that are less like anything remembered than ``USUAL`` of the
            remembered held-out ones.
        by_modality: the same told by one modality alone.
    """

    score: float
    by_modality: Mapping[str, float]

    @property
    def shifted(self) -> bool:
        """Whether adapting is worth it."""
        return self.score > SHIFTED

    @property
    def sentence(self) -> str:
        """For people: what was found, and what it is held against."""
        parts = ", ".join(f"{name} {100 * part:.0f} %" for name, part in self.by_modality.items())
        side = "above" if self.shifted else "not above"
        return (
            f"{100 * self.score:.0f} % of the pictures are unlike the remembered ones ({parts}), "
            f"{side} {100 * SHIFTED:.0f} %"
        )


def shift(
    rehearsed: FeatureStore,
    held: FeatureStore,
    new: FeatureStore,
    standardization: Standardization,
) -> Shift:
    """Measure how unlike the past new pictures are.

    Args:
        rehearsed: the past that pictures are compared with.
        held: the past that says how unlike it is usual to be.
        new: the pictures.
        standardization: of the tokens.
    """

    def unlike(names: tuple[str, ...]) -> float:
        rows = [rehearsed.modalities.index(name) for name in names]
        part = Standardization(standardization.mean[rows], standardization.scale[rows])
        past, usual, found = (
            describe(store.only(names), NEIGHBORS, part).numpy()
            for store in (rehearsed, held, new)
        )
        limit = np.quantile((usual @ past.T).max(axis=1), 1 - USUAL)
        return float(((found @ past.T).max(axis=1) < limit).mean())

    names = rehearsed.modalities
    return Shift(unlike(names), {name: unlike((name,)) for name in names})


def sensor_figures(
    old: FeatureStore, new: FeatureStore, standardization: Standardization
) -> dict[str, float]:
    """What the guard holds against the sensors of new drives.

    ``presence/NAME``: share of the places that it sees, of that in the old drives.
    ``spread/NAME``: deviation of its features over places and pictures, likewise.
    ``together/NAME``: by how many standard errors its features fit those of the reference of the
    same moment better than those of other moments, see ``fit_gain``; left out where the old
    drives do not show it either.
    """
    found: dict[str, float] = {}
    for index, name in enumerate(old.modalities):
        before, now = old.presence[name].mean(), new.presence[name].mean()
        found[f"presence/{name}"] = float(now / before) if before > 0 else 1.0
        scale = standardization.scale[index]
        usual = _spread(old, name, scale)
        if usual > 0 and now > 0:
            found[f"spread/{name}"] = _spread(new, name, scale) / usual
    reference = old.modalities[0]
    for name in old.modalities[1:]:
        before, now = (
            standard_errors(fit_gain(store, reference, name, standardization))
            for store in (old, new)
        )
        if before > SURE and found[f"presence/{name}"] > 0:
            found[f"together/{name}"] = now
    return found


def standard_errors(values: NDArray[np.float64]) -> float:
    """Mean of values in units of its standard error; 0 of fewer than three."""
    if len(values) < 3:
        return 0.0
    return float(values.mean() / max(values.std(ddof=1) / np.sqrt(len(values)), 1e-9))


def _spread(store: FeatureStore, name: str, scale: NDArray[np.float32]) -> float:
    seen = store.tokens[name][store.presence[name]].astype(np.float32)
    return float(np.sqrt(((seen.std(axis=0) * scale) ** 2).mean())) if len(seen) else 0.0


def fit_gain(
    store: FeatureStore, reference: str, name: str, standardization: Standardization
) -> NDArray[np.float64]:
    """How much better each picture's features of a sensor fit its own reference: (N,).

    Fit is the linear centred kernel alignment over places (Kornblith et al., "Similarity of Neural
    Network Representations Revisited", 2019); the gain is the fit to the reference of the same
    picture minus the mean fit to those of the others. Without a common cause in the world, as in
    the thermal images of another drive, it is 0. Pictures that the sensor does not see are left
    out.
    """
    count = len(store)
    scales = dict(zip(store.modalities, standardization.scale, strict=True))
    first = [_kernel(store, reference, row, scales[reference]) for row in range(count)]
    second = [_kernel(store, name, row, scales[name]) for row in range(count)]
    rows = [row for row in range(count) if first[row] is not None and second[row] is not None]
    if len(rows) < 2:
        return np.zeros(0)
    left = np.stack([first[row] for row in rows])  # type: ignore[misc]
    right = np.stack([second[row] for row in rows])  # type: ignore[misc]
    fit = left @ right.T  # (n, n): kernels are at unit length
    own = np.diag(fit)
    others = (fit.sum(axis=0) - own) / (len(rows) - 1)
    return np.asarray(own - others, np.float64)


def _kernel(
    store: FeatureStore, name: str, row: int, scale: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """The centred kernel of a picture's places, flat, at unit length; None: it shows nothing."""
    seen = store.presence[name][row].reshape(-1)
    if seen.mean() < 0.5:
        return None
    tokens = store.tokens[name][row].reshape(-1, store.dim).astype(np.float32)
    tokens = (tokens - tokens[seen].mean(axis=0)) * scale * seen[:, None]
    kernel = (tokens @ tokens.T).reshape(-1)
    length = float(np.linalg.norm(kernel))
    return kernel / length if length > 1e-6 else None
