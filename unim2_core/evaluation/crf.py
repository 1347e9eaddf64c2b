"""A dense CRF as a last step of the published evaluation, where ``pydensecrf`` is installed.

Krähenbühl and Koltun (2011), https://arxiv.org/abs/1210.5644.
"""

from __future__ import annotations

import importlib
import importlib.util

import numpy as np
from numpy.typing import NDArray

from unim2_core.errors import ModelError

LIBRARY = "pydensecrf"
ITERATIONS = 10
GAUSSIAN_WEIGHT, GAUSSIAN_PIXELS = 3, 1
BILATERAL_WEIGHT, BILATERAL_PIXELS, BILATERAL_LEVELS = 4, 67, 3

Floats = NDArray[np.float32]


def installed() -> bool:
    """Whether the library is there."""
    return importlib.util.find_spec(LIBRARY) is not None


def check_installed() -> None:
    """Check that the library is there.

    Raises:
        ModelError: it is not.
    """
    if not installed():
        raise ModelError(
            "no dense CRF here",
            expected=f"that {LIBRARY} can be imported",
            found="it is not installed",
            remedy=f"evaluate without it, or build {LIBRARY} from its sources with Cython below 3",
        )


def marginals(image: NDArray[np.uint8], probabilities: Floats) -> Floats:
    """Smooth the probabilities of one image along its edges.

    Args:
        image: (H, W, 3) uint8, RGB.
        probabilities: (K, H, W) float32 in [0, 1].

    Returns:
        (K, H, W) float32 in [0, 1].

    Raises:
        ModelError: the library is not installed.
    """
    check_installed()
    densecrf = importlib.import_module(f"{LIBRARY}.densecrf")
    unary = importlib.import_module(f"{LIBRARY}.utils").unary_from_softmax
    classes, height, width = probabilities.shape
    crf = densecrf.DenseCRF2D(width, height, classes)
    crf.setUnaryEnergy(np.ascontiguousarray(unary(probabilities)))
    crf.addPairwiseGaussian(sxy=GAUSSIAN_PIXELS, compat=GAUSSIAN_WEIGHT)
    crf.addPairwiseBilateral(
        sxy=BILATERAL_PIXELS,
        srgb=BILATERAL_LEVELS,
        # As the release does it: the filter's lattice is not the same for another channel order.
        rgbim=np.ascontiguousarray(image[..., ::-1]),
        compat=BILATERAL_WEIGHT,
    )
    found = crf.inference(ITERATIONS)
    return np.asarray(found, np.float32).reshape(classes, height, width)
