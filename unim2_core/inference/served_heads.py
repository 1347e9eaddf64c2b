"""The weights that an engine's head runs with: replaced between two frames, and put back."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError

Weights = Mapping[str, NDArray[np.float32]]
Table = NDArray[np.uint8]

SLOTS = 16
"""Places for clusters come in so many: a new class need not change the shape of a graph's input,
for which some backends compile again."""
KEPT = 8
"""Versions that can be put back."""
BY_CLUSTER = ("prototypes", "valid")
OWN_NUMBERS: Table = np.arange(256, dtype=np.uint8)
"""Every cluster is a class of its own."""
MOST = 254
"""Clusters; 255 means unlabelled."""


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """One version; never changed once it is made.

    Attributes:
        version: of the model that it is from.
        inputs: of the head's graph, apart from tokens and presence, clusters padded to ``SLOTS``.
        served: (256,) uint8, the class id that each cluster is served as.
    """

    version: str
    inputs: Weights
    served: Table

    @classmethod
    def padded(cls, version: str, weights: Weights, served: Table) -> HeadWeights:
        """Fill up the last slots; what is added counts as not in use."""
        inputs = {name: np.asarray(array, np.float32) for name, array in weights.items()}
        clusters = len(inputs["valid"])
        added = -clusters % SLOTS
        for name in BY_CLUSTER:
            array = inputs[name]
            zeros = np.zeros((added, *array.shape[1:]), np.float32)
            inputs[name] = np.concatenate([array, zeros])
        return cls(version, inputs, served)


class ServedHeads:
    """The version that runs and those before it.

    One thread may replace it while another one runs frames: who takes ``current`` once for a frame
    has one version and no mixture.
    """

    def __init__(self, version: str, weights: Weights, served: Table = OWN_NUMBERS) -> None:
        self._earlier: deque[HeadWeights] = deque(maxlen=KEPT)
        self.current = HeadWeights.padded(version, weights, served)

    @property
    def versions(self) -> tuple[str, ...]:
        """The versions that can be put back, oldest first, and the one that runs."""
        return (*(earlier.version for earlier in self._earlier), self.current.version)

    def replace(self, version: str, weights: Weights, served: Table | None = None) -> None:
        """Serve other weights from the next frame on.

        Args:
            version: of the model that they are from.
            weights: as ``Bundle.weights`` gives them; only the number of clusters may differ. The
                arrays are kept, not copied (new memory is most of what a copy takes beside frames
                that run): nobody may change them afterwards.
            served: as ``Manifest.served`` gives it; None: as the version before.

        Raises:
            ModelError: they belong to another network, or are not finite; nothing changes.
        """
        wanted, found = _form(self.current.inputs), _form(weights)
        wrong = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        if wrong:
            name = wrong[0]
            raise self._unfit(
                version,
                f"{name} {wanted.get(name, 'not there')}",
                f"{name} {found.get(name, 'not there')}",
            )
        counts = [len(weights[name]) for name in BY_CLUSTER]
        if len(set(counts)) > 1 or not 2 <= counts[0] <= MOST:
            raise self._unfit(version, f"2 to {MOST} clusters", " and ".join(map(str, counts)))
        served = self.current.served if served is None else served
        fresh = HeadWeights.padded(version, weights, served)
        for name, array in fresh.inputs.items():
            if not np.isfinite([array.min(), array.max()]).all():  # both are nan where one is
                raise self._unfit(version, f"{name} finite", "values that are not")
        self._earlier.append(self.current)
        self.current = fresh  # one assignment: a frame sees the old or the new one

    def _unfit(self, version: str, expected: str, found: str) -> ModelError:
        return ModelError(
            f"version {version[:12]} cannot take the place of {self.current.version[:12]}",
            expected=expected,
            found=found,
            remedy="load the whole model anew, or train it from the one that runs",
        )

    def roll_back(self) -> str:
        """Serve the version before from the next frame on; returns its name.

        Raises:
            ModelError: there is none.
        """
        if not self._earlier:
            raise ModelError(
                "there is no earlier version to go back to",
                expected="a version that was replaced since the engine was started",
                found=f"only {self.current.version}",
                remedy="load the model to go back to",
            )
        self.current = self._earlier.pop()
        return self.current.version


def _form(weights: Weights) -> dict[str, tuple[int | str, ...]]:
    """Shapes by name; the number of clusters may be any."""
    return {
        name: ("K", *array.shape[1:]) if name in BY_CLUSTER and array.ndim else array.shape
        for name, array in weights.items()
    }
