"""Pictures as JPEG, for pages and viewers."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

QUALITY = 85


def jpeg(picture: NDArray[np.uint8]) -> bytes:
    """(H, W, 3) uint8 RGB or (H, W) uint8 grey as the content of a file."""
    colored = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) if picture.ndim == 3 else picture
    _, content = cv2.imencode(".jpg", colored, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))
    return content.tobytes()
