"""Labelled points: what depth measured, with the class that the reference image has there."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unim2_core.sensing.calibration import Intrinsics
from unim2_core.sensing.frames import Frame
from unim2_core.sensing.poses import Pose

MOST_POINTS = 40_000


class Cloud(NamedTuple):
    """Points in the reference camera's optical frame.

    Attributes:
        positions: (N, 3) float32, metres.
        rows: (N,) row of the reference image that each is seen in.
        columns: (N,) its column.
    """

    positions: NDArray[np.float32]
    rows: NDArray[np.intp]
    columns: NDArray[np.intp]


def cloud(
    depth: Frame, pose: Pose, reference: Intrinsics, most: int = MOST_POINTS
) -> Cloud | None:
    """Points of a depth image that the reference camera has in its image.

    What the reference does not see because something is in front of it gets the class of what is
    in front: along edges, over a width that the distance of both cameras decides.

    Args:
        depth: the depth image, metres, with its camera.
        pose: of the depth camera in the reference camera's frame.
        reference: the reference camera at the size of its image.
        most: about how many points to keep, evenly thinned.

    Returns:
        None where the depth camera is not calibrated.
    """
    if depth.camera is None:
        return None
    step = max(1, int(np.ceil(np.sqrt(depth.data.size / most))))
    camera = depth.camera.scaled((depth.height, depth.width))
    rays = camera.rays()[::step, ::step]
    z = depth.data[::step, ::step, None]
    measured = z[..., 0] > 0
    if depth.valid is not None:
        measured &= depth.valid[::step, ::step]
    points = np.concatenate([rays * z, z], axis=-1)[measured].astype(np.float64)
    moved = points @ pose.rotation.T + pose.translation
    placed: NDArray[np.float32] = moved[moved[:, 2] > 0].astype(np.float32)
    rays = placed[:, :2] / placed[:, 2:]
    pixels = reference.project(rays)
    size = np.array([reference.width, reference.height])
    inside = ((pixels > -0.5) & (pixels < size - 0.5)).all(axis=1)
    cells = np.rint(pixels[inside]).astype(np.intp)
    return Cloud(placed[inside], cells[:, 1], cells[:, 0])
